"""Fair shares: who has the most gives up the oldest of his largest group, whatever is added and taken out before."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scattersphere import JobDefinition, RunnableTask, Server
from scattersphere._shares import FairShares

MOVES = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.integers(0, 3)), max_size=60)


@given(MOVES)
def test_the_owner_with_the_most_and_the_oldest_key_of_his_largest_group_are_known_after_any_moves(
    moves,
) -> None:
    shares, model, number = FairShares[int](), {}, 0
    for owner, group, taken in moves:
        keys = model.setdefault(owner, {}).setdefault(group, [])
        if taken == 0 and keys:
            key = keys.pop(len(keys) // 2)
            shares.remove(owner, group, key)
        else:
            number += 1
            keys.append(number)
            shares.add(owner, group, number)
        if any(keys for groups in model.values() for keys in groups.values()):
            whose, found, key = shares.largest()
            sizes = {each: sum(map(len, groups.values())) for each, groups in model.items()}
            assert sizes[whose] == max(sizes.values())
            assert len(model[whose][found]) == max(map(len, model[whose].values()))
            assert key == model[whose][found][0]


@given(MOVES)
def test_to_replace_takes_the_oldest_of_one_that_has_the_most_with_the_new_key(moves) -> None:
    shares, model = FairShares[int](), {}
    for number, (owner, group, more) in enumerate(moves):
        model.setdefault((owner, group), []).append(number)
        if more == 1 or number == 0:
            shares.add(owner, group, number)
            continue
        key = shares.replace(owner, group, number)
        sizes: dict[str, int] = {}
        for (whose, _), keys in model.items():
            sizes[whose] = sizes.get(whose, 0) + len(keys)
        (taken,) = [place for place, keys in model.items() if key in keys]
        assert sizes[taken[0]] == max(sizes.values())
        assert len(model[taken]) == max(len(keys) for place, keys in model.items() if place[0] == taken[0])
        assert key == model[taken].pop(0)
        whose, found, oldest = shares.largest()
        assert model[whose, found][0] == oldest


class Say(RunnableTask):
    async def run(self, context):
        return 1


def _job(name):
    return JobDefinition.build(name).task("a", "Say").done()


class Parent(RunnableTask):
    job: str

    async def run(self, context):
        return (await context.start(self.job)).id


@pytest.mark.anyio
async def test_a_user_with_many_jobs_takes_neither_the_history_nor_the_log_lines_of_another() -> None:
    """Shares were by job alone: whoever could define jobs, or run tasks, had as many shares as he had names."""
    async with Server(history=(10, 3600)) as server:
        server._history_log._keep = 20
        server.register_tasks("app", [Say])
        names = [f"job{number}" for number in range(60)]
        for name in [*names, "his"]:
            job = server.define(_job(name))
            assert job.name == name
        his = await server.run("his", user="bob")
        hosts = await server.run("his")
        for name in names:
            await server.run(name, user="eve")
        kept = {run.id: run.user for run in server.runs.values()}
        assert kept[his.id] == "bob"
        assert kept[hosts.id] == ""
        assert sorted(kept.values()) == ["", "bob"] + ["eve"] * 8
        lines = [line.run for line in server.logs()]
        assert lines.count(his.id) == lines.count(hosts.id) == 2
        again = await server.rerun(his.id, from_failed=False, user="ann")
        assert (await again).user == "ann"


@pytest.mark.anyio
async def test_a_child_run_is_of_who_asked_for_its_parent() -> None:
    async with Server() as server:
        server.register_tasks("app", [Say, Parent])
        server.define(_job("inner"))
        run = await server.run_task("Parent", {"job": "inner"}, user="eve")
        child = server.runs[run.result]
        assert (await child).user == "eve"


@pytest.mark.anyio
async def test_the_same_key_of_another_user_is_another_key() -> None:
    async with Server() as server:
        server.register_tasks("app", [Say])
        server.define(_job("inner"))
        ann = await server.start("inner", key="k", user="ann")
        bob = await server.start("inner", key="k", user="bob")
        assert ann.id != bob.id
        assert (await server.start("inner", key="k", user="ann")).id == ann.id
