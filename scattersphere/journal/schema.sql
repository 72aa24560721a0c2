-- The journal of a Server: what happened to its runs, and all that is needed to go on with them.
-- Instants are microseconds since 1970, UTC. States are places in the enums RunState and TaskState (the views
-- `runs` and `tasks` give their names). Rows of a run refer to it without a foreign key: a run that is given up
-- loses its row at once, and what belongs to it in pieces.

CREATE TABLE meta(                -- journal: its id for ever; next_run: first number not reserved; wall: newest time seen
  name TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE life(                -- one row an opening by a Server
  number INTEGER PRIMARY KEY, opened INTEGER NOT NULL, pid INTEGER NOT NULL, version TEXT NOT NULL,
  suspended INTEGER               -- when it was closed in order
) STRICT;

CREATE TABLE definition(digest TEXT PRIMARY KEY, job TEXT NOT NULL, text TEXT NOT NULL) STRICT, WITHOUT ROWID;

CREATE TABLE bundle(              -- the code of one version
  digest TEXT PRIMARY KEY, bytes INTEGER NOT NULL,
  content BLOB                    -- NULL: classes of the host
) STRICT;
INSERT INTO bundle(digest, bytes) VALUES('', 0); -- of classes that the host registers itself, in every journal

CREATE TABLE run(                 -- what never changes of a run
  id INTEGER PRIMARY KEY, job TEXT NOT NULL, definition TEXT NOT NULL REFERENCES definition,
  params TEXT NOT NULL,           -- JSON, without secrets
  secrets TEXT NOT NULL,          -- JSON: their names
  durability INTEGER NOT NULL,    -- 0 none 1 relaxed 2 strict
  created INTEGER NOT NULL,
  key TEXT, user TEXT NOT NULL, request BLOB,    -- request: digest of params without secrets
  parent INTEGER, parent_unit INTEGER, parent_try INTEGER, child INTEGER, -- the child-th start of that try of the parent;
                                  -- parent_unit: a task by its place in the definition, or index + 1 << 32 | task
  again INTEGER,                  -- the run that it runs again
  scheduled TEXT,                 -- JSON: the schedule that fired it, and the time it was due
  extra TEXT NOT NULL             -- JSON
) STRICT;
CREATE UNIQUE INDEX run_key ON run(job, user, key) WHERE key IS NOT NULL;
CREATE UNIQUE INDEX run_child ON run(parent, parent_unit, parent_try, child) WHERE parent IS NOT NULL;
CREATE INDEX run_job ON run(job, id);
CREATE INDEX run_definition ON run(definition);

CREATE TABLE run_bundle(run INTEGER NOT NULL REFERENCES run ON DELETE CASCADE, name TEXT NOT NULL,
  digest TEXT NOT NULL REFERENCES bundle, PRIMARY KEY(run, name)) STRICT, WITHOUT ROWID;
CREATE INDEX bundle_run ON run_bundle(digest);

CREATE TABLE run_state(           -- what changes of a run: apart, so that a change does not write the parameters again
  id INTEGER PRIMARY KEY REFERENCES run ON DELETE CASCADE,
  state INTEGER NOT NULL,
  level INTEGER NOT NULL,         -- 0 nothing asked 1 stop 2 cancel 3 kill
  flags INTEGER NOT NULL,         -- 1 first cause is the timeout 2 fail_fast 4 time of finally-tasks over 8 something withheld
  causes TEXT NOT NULL,           -- JSON
  begun INTEGER NOT NULL,         -- had its slot
  started INTEGER, ended INTEGER,
  spent INTEGER NOT NULL,         -- microseconds of its timeout used up
  recovered INTEGER NOT NULL,     -- restarts survived
  fruitless INTEGER NOT NULL,     -- restarts since the last outcome
  widths TEXT NOT NULL,           -- JSON: instances of mapped tasks, by number of the task
  failure TEXT,                   -- why it crashed, where no task says so
  CHECK ((ended IS NULL) = (state < 6))
) STRICT;
CREATE INDEX run_open ON run_state(id) WHERE ended IS NULL;
CREATE INDEX run_ended ON run_state(ended) WHERE ended IS NOT NULL;
CREATE INDEX run_in_state ON run_state(state, id);

CREATE TABLE step(                -- a unit that has ended, waits for its retry, or whose start had to be committed
  run INTEGER NOT NULL,
  unit INTEGER NOT NULL,          -- a task by its place in the definition; instances of maps come after all tasks
  task INTEGER NOT NULL,
  place INTEGER,                  -- index in the map
  state INTEGER NOT NULL, attempts INTEGER NOT NULL,
  forgiven INTEGER NOT NULL,      -- attempts that do not count
  started INTEGER, ended INTEGER,
  due INTEGER,                    -- wall clock of the retry
  form INTEGER NOT NULL,          -- of value: 0 none 1 JSON 2 tagged JSON 3 pickle 4 file (value: its name) 5 not kept 6 dropped
  value BLOB,
  failure TEXT,                   -- JSON
  reused INTEGER,                 -- the run that made the result
  PRIMARY KEY(run, unit)          -- no CHECK: it is the row of which there are most; `journal check` looks
) STRICT, WITHOUT ROWID;
CREATE UNIQUE INDEX step_place ON step(run, task, place) WHERE place IS NOT NULL;
CREATE INDEX step_file ON step(value) WHERE form = 4;

CREATE TABLE successes(           -- tasks that succeeded at their first attempt, as many as ended together (view `steps`)
  run INTEGER NOT NULL,
  first INTEGER NOT NULL,         -- the unit of the first one
  number INTEGER NOT NULL,        -- how many they are
  since INTEGER NOT NULL,         -- the instant from which their times are counted
  tasks TEXT NOT NULL,            -- JSON: [[unit, started, ended, value], ...]
  PRIMARY KEY(run, first)) STRICT, WITHOUT ROWID;

CREATE TABLE attempt(             -- one that was not the last of its unit
  run INTEGER NOT NULL, unit INTEGER NOT NULL, number INTEGER NOT NULL,
  how INTEGER NOT NULL,           -- the state that the unit would have had; 1: interrupted
  failure TEXT, ended INTEGER NOT NULL, PRIMARY KEY(run, unit, number)) STRICT, WITHOUT ROWID;

CREATE TABLE moves(               -- int64, little endian: unit << 4 | state; ~state of the run itself
  run INTEGER NOT NULL, first INTEGER NOT NULL, life INTEGER NOT NULL, at INTEGER NOT NULL,
  moves BLOB NOT NULL, PRIMARY KEY(run, first)) STRICT, WITHOUT ROWID;

CREATE TABLE log(run INTEGER NOT NULL, first INTEGER NOT NULL, lines INTEGER NOT NULL, data BLOB NOT NULL,
  PRIMARY KEY(run, first)) STRICT, WITHOUT ROWID;

CREATE TABLE schedule(job TEXT NOT NULL, name TEXT NOT NULL, state TEXT NOT NULL, last INTEGER, paused INTEGER NOT NULL,
  gone INTEGER,                   -- not defined any more since
  PRIMARY KEY(job, name)) STRICT, WITHOUT ROWID;

CREATE TABLE rollback(bundle TEXT PRIMARY KEY, digest TEXT NOT NULL REFERENCES bundle, instead_of TEXT NOT NULL,
  at INTEGER NOT NULL) STRICT, WITHOUT ROWID;
CREATE INDEX rollback_bundle ON rollback(digest);

CREATE TABLE given_up(run INTEGER PRIMARY KEY) STRICT; -- runs whose rows are being deleted, piece by piece

CREATE VIEW runs AS SELECT
  run.id, run.job,
  CASE s.state WHEN 0 THEN 'queued' WHEN 1 THEN 'running' WHEN 2 THEN 'pausing' WHEN 3 THEN 'paused'
    WHEN 4 THEN 'stopping' WHEN 5 THEN 'cancelling' WHEN 6 THEN 'succeeded' WHEN 7 THEN 'failed'
    WHEN 8 THEN 'stopped' WHEN 9 THEN 'cancelled' WHEN 10 THEN 'crashed' END AS state,
  strftime('%Y-%m-%d %H:%M:%f', run.created / 1e6, 'unixepoch') AS created,
  strftime('%Y-%m-%d %H:%M:%f', s.started / 1e6, 'unixepoch') AS started,
  strftime('%Y-%m-%d %H:%M:%f', s.ended / 1e6, 'unixepoch') AS ended,
  (s.ended - s.started) / 1e6 AS seconds,
  run.params, run.key, run.user, run.parent, run.again, s.recovered, s.failure
  FROM run JOIN run_state AS s ON s.id = run.id;

CREATE VIEW steps AS              -- all units, whichever of the two tables they stand in; where in both, `step` is newer
  SELECT run, unit, task, place, state, attempts, forgiven, started, ended, due, form, value, failure, reused FROM step
  UNION ALL SELECT
    run, each.value ->> 0, each.value ->> 0, NULL, 4, 1, 0, since + (each.value ->> 1), since + (each.value ->> 2), NULL,
    1, each.value -> 3, NULL, NULL
  FROM successes, json_each(successes.tasks) AS each
  WHERE NOT EXISTS (SELECT 1 FROM step WHERE step.run = successes.run AND step.unit = each.value ->> 0);

CREATE VIEW tasks AS WITH names AS (
    SELECT digest, key AS name, row_number() OVER (PARTITION BY digest ORDER BY id) - 1 AS task
    FROM definition, json_each(definition.text, '$.tasks'))
  SELECT step.run, run.job, names.name AS task, step.place,
  CASE step.state WHEN 0 THEN 'pending' WHEN 1 THEN 'running' WHEN 2 THEN 'cancelling' WHEN 3 THEN 'up_for_retry'
    WHEN 4 THEN 'succeeded' WHEN 5 THEN 'failed' WHEN 6 THEN 'skipped' WHEN 7 THEN 'upstream_failed'
    WHEN 8 THEN 'cancelled' WHEN 9 THEN 'crashed' END AS state,
  step.attempts,
  strftime('%Y-%m-%d %H:%M:%f', step.started / 1e6, 'unixepoch') AS started,
  strftime('%Y-%m-%d %H:%M:%f', step.ended / 1e6, 'unixepoch') AS ended,
  (step.ended - step.started) / 1e6 AS seconds,
  CASE WHEN step.form IN (1, 2) THEN CAST(step.value AS TEXT) END AS value,
  step.failure
  FROM steps AS step JOIN run ON run.id = step.run
  LEFT JOIN names ON names.digest = run.definition AND names.task = step.task;
