"""However many follow a stream, what is new is read once; nobody misses or sees anything twice."""

import asyncio
import contextlib
import dataclasses

import pytest

from prsmd.core.fair_queue import Asker
from prsmd.engine import fan_out
from prsmd.engine.fan_out import FanOut, FanOuts
from prsmd.store.asking import asker, asking_for
from tests.gateway.backends import until


@dataclasses.dataclass(frozen=True)
class Item:
    sequence: int


class Stream:
    """Numbered items, and how often they were read for whom."""

    def __init__(self, count: int = 0) -> None:
        self.items = [Item(number) for number in range(1, count + 1)]
        self.ended = False
        self.reads: list[tuple[int, Asker | None]] = []

    def add(self, count: int = 1) -> None:
        last = self.items[-1].sequence if self.items else 0
        self.items += [Item(last + number) for number in range(1, count + 1)]

    async def read(self, after: int, limit: int) -> list[Item] | None:
        self.reads.append((after, asker()))
        found = [item for item in self.items if item.sequence > after][:limit]
        return None if self.ended and not found else found

    async def start(self, limit: int) -> tuple[int, list[Item]]:
        found = self.items[-limit:]
        return (found[0].sequence - 1 if len(found) == limit else 0), found


class Follower:
    """Follows until it is left, and keeps what it got."""

    def __init__(self, streams: FanOuts[Item], after: int | None = 0) -> None:
        self.got: list[int] = []
        self.held = asyncio.Event()
        self.held.set()
        self.task = asyncio.create_task(self._follow(streams, after), name="follower")

    async def _follow(self, streams: FanOuts[Item], after: int | None) -> None:
        async with contextlib.aclosing(streams.follow("s", after)) as followed:
            async for items in followed:
                self.got += [item.sequence for item in items]
                await self.held.wait()

    async def leave(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task])


@pytest.fixture
def stream() -> Stream:
    return Stream(5)


@pytest.fixture
def streams(stream: Stream) -> FanOuts[Item]:
    return FanOuts(lambda name: FanOut(name, stream.read, stream.start))


async def test_a_thousand_followers_cost_the_readings_of_one(stream, streams) -> None:
    with asking_for(Asker("acme", "key")):
        followers = [Follower(streams) for _ in range(1000)]
    await until(lambda: all(each.got == [1, 2, 3, 4, 5] for each in followers))
    for number in range(3):
        stream.add()
        streams.look("s")
        await until(lambda number=number: all(len(each.got) == 6 + number for each in followers))

    assert all(each.got == list(range(1, 9)) for each in followers)
    assert len(stream.reads) == 4, "one at the start, and one for each that was new"
    assert {who for _, who in stream.reads} == {None}, "nobody's turn is taken for it"
    for follower in followers:
        await follower.leave()


async def test_followers_are_woken_a_few_at_a_time(stream, streams) -> None:
    followers = [Follower(streams) for _ in range(100)]
    await until(lambda: all(len(each.got) == 5 for each in followers))
    stream.add()
    streams.look("s")
    reached = []
    while not all(len(each.got) == 6 for each in followers):
        await asyncio.sleep(0)
        reached.append(sum(len(each.got) == 6 for each in followers))
    steps = [b - a for a, b in zip([0, *reached], reached, strict=False)]
    assert max(steps) <= fan_out._WOKEN_AT_ONCE
    for follower in followers:
        await follower.leave()


async def test_who_is_slow_reads_for_itself_and_misses_nothing(
    stream, streams, monkeypatch
) -> None:
    monkeypatch.setattr(fan_out, "_KEPT", 10)
    me = Asker("acme", "slow")
    quick = Follower(streams)
    with asking_for(me):
        slow = Follower(streams)
    slow.held.clear()
    await until(lambda: len(quick.got) == len(slow.got) == 5)
    stream.add(500)
    streams.look("s")
    await until(lambda: len(quick.got) == 505)
    slow.held.set()
    await until(lambda: len(slow.got) == 505)

    assert slow.got == quick.got == list(range(1, 506))
    assert me in {who for _, who in stream.reads}
    stream.add()
    streams.look()
    await until(lambda: slow.got[-1] == quick.got[-1] == 506)
    await quick.leave()
    await slow.leave()


async def test_from_now_on_leaves_out_what_was(stream, streams) -> None:
    late = Follower(streams, after=None)
    await until(lambda: bool(stream.reads))
    stream.add()
    streams.look("s")
    await until(lambda: late.got == [6])
    await late.leave()


async def test_a_stream_that_ends_ends_its_followers(stream, streams) -> None:
    followers = [Follower(streams) for _ in range(3)]
    await until(lambda: all(len(each.got) == 5 for each in followers))
    stream.ended = True
    streams.look("s")
    await asyncio.wait([each.task for each in followers])
    assert all(each.task.exception() is None for each in followers)


async def test_with_its_last_follower_the_reading_ends(stream, streams) -> None:
    first, second = Follower(streams), Follower(streams)
    await until(lambda: len(second.got) == 5)
    await first.leave()
    await second.leave()
    await until(lambda: not any(t.get_name() == "follow:s" for t in asyncio.all_tasks()))
    reads = len(stream.reads)
    stream.add()
    streams.look("s")
    await asyncio.sleep(0)
    assert len(stream.reads) == reads
    again = Follower(streams)
    await until(lambda: again.got == [1, 2, 3, 4, 5, 6])
    await again.leave()
