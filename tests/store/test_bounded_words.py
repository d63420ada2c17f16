"""What containers, the engine and registries say is stored within bounds, whoever stores it."""

import dataclasses

import aiosqlite
import pytest
from pydantic import TypeAdapter

from prsmd.domain.replica import ExitCause, ExitKind, ReplicaState
from prsmd.domain.rollout import Rollout
from prsmd.domain.truncation import MOST_MESSAGE_BYTES, MOST_TAIL_BYTES
from prsmd.store import events, replicas, rollouts
from prsmd.store.migrate import known_migrations, migrate
from prsmd.store.rows import change, many
from tests.store.store_samples import EVENT, REPLICA, ROLLOUT, one_deployment, two_revisions

LONG = "no \ud800 😀 " * 10_000
TAIL = ("x" * 16_384,) * 20
CAUSE = ExitCause(kind=ExitKind.LAUNCH_FAILED, message=LONG, log_tail=TAIL)
FAILED = dataclasses.replace(REPLICA, state=ReplicaState.FAILED, finished_at=200.0, exit=CAUSE)
BAD = dataclasses.replace(ROLLOUT, trouble=LONG, outcome=LONG, evidence=TAIL)


def cut(text):
    return text.endswith("…") and len(text.encode()) <= MOST_MESSAGE_BYTES


def cut_tail(lines):
    return lines[-1].endswith("x…") and len("".join(lines).encode()) <= MOST_TAIL_BYTES


async def test_a_replica_s_cause_and_last_lines_are_bounded():
    async with one_deployment() as tx:
        await replicas.add(tx, REPLICA)
        await replicas.save(tx, FAILED)
        [stored] = await replicas.list_current(tx)
    assert cut(stored.exit.message)
    assert cut_tail(stored.exit.log_tail)


async def test_a_rollout_s_words_and_evidence_are_bounded():
    async with two_revisions() as tx:
        await rollouts.add(tx, ROLLOUT)
        assert await rollouts.replace(tx, ROLLOUT, BAD)
        stored = await rollouts.latest(tx, "deploy_1")
        assert await rollouts.replace(tx, stored, dataclasses.replace(stored, paused=True))
    assert cut(stored.trouble)
    assert cut(stored.outcome)
    assert cut_tail(stored.evidence)


async def test_an_event_s_message_is_bounded():
    async with one_deployment() as tx:
        appended = await events.append(tx, dataclasses.replace(EVENT, message=LONG))
        assert await events.list_for(tx, "deploy_1") == [appended]
    assert cut(appended.message)


@pytest.fixture
async def former():
    """A state whose last release stored everything whole."""
    async with aiosqlite.connect(":memory:", isolation_level=None) as tx:
        tx.row_factory = aiosqlite.Row
        await migrate(tx, [step for step in known_migrations() if step.version < 17])
        await tx.execute_fetchall("PRAGMA foreign_keys = OFF")
        await replicas.add(tx, FAILED)
        await rollouts.add(tx, BAD)
        await events.append(tx, EVENT)
        text = LONG.replace("\ud800", "")
        cause = dataclasses.replace(CAUSE, message=text)
        value = dataclasses.replace(BAD, trouble=text, outcome=text)
        for column, of, kind in (("exit", cause, ExitCause), ("value", value, Rollout)):
            table = "replicas" if column == "exit" else "rollouts"
            whole = TypeAdapter(kind).dump_json(of).decode()
            await change(tx, f"UPDATE {table} SET {column} = ?", (whole,))
        await change(tx, "UPDATE events SET message = ?", (text,))
        yield tx


async def test_what_an_older_release_stored_whole_is_bounded_by_the_update(former):
    await migrate(former, known_migrations())

    [replica] = await replicas.list_current(former)
    rollout = await rollouts.latest(former, "deploy_1")
    [event] = await events.list_for(former, "deploy_1")
    assert cut(replica.exit.message)
    assert cut_tail(replica.exit.log_tail)
    assert cut(rollout.trouble)
    assert cut_tail(rollout.evidence)
    assert event.message.endswith("…")
    assert len(event.message) == MOST_MESSAGE_BYTES
    [[longest]] = await many(former, "SELECT max(length(exit)) FROM replicas", ())
    assert longest <= 2 * (MOST_MESSAGE_BYTES + MOST_TAIL_BYTES)
