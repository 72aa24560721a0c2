"""Tokens: shown once, kept as digests in a private file, found again, revoked, never leaked."""

import datetime as dt
import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from scattersphere.commands import tokens
from scattersphere.commands.tokens import digest_of
from scattersphere.errors import ConflictError, ExistsError, NotFoundError
from scattersphere.remote import ListenError, Role, TokenFile, find_token
from scattersphere.remote.serve import create_token, list_tokens, revoke_token


@pytest.fixture
def file(tmp_path):
    return TokenFile(tmp_path / "tokens.json")


def test_a_token_has_256_random_bits_and_is_kept_as_a_digest_only(file):
    tokens = {file.create(f"n{number}", Role.VIEWER) for number in range(20)}
    assert len(tokens) == 20
    for token in tokens:
        assert token.startswith("ss1_")
        assert len(token) == len("ss1_") + 43  # 256 bits in base64
        assert not set(token) & set(" =")
        assert token not in file.path.read_text()
        assert digest_of(token) in file.path.read_text()


def test_the_file_is_private_and_one_that_is_not_is_refused(file):
    token = file.create("ann", Role.ADMIN)
    assert stat.S_IMODE(file.path.stat().st_mode) == 0o600
    assert file.find(token).user == "ann"
    for mode in (0o640, 0o604, 0o620, 0o606):
        file.path.chmod(mode)
        os.utime(file.path, ns=(1, mode))
        with pytest.raises(ListenError, match="chmod 600"):
            file.refresh()
        assert file.find(token) is None


def test_a_folder_or_a_pipe_in_place_of_the_file_is_refused(file, tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    (tmp_path / "loop").symlink_to("loop")
    for place in (tmp_path / "missing", tmp_path, tmp_path / "pipe", tmp_path / "loop"):
        with pytest.raises(ListenError):
            TokenFile(place).refresh()


def test_a_link_is_followed_to_a_file_that_is_safe(file, tmp_path):
    """Kubernetes mounts a secret as a link to a link to a file."""
    token = file.create("ann", Role.ADMIN)
    (tmp_path / "..2026").mkdir()
    file.path.rename(tmp_path / "..2026" / "tokens.json")
    (tmp_path / "..data").symlink_to("..2026")
    file.path.symlink_to("..data/tokens.json")
    file.refresh()
    assert file.find(token).user == "ann"
    with pytest.raises(ConflictError, match="is a link"):
        file.revoke("ann")
    (tmp_path / "..2026" / "tokens.json").chmod(0o644)
    with pytest.raises(ListenError, match="chmod 600"):
        TokenFile(file.path).refresh()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a link away")
def test_a_link_of_another_user_is_not_followed(file, tmp_path):
    file.create("ann", Role.ADMIN)
    (tmp_path / "link").symlink_to(file.path)
    os.lchown(tmp_path / "link", 12_345, 12_345)
    with pytest.raises(ListenError, match="a link of user 12345"):
        TokenFile(tmp_path / "link").refresh()


def test_a_change_waits_for_the_one_that_is_under_way(file, monkeypatch):
    """A `create` that had read the file before a `revoke` brought the revoked token back."""
    monkeypatch.setattr(tokens, "PATIENCE", 0.05)
    stolen = file.create("mallory", Role.ADMIN)
    other = TokenFile(file.path)
    write, refused = other._write, []

    def meanwhile(kept):
        with pytest.raises(ConflictError, match="another program is changing"):
            file.revoke("mallory")
        refused.append(True)
        write(kept)

    monkeypatch.setattr(other, "_write", meanwhile)
    other.create("carol", Role.VIEWER)
    assert refused == [True]
    file.revoke("mallory")
    other.refresh()
    assert other.find(stolen) is None
    assert [token.name for token in other.tokens] == ["carol"]


def test_tokens_that_are_made_side_by_side_are_all_kept(file):
    with ThreadPoolExecutor(4) as threads:
        made = list(
            threads.map(lambda number: TokenFile(file.path).create(f"n{number}", Role.VIEWER), range(16))
        )
    file.refresh()
    assert {file.find(token).user for token in made} == {f"n{number}" for number in range(16)}


def test_a_token_stands_for_its_name_role_and_patterns(file):
    token = file.create("ann", Role.RUNNER, patterns=("job:nightly*", "bundle:etl"))
    principal = TokenFile(file.path)
    principal.refresh()
    found = principal.find(token)
    assert (found.user, found.role, found.patterns) == ("ann", Role.RUNNER, ("job:nightly*", "bundle:etl"))
    for wrong in ("", token[:-1], token + "x", token.upper(), digest_of(token), "\ud800", "x" * 10_000):
        assert file.find(wrong) is None


def test_an_expired_token_is_none(file):
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    assert file.find(file.create("ann", Role.ADMIN, expires=past)) is None
    soon = dt.datetime.now(dt.UTC) + dt.timedelta(hours=1)
    assert file.find(file.create("bob", Role.ADMIN, expires=soon)).user == "bob"


def test_two_tokens_of_a_name_may_be_live_for_rotation(file):
    first, second = file.create("ann", Role.ADMIN), file.create("ann", Role.ADMIN)
    with pytest.raises(ExistsError, match="revoke one first"):
        file.create("ann", Role.ADMIN)
    assert file.find(first)
    assert file.find(second)
    file.revoke(digest_of(first)[:8])
    assert file.find(first) is None
    assert file.find(second).user == "ann"


def test_a_revocation_by_another_process_is_noticed(file):
    token = file.create("ann", Role.ADMIN)
    principal = file.find(token)
    assert file.current(principal)
    TokenFile(file.path).revoke("ann")
    file.refresh()
    assert not file.current(principal)
    with pytest.raises(NotFoundError):
        file.revoke("ann")


def test_rights_that_were_lowered_in_the_file_end_what_was_proved_before(file):
    principal = file.find(file.create("ann", Role.ADMIN))
    document = json.loads(file.path.read_text())
    document["tokens"][0]["role"] = "viewer"
    file.path.write_text(json.dumps(document))
    file.refresh()
    assert not file.current(principal)
    assert file.current(principal.dropped(Role.VIEWER))


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}",
        "[]",
        '{"format": 2, "tokens": []}',
        '{"format": 1, "tokens": [{"name": "ss1_secret"}]}',
        "\udcff",
        "[" * 100_000,
        '{"format": 1, "tokens": [' + "9" * 5_000 + "]}",
        '{"format": 1, "tokens": ' + " " * tokens.LARGEST + "[]}",
    ],
)
def test_a_damaged_file_lets_nobody_in_and_its_content_is_not_shown(file, content):
    token = file.create("ann", Role.ADMIN)
    file.path.write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(ListenError, match="damaged") as caught:
        file.refresh()
    assert "secret" not in str(caught.value)
    assert file.find(token) is None


@pytest.mark.parametrize("name", ["", "a b", "a=b", "\n", "é", "x" * 65])
def test_names_of_tokens_can_be_shown_anywhere(file, name):
    with pytest.raises(ConflictError, match="name"):
        file.create(name, Role.VIEWER)


def test_a_name_has_64_characters_and_not_one_more(file):
    file.create("n" * 64, Role.VIEWER)
    with pytest.raises(ConflictError, match="1 to 64"):
        file.create("n" * 65, Role.VIEWER)


def test_a_token_is_live_until_the_moment_at_which_it_expires_and_not_in_it(file):
    end = dt.datetime(2030, 1, 1, tzinfo=dt.UTC)
    file.create("ann", Role.VIEWER, expires=end)
    (token,) = file.tokens
    assert [token.live(end + dt.timedelta(microseconds=late)) for late in (-1, 0, 1)] == [True, False, False]


def test_a_token_is_in_no_repr(file):
    token = file.create("ann", Role.ADMIN)
    shown = repr(file) + repr(file.tokens) + repr(file.find(token))
    assert token not in shown
    assert digest_of(token) not in shown


def test_what_the_command_line_does(tmp_path):
    path = tmp_path / "t.json"
    token = create_token(path, "ann", "runner", patterns=["job:n*"], days=2)
    (row,) = list_tokens(path)
    assert (row["name"], row["role"], row["patterns"], row["live"]) == ("ann", "runner", "job:n*", "yes")
    assert token not in str(row)
    assert revoke_token(path, "ann") == [row["id"]]
    assert list_tokens(path) == []
    with pytest.raises(ConflictError, match="viewer, runner, operator, admin"):
        create_token(path, "ann", "root")
    with pytest.raises(ConflictError, match="pattern"):
        create_token(path, "ann", "admin", patterns=["task:x"])
    with pytest.raises(ConflictError, match="expired already"):
        create_token(path, "ann", "admin", days=0)
    for days in (float("inf"), 1e9):
        with pytest.raises(ConflictError, match="no calendar"):
            create_token(path, "ann", "admin", days=days)
    with pytest.raises(ConflictError, match="expired already"):
        create_token(path, "ann", "admin", days=float("nan"))


@pytest.mark.parametrize("content", [b"", b"\n", "é".encode(), b"\xff", b"ss1_a\nss1_b", b"x" * 5_000])
def test_a_file_without_a_token_is_refused_in_words(tmp_path, content):
    (tmp_path / "t").write_bytes(content)
    with pytest.raises(ConflictError, match="holds no token"):
        find_token(tmp_path / "t")
    (tmp_path / "t").write_bytes(b" ss1_a \n")
    assert find_token(tmp_path / "t") == "ss1_a"


@pytest.mark.parametrize(
    ("before", "after"),
    [(["job:*"], ["job:n*"]), ([], ["job:*"]), (["job:a", "job:b"], ["job:a"])],
    ids=["narrower", "bounded", "fewer"],
)
def test_patterns_that_were_narrowed_in_the_file_end_what_was_proved_before(file, before, after):
    token = file.create("ann", Role.RUNNER, patterns=tuple(before))
    principal = file.find(token)
    document = json.loads(file.path.read_text())
    document["tokens"][0]["patterns"] = after
    file.path.write_text(json.dumps(document))
    file.refresh()
    assert not file.current(principal)
    assert file.current(file.find(token))


def test_another_file_of_the_same_size_and_times_in_its_place_is_noticed(file, tmp_path, monkeypatch):
    """A clock of the file system may go on in steps of milliseconds, in which much can be done."""
    real = os.fstat

    def coarse(descriptor):
        status = real(descriptor)
        names = ("st_mode", "st_uid", "st_size", "st_ino", "st_dev")
        return SimpleNamespace(
            st_mtime_ns=1, st_ctime_ns=1, **{name: getattr(status, name) for name in names}
        )

    token = file.create("ann", Role.ADMIN)
    other = tmp_path / "other.json"
    other.write_text(file.path.read_text().replace("ann", "bob"))
    other.chmod(0o600)
    monkeypatch.setattr(os, "fstat", coarse)
    file.refresh()
    assert file.find(token).user == "ann"
    other.replace(file.path)
    file.refresh()
    assert file.find(token).user == "bob"


def test_expired_tokens_do_not_count_against_a_rotation(file):
    past = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=1)
    for _ in range(3):
        file.create("ann", Role.ADMIN, expires=past)
    live = file.create("ann", Role.ADMIN)
    assert file.find(live)
    assert file.find(file.create("ann", Role.ADMIN))
    with pytest.raises(ExistsError, match="2 tokens of 'ann' are live"):
        file.create("ann", Role.ADMIN)


def test_a_file_of_another_user_is_refused_and_one_of_roots_is_not(file, monkeypatch):
    token = file.create("ann", Role.ADMIN)
    owner = file.path.stat().st_uid
    monkeypatch.setattr(os, "geteuid", lambda: owner + 1)
    os.utime(file.path, ns=(1, 1))
    if owner == 0:
        file.refresh()
        assert file.find(token)
    else:
        with pytest.raises(ListenError, match=f"belongs to user {owner}, not to this one"):
            file.refresh()
        assert file.find(token) is None
    if os.getuid() == 0:  # only root may give a file away
        monkeypatch.undo()
        os.chown(file.path, 12345, -1)
        with pytest.raises(ListenError, match="belongs to user 12345, not to this one"):
            file.refresh()
        assert file.find(token) is None


def test_who_has_no_token_file_yet_is_told_how_to_make_it(tmp_path):
    with pytest.raises(ListenError, match=r"token create NAME --role admin --tokens .*/none\.json"):
        TokenFile(tmp_path / "none.json").refresh()
