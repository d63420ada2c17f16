"""A small body is written whole or not at all; a large one part by part, as it is."""

from typing import Any

import pytest
from aiohttp import ClientConnectionResetError

from prsmd.gateway.segments import Segments


class Writer:
    """Takes so many writes, and is closed for the next one."""

    def __init__(self, takes: int) -> None:
        self.taken: list[bytes] = []
        self._takes = takes

    async def write(self, part: bytes) -> None:
        if len(self.taken) == self._takes:
            raise ClientConnectionResetError("Cannot write to closing transport")
        self.taken.append(bytes(part))


SMALL = (b"{", b"1" * 1000, memoryview(b"}"))
LARGE = (b"{", b"1" * 100_000, memoryview(b"}"))


@pytest.mark.parametrize(("parts", "writes"), [(SMALL, 1), (LARGE, 3)])
async def test_a_body_is_written_as_it_stands(parts: Any, writes: int):
    writer, body = Writer(9), Segments(parts)
    await body.write(writer)  # type: ignore[arg-type]

    assert b"".join(writer.taken) == b"".join(parts)
    assert (len(writer.taken), body.begun) == (writes, True)


@pytest.mark.parametrize(
    ("parts", "takes", "begun"), [(SMALL, 0, False), (LARGE, 0, False), (LARGE, 1, True)]
)
async def test_a_closed_connection_has_begun_to_take_it_or_not(parts: Any, takes: int, begun: bool):
    body = Segments(parts)
    with pytest.raises(ClientConnectionResetError):
        await body.write(Writer(takes))  # type: ignore[arg-type]

    assert body.begun is begun
