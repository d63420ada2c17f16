"""What hundreds of callers follow or wait for costs the store what one of them would."""

import asyncio
import contextlib
from typing import Any

import pytest

from prsmd.core.fair_queue import Asker
from prsmd.domain.events import AuditFilter, AuditRecord, Event
from prsmd.store import audit, events
from prsmd.store.asking import asker, asking_for
from tests.engine.harness import Life, World, caller, finished
from tests.gateway.backends import until

MANY = 200


class Reads:
    """For whom the store was read since the last `clear`."""

    def __init__(self, life: Life) -> None:
        self.of: list[Asker | None] = []
        self._read = life.database.read
        life.database.read = self._counted  # type: ignore[method-assign]

    def _counted(self) -> Any:
        self.of.append(asker())
        return self._read()

    def clear(self) -> None:
        self.of.clear()


async def record(life: Life, deployment: str, message: str) -> None:
    event = Event(
        deployment_id=deployment, organization="default", reason="Told", message=message, at=1.0
    )
    await life.appliance.parts.recorder.record(event)


async def test_what_happens_is_read_once_for_all_who_follow_it(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()
    other = await life.deploy("other")
    got: list[int] = [0] * MANY

    async def follow(number: int) -> None:
        stream = life.services.events.follow(caller(), deployment, 0)
        async with contextlib.aclosing(stream) as followed:
            async for event in followed:
                got[number] += event.reason == "Told"

    with asking_for(Asker("default", "key")):
        tasks = [asyncio.create_task(follow(n), name=f"follow-{n}") for n in range(MANY)]
    reads = Reads(life)
    await record(life, deployment, "once")
    await until(lambda: got == [1] * MANY)
    reads.clear()
    for number in range(3):
        await record(life, deployment, "again")
        await until(lambda number=number: got == [2 + number] * MANY)
    await record(life, other, "what nobody follows")

    assert len(reads.of) <= 6
    assert set(reads.of) == {None}
    async with life.database.read() as tx:
        told = [e for e in await events.latest(tx, deployment) if e.reason == "Told"]
    assert len(told) == 4
    await finished(*tasks)


async def test_a_deployment_that_is_waited_for_is_looked_at_once_for_all(
    life: Life, world: World
) -> None:
    world.server.health = 503
    deployment = await life.deploy()
    reads = Reads(life)
    with asking_for(Asker("default", "key")):
        waits = [
            asyncio.create_task(life.services.status.get(caller(), deployment, 60.0), name=f"w{n}")
            for n in range(MANY)
        ]
    await until(lambda: len(reads.of) >= MANY)
    await until(lambda: f"settle:{deployment}" in {t.get_name() for t in asyncio.all_tasks()})
    reads.clear()
    for _ in range(5):
        await record(life, deployment, "not settled yet")
        await until(lambda: bool(reads.of))
    looked = [who for who in reads.of if who is not None]
    assert looked == [], "nobody looks for itself before there is something to see"
    world.server.health = 200
    await life.settle()
    reports = await asyncio.gather(*waits)
    assert {report.view.status.value for report in reports} == {"running"}
    assert not any(t.get_name() == f"settle:{deployment}" for t in asyncio.all_tasks())


async def test_a_wait_ends_when_its_time_is_over_or_its_caller_goes(
    life: Life, world: World
) -> None:
    world.server.health = 503
    deployment = await life.deploy()
    report = await life.services.status.get(caller(), deployment, 0.01)
    assert report.view.status.value == "deploying"
    gone = asyncio.create_task(life.services.status.get(caller(), deployment, 60.0), name="gone")
    await until(lambda: f"settle:{deployment}" in {t.get_name() for t in asyncio.all_tasks()})
    await finished(gone)
    await until(lambda: f"settle:{deployment}" not in {t.get_name() for t in asyncio.all_tasks()})


@pytest.mark.parametrize("filtered", [False, True])
async def test_the_audit_is_read_once_for_all_who_follow_it(
    life: Life, monkeypatch: pytest.MonkeyPatch, *, filtered: bool
) -> None:
    monkeypatch.setattr("prsmd.service.audit._FOLLOW_SECONDS", 0.01)
    wanted = AuditFilter(action="told.*" if filtered else None)
    got: list[list[str]] = [[] for _ in range(MANY)]

    async def follow(number: int) -> None:
        stream = life.services.audit.follow(caller(), "changes", wanted, None)
        async with contextlib.aclosing(stream) as followed:
            async for found in followed:
                got[number].append(found.action)

    reads = Reads(life)
    with asking_for(Asker("default", "key")):
        tasks = [asyncio.create_task(follow(n), name=f"follow-{n}") for n in range(MANY)]
    await until(lambda: bool(reads.of))
    await asyncio.sleep(0)
    for action in ("told.one", "other", "told.two"):
        await life.database.write(lambda tx, a=action: audit.append(tx, _record(a)))
    right = ["told.one", "told.two"] if filtered else ["told.one", "other", "told.two"]
    await until(lambda: all(each == right for each in got))
    assert set(reads.of) == {None}
    await finished(*tasks)


def _record(action: str) -> AuditRecord:
    return AuditRecord(
        at=1.0,
        principal="key",
        organization="default",
        action=action,
        subject="s",
        outcome="allowed",
        request_id="r",
    )
