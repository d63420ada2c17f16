"""Each way in which the fake engine fails, since other suites rely on it."""

import asyncio
import contextlib

import pytest

from prsmd.domain.errors import EngineError, EngineUnreachableError, ImageUnavailableError
from prsmd.runtime.base import ContainerState
from prsmd.runtime.fake import FakeEngine, FakeRuntime
from tests.runtime.harness import launch_of


@pytest.fixture
def engine():
    return FakeEngine(images=("here:1",), pullable=("there:1",))


@pytest.fixture
def runtime(engine):
    return FakeRuntime(engine, "ours")


@pytest.fixture
def launch(engine):
    return launch_of(engine.images["here:1"].digest)


async def test_crash_shows_how_it_ended(engine, runtime, launch):
    await runtime.launch(launch)
    engine.crash("replica-1", 137, out_of_memory=True)
    (ended,) = await runtime.list()
    assert ended.state is ContainerState.EXITED
    assert (ended.exit_code, ended.out_of_memory) == (137, True)


async def test_lose_leaves_nothing(engine, runtime, launch):
    await runtime.launch(launch)
    engine.lose("replica-1")
    assert await runtime.list() == []


async def test_hang_lasts_until_recover(engine, runtime):
    engine.hang()
    looking = asyncio.create_task(runtime.list(), name="looking")
    await asyncio.sleep(0)
    assert not looking.done()
    engine.recover()
    assert await looking == []


async def test_unreachable_refuses_every_verb_and_ends_events(engine, runtime):
    async with contextlib.aclosing(runtime.events()) as events:
        await anext(events)
        engine.become_unreachable("socket is gone")
        with pytest.raises(StopAsyncIteration):
            await anext(events)
    with pytest.raises(EngineUnreachableError, match="socket is gone"):
        await runtime.list()
    engine.recover()
    assert await runtime.list() == []


async def test_refusals_carry_their_words_until_recover(engine, runtime, launch):
    engine.refuse_pulls("quota of the registry")
    engine.refuse_launches("no space left")
    with pytest.raises(ImageUnavailableError, match="quota of the registry"):
        await runtime.images.pull("there:1", lambda _: None)
    with pytest.raises(EngineError, match="no space left"):
        await runtime.launch(launch)
    engine.recover()
    assert (await runtime.images.pull("there:1", lambda _: None)).reference == "there:1"
    container = await runtime.launch(launch)
    engine.refuse_stops("device busy")
    with pytest.raises(EngineError, match="device busy"):
        await runtime.stop(container.id, 0)


async def test_a_half_made_container_is_started_by_the_next_launch(engine, runtime, launch):
    engine.leave_half_made()
    with pytest.raises(EngineError, match="cannot be started"):
        await runtime.launch(launch)
    (half_made,) = await runtime.list()
    assert half_made.state is ContainerState.CREATED
    engine.recover()
    assert (await runtime.launch(launch)).state is ContainerState.RUNNING


async def test_a_pull_reports_its_progress(runtime):
    steps = []
    image = await runtime.images.pull("there:1", steps.append)
    assert [step.done_bytes for step in steps] == [image.size_bytes // 2, image.size_bytes]
