"""One reader of a numbered stream for everybody who follows it, however many they are.

What is new is read once and kept for a while; followers take it from there and are woken a few at a
time. Who asks for something older, or takes too long, catches up with readings of its own.
"""

import asyncio
import contextlib
import itertools
import logging
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator
from typing import Generic, Protocol, TypeVar

from prsmd.domain.errors import PrsmdError
from prsmd.store.asking import for_nobody

log = logging.getLogger(__name__)
_KEPT = 1024  # items that followers may be behind before they read for themselves
_AT_ONCE = 200
_WOKEN_AT_ONCE = 32
_RETRY_SECONDS = 1.0


class Numbered(Protocol):
    """An item of a stream. Numbers only grow."""

    @property
    def sequence(self) -> int:
        """Its number."""


Item = TypeVar("Item", bound=Numbered)
Read = Callable[[int, int], Awaitable[list[Item] | None]]
"""Returns the first items after a number, at most so many; None: there will be no more."""


class FanOut(Generic[Item]):
    """What is new of one stream, for all its followers.

    `read` reads for the running task, whoever that is for. Without `interval_seconds` it is read
    when it is told to `look`, else that often too.
    """

    def __init__(
        self,
        name: str,
        read: "Read[Item]",
        start: Callable[[int], Awaitable[tuple[int, list[Item]]]],
        interval_seconds: float | None = None,
    ) -> None:
        self._name = name
        self._read = read
        self._start = start
        self._interval = interval_seconds
        self._kept: deque[Item] = deque()
        self._floor = self.head = 0
        self._ended = False
        self._started = asyncio.Event()
        self._news = asyncio.Event()
        self._waiting: set[asyncio.Event] = set()
        self._followers = 0
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many follow it."""
        return self._followers

    def look(self) -> None:
        """Read what is new, soon."""
        self._news.set()

    async def follow(
        self, after: int | None, catch_up: "Read[Item] | None" = None
    ) -> AsyncGenerator[list[Item], None]:
        """Yield the items after a number (None: from now on) as they come, some at a time.

        `catch_up` reads what is not kept any more, and may leave out what is not wanted.
        """
        with self._follower() as woken:
            await self._started.wait()
            at = self.head if after is None else after
            while True:
                woken.clear()
                found, reached = await self._after(at, catch_up or self._read)
                if found:
                    yield found
                elif reached == at and self._ended:
                    return
                elif reached == at:
                    self._waiting.add(woken)
                    await woken.wait()
                at = reached

    @contextlib.contextmanager
    def _follower(self) -> Iterator[asyncio.Event]:
        """Have the stream read while there is anybody to read it for."""
        woken = asyncio.Event()
        self._followers += 1
        if self._task is None:
            self._task = asyncio.create_task(
                self._run(), name=f"follow:{self._name}", context=for_nobody()
            )
        try:
            yield woken
        finally:
            self._waiting.discard(woken)
            self._followers -= 1
            if not self._followers and self._task is not None:
                self._task.cancel()
                self._forget()

    def _forget(self) -> None:
        self._task = None
        self._kept.clear()
        self._started = asyncio.Event()
        self._ended = False

    async def _after(self, at: int, catch_up: "Read[Item]") -> tuple[list[Item], int]:
        """Return what comes next, and up to where it is known then.

        It is taken from what is kept, and read where it is older than that.
        """
        if at < self._floor:
            head = self.head  # all up to here is in the store
            found = await catch_up(at, _AT_ONCE) or []
            last = found[-1].sequence if found else at
            return found, last if len(found) == _AT_ONCE else max(last, head)
        newer = itertools.takewhile(lambda item: item.sequence > at, reversed(self._kept))
        found = list(newer)[::-1][:_AT_ONCE]
        return found, found[-1].sequence if found else at

    async def _run(self) -> None:
        """Read what is new until nobody follows any more."""
        while True:
            self._news.clear()
            try:
                await self._take_news()
            except PrsmdError as error:
                log.warning("%s cannot be followed just now: %s", self._name, error.message)
                await asyncio.sleep(_RETRY_SECONDS)
                continue
            if self._ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._interval):
                    await self._news.wait()

    async def _take_news(self) -> None:
        if not self._started.is_set():
            self._floor, items = await self._start(_KEPT)
            self._kept.extend(items)
            self.head = items[-1].sequence if items else self._floor
            self._started.set()
        while True:
            found = await self._read(self.head, _AT_ONCE)
            self._ended = found is None
            for item in found or ():
                self._keep(item)
            if found or self._ended:
                await self._wake()
            if not found or len(found) < _AT_ONCE:
                return

    def _keep(self, item: Item) -> None:
        self._kept.append(item)
        self.head = item.sequence
        if len(self._kept) > _KEPT:
            self._floor = self._kept.popleft().sequence

    async def _wake(self) -> None:
        waiting, self._waiting = self._waiting, set()
        await wake_in_turn(waiting)


async def wake_in_turn(waiting: Iterable[asyncio.Event]) -> None:
    """Wake who waits, a few at a time: what they all do then takes time on the loop."""
    for number, woken in enumerate(waiting, start=1):
        woken.set()
        if number % _WOKEN_AT_ONCE == 0:
            await asyncio.sleep(0)


class FanOuts(Generic[Item]):
    """The streams that are followed, by their name."""

    def __init__(self, make: Callable[[str], FanOut[Item]]) -> None:
        self._make = make
        self._streams: dict[str, FanOut[Item]] = {}

    def look(self, name: str | None = None) -> None:
        """Have a stream, or all of them, read what is new; nothing where nobody follows it."""
        chosen = list(self._streams.values()) if name is None else [self._streams.get(name)]
        for stream in chosen:
            if stream is not None:
                stream.look()

    async def follow(
        self, name: str, after: int | None, catch_up: "Read[Item] | None" = None
    ) -> AsyncGenerator[list[Item], None]:
        """Yield a stream's items as `FanOut.follow` does."""
        stream = self._streams.get(name)
        if stream is None:
            stream = self._streams[name] = self._make(name)
        try:
            async with contextlib.aclosing(stream.follow(after, catch_up)) as followed:
                async for items in followed:
                    yield items
        finally:
            if not len(stream) and self._streams.get(name) is stream:
                del self._streams[name]
