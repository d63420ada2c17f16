"""Receives large bodies into files that vanish by themselves, however the request ends."""

import asyncio
import contextlib
import dataclasses
import hashlib
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import IO

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from prsmd.api.identity import DOOR
from prsmd.api.request_body import HOLDING, ask_for_body
from prsmd.domain.errors import InvalidInputError, RequestTooLargeError, StorageFullError
from prsmd.gateway.endings import hold

_WRITTEN_AT_ONCE = 1 << 20


@dataclasses.dataclass(frozen=True, slots=True)
class Received:
    """A whole body. `path` is there for as long as the file is open."""

    path: Path
    size_bytes: int
    sha256: str


@contextlib.asynccontextmanager
async def received(request: web.Request, folder: Path, most_bytes: int) -> AsyncIterator[Received]:
    """Give the request's body as a file in `folder` without a name, so that nothing is left of it.

    A sender may be slow, but not silent for longer than any body may take to come.

    Raises:
        RequestTooLargeError: it is larger than `most_bytes`.
        InvalidInputError: it was cut off or came to a standstill.
        StorageFullError: the folder's disk has no room.
        ResourceUnavailableError: no more may be held for the caller now.
    """
    hold(request[HOLDING], 2 * _WRITTEN_AT_ONCE)  # what is collected, and what is being written
    with tempfile.TemporaryFile(dir=folder, prefix="upload-") as file:
        total, size = hashlib.sha256(), 0
        try:
            async for piece in _pieces(request):
                size += len(piece)
                if size > most_bytes:
                    raise RequestTooLargeError(
                        f"The body is larger than the {most_bytes} bytes that are accepted here.",
                        limit_bytes=most_bytes,
                    )
                await asyncio.to_thread(_write, file, total, piece)
            await asyncio.to_thread(file.flush)
        except OSError as error:
            raise StorageFullError(f"The body cannot be kept: {error.strerror}.") from error
        path = Path(f"/proc/self/fd/{file.fileno()}")  # opens the file itself, anew
        yield Received(path, size, total.hexdigest())


def _write(file: IO[bytes], total: "hashlib._Hash", piece: bytes) -> None:
    total.update(piece)
    file.write(piece)


async def _pieces(request: web.Request) -> AsyncIterator[bytes]:
    """Yield the body in pieces worth a write."""
    kept = bytearray()
    patience = request.app[DOOR].body_seconds
    await ask_for_body(request)
    while True:
        try:
            async with asyncio.timeout(patience):
                chunk = await request.content.readany()
        except TimeoutError:
            raise InvalidInputError.field("body", "came to a standstill") from None
        except (web.RequestPayloadError, HttpProcessingError, ConnectionError):
            raise InvalidInputError.field(
                "body", "was cut off, or is not as its head says"
            ) from None
        kept += chunk
        if kept and (len(kept) >= _WRITTEN_AT_ONCE or not chunk):
            yield bytes(kept)
            kept.clear()
        if not chunk:
            return
