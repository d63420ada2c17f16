"""What is under way for whom: it ends when who asked for it is nobody any more, or may less.

A stream that a key opened is cut within a moment of the key's revocation or expiry.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator

from prsmd.core.delegation import excess
from prsmd.core.permit import covers
from prsmd.domain.errors import InvalidApiKeyError, PermissionDeniedError, PrsmdError
from prsmd.service.access import Identified

_ENDED = "What proved who you are is no longer good for this; ask for a new key or token."


@dataclasses.dataclass(eq=False, slots=True)
class _Request:
    identified: Identified
    ending: asyncio.Timeout
    why: PrsmdError


class Underway:
    """The requests under way that may take long."""

    def __init__(self) -> None:
        self._open: set[_Request] = set()

    def __len__(self) -> int:
        return len(self._open)

    @contextlib.asynccontextmanager
    async def watch(self, identified: Identified) -> AsyncIterator[None]:
        """Let a request go on while who asked for it may still do what they might then.

        Raises:
            PrsmdError: not any more, or all was ended; what went on inside was cancelled.
        """
        request: _Request | None = None
        try:
            async with asyncio.timeout_at(_loop_time(identified.until)) as ending:
                request = _Request(identified, ending, InvalidApiKeyError(_ENDED))
                self._open.add(request)
                yield
        except TimeoutError:
            if request is None or not request.ending.expired():
                raise
            raise request.why from None
        finally:
            if request is not None:
                self._open.discard(request)

    def end_all(self, why: PrsmdError) -> None:
        """End everything for another reason than what it was begun with."""
        for request in tuple(self._open):
            _end(request, why)

    def look_again(self) -> None:
        """End what was begun by those who are nobody any more, or may less than they might.

        What goes on, goes on for as long as its proof is good by now.
        """
        for request in tuple(self._open):
            try:
                now = still(request.identified)
            except (InvalidApiKeyError, PermissionDeniedError) as error:
                _end(request, error)
                continue
            if not request.ending.expired():
                request.ending.reschedule(_loop_time(now.until))


def still(identified: Identified) -> Identified:
    """Look once more who somebody is.

    Raises:
        InvalidApiKeyError: nobody any more, or somebody who may less than they might.
        PermissionDeniedError: they do not belong any more where they acted for.
    """
    now = identified.again()
    if not covers(now.principal, identified.principal):
        raise InvalidApiKeyError("You may do less now than when this began; ask again.")
    return now


def still_as_held(identified: Identified) -> Identified:
    """Look once more who asks for a change, which may give others what they hold.

    Raises:
        InvalidApiKeyError: as `still` does, and where they are bound more tightly than then.
    """
    now = still(identified)
    if excess(now.principal, identified.principal) is not None:
        raise InvalidApiKeyError("You hold less now than when this began; ask again.")
    return now


def _end(request: _Request, why: PrsmdError) -> None:
    if not request.ending.expired():
        request.why = why
        request.ending.reschedule(asyncio.get_running_loop().time())


def _loop_time(at: float | None) -> float | None:
    if at is None:
        return None
    return asyncio.get_running_loop().time() + max(0.0, at - time.time())
