"""A body in parts, written one after the other as they are, so that large ones are not copied."""

from collections.abc import Sequence

from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import Payload

from prsmd.protocols.json_members import Text


class Segments(Payload):
    """The body of a request or an answer. `begun` once something of it was written."""

    _default_content_type = "application/json"

    def __init__(self, parts: Sequence[Text]) -> None:
        super().__init__(parts)
        self._size = sum(map(len, parts))
        self.begun = False

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Write all parts."""
        for part in self._value:
            await writer.write(part)
            self.begun = True

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Return the body as text."""
        return b"".join(self._value).decode(encoding, errors)
