"""Pulls one image, trying again while that can help, and giving up as soon as it cannot fit.

The engine itself takes up a broken layer where it broke off, within one pull. Once it has given up,
Docker forgets the layers that had arrived; so a whole pull is tried again only after that.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Awaitable, Callable

from prsmd.core.stalls import AlwaysOnTime, DeadlineJudge
from prsmd.domain.errors import PullBrokenOffError
from prsmd.domain.image import Login
from prsmd.runtime.base import Image, Images, PullProgress

log = logging.getLogger(__name__)
_LONGEST_PAUSE_SECONDS = 60.0
Note = Callable[[PullProgress], None]
MakeRoom = Callable[[str, int], Awaitable[None]]


class Puller:
    """Pulls with some attempts. The first pause is twice `retry_seconds`; each next one doubles.

    What broke off while this daemon or the engine stood still was no attempt; as many of those are
    forgiven as there are attempts.
    """

    def __init__(
        self,
        images: Images,
        attempts: int,
        retry_seconds: float,
        judge: DeadlineJudge | None = None,
    ) -> None:
        self._judge = judge or AlwaysOnTime()
        self._images = images
        self.attempts = attempts
        self._retry_seconds = retry_seconds

    async def pull(
        self, wanted: str, login: Login | None, note: Note, make_room: MakeRoom
    ) -> Image:
        """Return the image. ImageUnavailableError or NoRoomForImageError say why not.

        `make_room` is asked before each attempt and whenever more is known of the size.
        """
        trouble: str | None = None
        attempt, forgiven = 1, 0
        while attempt < self.attempts:
            began = self._judge.now()
            try:
                return await self._attempt(
                    wanted, login, _telling(note, attempt, trouble), make_room
                )
            except PullBrokenOffError as error:
                trouble = error.message.removeprefix(f"pull {wanted}: ")
                excused = self._judge.unknown(began) is not None and forgiven < self.attempts
            pause = min(self._retry_seconds * 2.0**attempt, _LONGEST_PAUSE_SECONDS)
            log.info("pull of %s broke off: %s; again in %g s", wanted, trouble, pause)
            forgiven, attempt = forgiven + excused, attempt + (not excused)
            _telling(note, attempt, trouble)(PullProgress(status="waiting"))
            await asyncio.sleep(pause)
        try:
            return await self._attempt(
                wanted, login, _telling(note, self.attempts, trouble), make_room
            )
        except PullBrokenOffError as error:
            if self.attempts == 1:
                raise
            raise PullBrokenOffError(f"{error.message} (tried {self.attempts} times)") from error

    async def _attempt(
        self, wanted: str, login: Login | None, note: Note, make_room: MakeRoom
    ) -> Image:
        """Pull, and give up as soon as the sizes that the registry tells do not fit."""
        what = f"pull {wanted}"
        await make_room(what, 0)
        sizes = _Sizes(note)
        pull = asyncio.create_task(
            self._images.pull(wanted, sizes.note, login), name=f"fetch:{wanted}"
        )
        watch = asyncio.create_task(_watch(what, sizes, make_room), name=f"room:{wanted}")
        try:
            await asyncio.wait((pull, watch), return_when=asyncio.FIRST_COMPLETED)
            if watch.done():
                watch.result()
            return await pull
        finally:
            for task in (pull, watch):
                task.cancel()
            await asyncio.gather(pull, watch, return_exceptions=True)


class _Sizes:
    """What a pull says of its size: passed on, and waited for where it grows."""

    def __init__(self, note: Note) -> None:
        self._pass_on = note
        self._grown = asyncio.Event()
        self._total = 0
        self._left = 0

    def note(self, progress: PullProgress) -> None:
        """Take note of one report."""
        self._pass_on(progress)
        total = progress.total_bytes or 0
        if total > self._total:
            self._total = total
            self._left = total - progress.done_bytes
            self._grown.set()

    async def grown(self) -> int:
        """Return how many bytes are still to come, as soon as there are more than were known."""
        await self._grown.wait()
        self._grown.clear()
        return self._left


async def _watch(what: str, sizes: _Sizes, make_room: MakeRoom) -> None:
    while True:
        await make_room(what, await sizes.grown())


def _telling(note: Note, attempt: int, trouble: str | None) -> Note:
    return lambda said: note(dataclasses.replace(said, attempt=attempt, trouble=trouble))
