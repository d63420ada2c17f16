"""An unforeseen error in a background loop costs it a turn; in any other loop, the daemon."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from typing import Any

import pytest

from prsmd import daemon as program
from prsmd.engine.background_loop import restarted
from prsmd.settings import Settings

NEEDED = {"reconciler", "loop-lag", "prober", "lessor"}


class Failing:
    """Stands for any part of the appliance: whatever of it is awaited fails."""

    def __getattr__(self, name: str) -> "Failing":
        return Failing()

    def __call__(self, *_: object) -> Coroutine[Any, Any, None]:
        return self._fail()

    def wake(self) -> None:
        """Return as the reconciler's does."""

    async def events(self) -> AsyncIterator[None]:
        yield None
        raise AssertionError("nobody foresaw this")

    async def _fail(self) -> None:
        raise AssertionError("nobody foresaw this")


async def test_only_loops_that_are_needed_end_by_an_unforeseen_error() -> None:
    appliance: Any = Failing()
    loops = program._loops(appliance, Settings())
    tasks = {name: asyncio.create_task(work, name=name) for name, work in loops}
    for _ in range(20):
        await asyncio.sleep(0)
    ended = {name for name, task in tasks.items() if task.done()}
    for task in tasks.values():
        task.cancel()
    await asyncio.gather(*tasks.values(), return_exceptions=True)
    assert ended == NEEDED
    assert {"notary", "retention", "flusher", "usage", "state-watch", "janitor"} <= set(tasks)


async def test_a_background_loop_goes_on_and_each_kind_of_error_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    turns, enough = 0, asyncio.Event()

    async def run() -> None:
        nonlocal turns
        turns += 1
        if turns > 6:
            enough.set()
            await asyncio.Event().wait()
        if turns % 2:
            raise ValueError(f"turn {turns}")
        raise OSError(f"turn {turns}")

    task = asyncio.create_task(restarted("some-loop", run, pause_seconds=0.0), name="background")
    await enough.wait()
    assert caplog.text.count("the loop some-loop failed unexpectedly") == 2
    assert caplog.text.count("Traceback") == 2
    assert ("turn 1" in caplog.text, "turn 3" in caplog.text) == (True, False)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
