"""A body in parts: a small one is written at once, a large one part by part without a copy."""

from collections.abc import Sequence

from aiohttp import ClientConnectionResetError
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from prsmd.protocols.json_members import Text

_AT_ONCE_BYTES = 32 * 1024


class Segments(Payload):
    """The body of a request or an answer. `begun` once something of it may have been written."""

    _default_content_type = "application/json"

    def __init__(self, parts: Sequence[Text]) -> None:
        super().__init__(parts)
        self._size = size = sum(map(len, parts))
        self._small = size <= _AT_ONCE_BYTES
        self.begun = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all parts. A connection that ended before takes none of a small body."""
        parts = (b"".join(self._value),) if self._small else self._value
        for number, part in enumerate(parts):
            self.begun = True
            try:
                await writer.write(part)
            except ClientConnectionResetError:
                self.begun = number > 0
                raise

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return b"".join(self._value).decode(encoding, errors)
