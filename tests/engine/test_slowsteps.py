"""One named task to a replica; failures in a row make the next one wait longer."""

import asyncio

import pytest

from prsmd.domain.errors import EngineError
from prsmd.engine.slowsteps import SlowSteps
from tests.gateway.backends import until


class Steps:
    """Slow steps and how often one has told of its end."""

    def __init__(self, retry_seconds: float = 0.0) -> None:
        self.ends = 0
        self.slow = SlowSteps(self._note, retry_seconds)

    def _note(self) -> None:
        self.ends += 1

    async def done(self) -> None:
        await until(lambda: not self.slow.working())


async def nothing() -> None:
    return


async def fails() -> None:
    raise EngineError("the engine says no")


async def defect() -> None:
    raise RuntimeError("a defect")


async def never() -> None:
    await asyncio.get_running_loop().create_future()


async def test_a_step_is_working_until_it_ends_and_tells_so() -> None:
    steps, gate = Steps(), asyncio.Event()

    async def waits() -> None:
        await gate.wait()

    steps.slow.begin("launch", "r1", waits)
    assert steps.slow.working() == {"r1"}
    assert "launch:r1" in {task.get_name() for task in asyncio.all_tasks()}
    gate.set()
    await steps.done()

    assert steps.ends == 1


async def test_a_second_step_on_the_same_replica_is_not_begun() -> None:
    steps, begun = Steps(), []

    async def notes() -> None:
        begun.append(1)

    steps.slow.begin("launch", "r1", never)
    steps.slow.begin("stop", "r1", notes)
    steps.slow.begin("stop", "r2", notes)
    await until(lambda: begun == [1])

    assert "r1" in steps.slow.working()
    await steps.slow.close()


@pytest.mark.parametrize("broken", [fails, defect])
async def test_a_failure_is_remembered_until_a_step_succeeds(broken) -> None:
    steps = Steps()
    steps.slow.begin("stop", "r1", broken)
    await steps.done()
    assert steps.slow.has_failed("r1")

    steps.slow.begin("stop", "r1", nothing)
    await steps.done()

    assert not steps.slow.has_failed("r1")


async def test_a_failed_step_stays_working_for_a_pause_that_doubles_up_to_a_bound(
    caplog: pytest.LogCaptureFixture,
) -> None:
    steps = Steps(retry_seconds=3600.0)
    steps.slow.begin("stop", "r1", fails)
    await until(lambda: "stop:r1 not done" in caplog.text)

    assert steps.slow.working() == {"r1"}
    assert "again in 10 s: the engine says no" in caplog.text
    await steps.slow.cancel("r1")
    short = Steps(retry_seconds=0.0001)
    for _ in range(3):
        short.slow.begin("stop", "r2", fails)
        await short.done()
    pauses = [record.message.split(" s:")[0].split()[-1] for record in caplog.records]
    assert pauses == ["10", "0.0001", "0.0002", "0.0004"]


async def test_cancelling_waits_for_the_end_and_forgives() -> None:
    steps, ended = Steps(retry_seconds=3600.0), []

    async def cleans_up() -> None:
        try:
            await never()
        finally:
            await asyncio.sleep(0)
            ended.append(1)

    steps.slow.begin("launch", "r1", cleans_up)
    await asyncio.sleep(0)
    await steps.slow.cancel("r1")

    assert ended == [1]
    assert steps.slow.working() == frozenset()
    steps.slow.begin("stop", "r2", fails)
    await until(lambda: steps.slow.has_failed("r2"))
    await steps.slow.cancel("r2")
    assert not steps.slow.has_failed("r2")
    await steps.slow.cancel("unknown")


async def test_who_is_cancelled_while_cancelling_a_step_is_cancelled() -> None:
    steps, gate = Steps(), asyncio.Event()

    async def ends_late() -> None:
        try:
            await never()
        except asyncio.CancelledError:
            await gate.wait()
            raise

    steps.slow.begin("launch", "r1", ends_late)
    await asyncio.sleep(0)
    canceller = asyncio.create_task(steps.slow.cancel("r1"))
    await asyncio.sleep(0)
    canceller.cancel()
    await asyncio.wait([canceller])

    assert canceller.cancelled(), "the loop that applies a plan must end at shutdown"
    gate.set()
    await steps.slow.close()


async def test_closing_ends_all_steps() -> None:
    steps = Steps()
    for number in range(5):
        steps.slow.begin("launch", f"r{number}", never)
    await steps.slow.close()

    assert steps.slow.working() == frozenset()
