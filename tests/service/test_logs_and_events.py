"""Logs of running and ended replicas, and events, for whoever may see them."""

import asyncio
import threading

import pytest

from prsmd.core.memory_budget import Holding, MemoryBudget, MemoryLimits
from prsmd.domain.errors import (
    DeploymentNotFoundError,
    EngineError,
    EngineUnreachableError,
    NotFoundError,
    PermissionDeniedError,
    ResourceUnavailableError,
)
from prsmd.domain.replica import ReplicaState
from prsmd.service.logs import MOST_CHARACTERS, LogRequest
from tests.engine.harness import Life, World, caller

ALL = LogRequest()


async def test_lines_of_running_and_ended_replicas_are_put_together_in_time(
    life: Life, world: World
) -> None:
    deployment = await life.deploy()
    await life.settle()
    [first] = await life.active()
    world.engine.write_log(first.id, "from the first")
    world.engine.crash(first.id)
    await life.settle()
    world.ahead += 10
    await life.settle()
    [second] = await life.active()
    world.engine.write_log(second.id, "from the second")

    lines = await life.services.logs.read(caller("operator"), deployment, ALL, list)

    assert [(one.replica_id, one.line.text) for one in lines] == [
        (first.id, "from the first"),
        (second.id, "from the second"),
    ]


async def test_a_replica_that_ends_while_its_log_is_asked_for_does_not_fail_the_request(
    life: Life, world: World
) -> None:
    deployment = await life.deploy(min_replicas=2)
    await life.settle()
    gone, left = await life.active()
    world.engine.write_log(left.id, "still here")
    world.engine.lose(gone.id)

    lines = await life.services.logs.read(caller(), deployment, ALL, list)

    assert [one.line.text for one in lines] == ["still here"]


async def test_an_engine_that_does_not_answer_is_said_not_hidden(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    world.engine.become_unreachable()
    with pytest.raises(EngineUnreachableError):
        await life.services.logs.read(caller(), deployment, ALL, list)


async def test_a_log_that_the_engine_cannot_give_is_said_not_taken_for_its_end(
    life: Life, world: World
) -> None:
    """Some logging drivers keep nothing that could be read."""
    deployment = await life.deploy()
    await life.settle()
    world.engine.refuse_logs("configured logging driver does not support reading")

    with pytest.raises(EngineError, match="does not support reading"):
        await life.services.logs.read(caller(), deployment, ALL, list)
    with pytest.raises(EngineError, match="does not support reading"):
        async for _ in life.services.logs.follow(caller(), deployment, ALL):
            pass


async def test_a_container_that_went_ends_its_followed_log(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.lose(replica.id)

    assert [line async for line in life.services.logs.follow(caller(), deployment, ALL)] == []


@pytest.mark.parametrize(("tail", "shown"), [(0, []), (1, ["c"]), (2, ["b", "c"])])
async def test_the_last_lines_of_one_replica(
    life: Life, world: World, tail: int, shown: list[str]
) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    for text in ("a", "b", "c"):
        world.engine.write_log(replica.id, text)

    request = LogRequest(replica_id=replica.id, tail=tail)
    lines = await life.services.logs.read(caller(), deployment, request, list)

    assert [one.line.text for one in lines] == shown


async def test_an_unknown_replica_is_refused_with_those_known(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    with pytest.raises(NotFoundError, match=f"known are {replica.id}"):
        await life.services.logs.read(caller(), deployment, LogRequest(replica_id="nobody"), list)


def budget(total: int) -> Holding:
    limits = MemoryLimits(total=total, per_organization=total, per_principal=total)
    return MemoryBudget(limits).holding("somebody", "default")


async def test_however_much_containers_wrote_the_answer_is_bounded_to_the_newest(
    life: Life, world: World
) -> None:
    deployment = await life.deploy(min_replicas=2)
    await life.settle()
    line = "x" * (MOST_CHARACTERS // 8)
    for number in range(9):
        for replica in await life.active():
            world.engine.write_log(replica.id, f"{number}{line}")
    holding = budget(64 * MOST_CHARACTERS)

    request = LogRequest(tail=10_000, holding=holding)
    lines = await life.services.logs.read(caller(), deployment, request, list)

    assert sum(len(one.line.text) for one in lines) <= MOST_CHARACTERS
    assert len(lines) == 7
    assert lines[-1].line.text[0] == "8"
    assert holding.size >= 2 * MOST_CHARACTERS


@pytest.mark.parametrize("followed", [False, True], ids=["read", "followed"])
async def test_logs_are_not_read_where_no_memory_may_be_had(
    life: Life, world: World, *, followed: bool
) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.write_log(replica.id, "a")
    request = LogRequest(holding=budget(200 * 1024))

    logs = life.services.logs
    taken = (
        anext(logs.follow(caller(), deployment, request))
        if followed
        else logs.read(caller(), deployment, request, list)
    )
    with pytest.raises(ResourceUnavailableError, match="No memory can be had"):
        await taken
    assert world.engine.calls.count("logs") == 0


async def test_following_ends_with_the_container(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    [replica] = await life.active()
    world.engine.write_log(replica.id, "before")

    async def collect() -> list[str]:
        followed = life.services.logs.follow(caller(), deployment, ALL)
        return [one.line.text async for one in followed]

    following = asyncio.create_task(collect(), name="follower")
    await life.until(lambda: _followed(world))
    world.engine.write_log(replica.id, "after")
    world.engine.crash(replica.id)

    assert await following == ["before", "after"]
    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("logs:")]


async def test_a_follower_that_leaves_leaves_no_reader_behind(life: Life, world: World) -> None:
    deployment = await life.deploy(min_replicas=2)
    await life.settle()
    for replica in await life.active():
        world.engine.write_log(replica.id, "line")
    followed = life.services.logs.follow(caller(), deployment, ALL)
    await anext(followed)
    await followed.aclose()

    assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("logs:")]


async def test_who_may_not_read_logs_is_denied_and_strangers_find_nothing(life: Life) -> None:
    deployment = await life.deploy()
    with pytest.raises(PermissionDeniedError):
        await life.services.logs.read(caller("viewer"), deployment, ALL, list)
    with pytest.raises(DeploymentNotFoundError):
        await life.services.logs.read(caller("owner", "rival"), deployment, ALL, list)
    with pytest.raises(DeploymentNotFoundError):
        await life.services.events.latest(caller("owner", "rival"), deployment, 10)


async def test_the_latest_events_come_oldest_first(life: Life) -> None:
    deployment = await life.deploy()
    await life.settle()
    latest = await life.services.events.latest(caller("viewer"), "legal", 2)

    assert [event.reason for event in latest] == ["Started", "Ready"]
    assert latest[0].deployment_id == deployment


async def test_following_events_ends_when_the_model_is_gone(life: Life) -> None:
    deployment = await life.deploy()

    async def collect() -> list[str]:
        return [one.reason async for one in life.services.events.follow(caller(), deployment, 0)]

    following = asyncio.create_task(collect(), name="follower")
    await life.settle()
    await life.delete()
    await life.settle()

    assert "DeleteRequested" in await following
    assert await life.replicas(ReplicaState.RUNNING) == []


async def _followed(world: World) -> bool:
    return "logs" in world.engine.calls and bool(world.engine._hints)


async def test_of_one_callers_reads_one_is_carried_out_at_a_time(life: Life, world: World) -> None:
    deployment = await life.deploy()
    await life.settle()
    begun: list[int] = []
    go_on = threading.Event()

    def render(number: int) -> int:
        begun.append(number)
        assert go_on.wait(30)
        return number

    logs = life.services.logs
    reads = [
        asyncio.create_task(
            logs.read(caller(), deployment, ALL, lambda _, number=number: render(number))
        )
        for number in range(3)
    ]
    while not begun:  # noqa: ASYNC110 - another thread begins it
        await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    [first] = begun
    waiting = [number for number in range(3) if number != first]
    reads[first].cancel()  # its thread goes on, and so nobody else begins
    reads[waiting[0]].cancel()
    for _ in range(100):
        await asyncio.sleep(0)
    assert begun == [first]
    go_on.set()

    assert await reads[waiting[1]] == waiting[1]
    assert begun == [first, waiting[1]]
    ended = await asyncio.gather(*reads, return_exceptions=True)
    assert [isinstance(each, asyncio.CancelledError) for each in ended].count(True) == 2
