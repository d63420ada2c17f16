"""Requests as bytes, ready to be sent, and bodies that cost their reader more than their sender."""

import functools
import gzip
import json
import struct
import zlib
from typing import Any

from benchmarks.hostile.senders import Request

MIB = 1024**2
_JSON = "Content-Type: application/json"
_ZEROS = 16 * MIB
_FIRST_PIECE = 65536


def head(line: str, key: str | None, *more: str) -> bytes:
    """Return a request's head without the empty line: `line` is its method and path."""
    named = [] if key is None else [f"Authorization: Bearer {key}"]
    lines = [f"{line} HTTP/1.1", "Host: localhost", *named, *more]
    return ("\r\n".join(lines) + "\r\n").encode()


def request(line: str, key: str | None, body: bytes = b"", *more: str) -> Request:
    """Return a whole request. A body is JSON unless `more` says what it is."""
    typed = [] if any(m.lower().startswith("content-type") for m in more) else [_JSON]
    sized = [*typed, f"Content-Length: {len(body)}"] if body else []
    return (head(line, key, *more, *sized) + b"\r\n" + body[:_FIRST_PIECE], body[_FIRST_PIECE:])


def trickled(line: str, key: str | None, declared: int, sent: int, pieces: int) -> Request:
    """Return a request whose body begins with `sent` bytes and goes on byte by byte."""
    begin = head(line, key, _JSON, f"Content-Length: {declared}") + b"\r\n" + b'{"inputs":"'
    return (begin + b"x" * sent, *([b"x"] * pieces))


def as_json(value: Any) -> bytes:
    """Return a value as JSON."""
    return json.dumps(value, separators=(",", ":")).encode()


@functools.cache
def gzip_bomb(mib: int = 1024) -> bytes:
    """Return a gzip file of about a thousandth of the size that it inflates to."""
    header = gzip.compress(b"")[:10]
    raw = _raw_zeros(mib)
    checksum, block = 0, b"\0" * _ZEROS
    for _ in range(mib * MIB // _ZEROS):
        checksum = zlib.crc32(block, checksum)
    return header + raw + struct.pack("<II", checksum, mib * MIB & 0xFFFFFFFF)


@functools.cache
def deflate_bomb(mib: int = 1024) -> bytes:
    """Return a zlib stream of about a thousandth of the size that it inflates to."""
    checksum, block = 1, b"\0" * _ZEROS
    for _ in range(mib * MIB // _ZEROS):
        checksum = zlib.adler32(block, checksum)
    return b"\x78\xda" + _raw_zeros(mib) + struct.pack(">I", checksum)


def _raw_zeros(mib: int) -> bytes:
    """Return raw deflate of zeros: one flushed block many times over is a valid stream."""
    made = zlib.compressobj(9, zlib.DEFLATED, -15)
    block = made.compress(b"\0" * _ZEROS) + made.flush(zlib.Z_FULL_FLUSH)
    return block * (mib * MIB // _ZEROS) + zlib.compressobj(9, zlib.DEFLATED, -15).flush()


@functools.cache
def unknown_fields(size: int) -> bytes:
    """Return an object of so many bytes whose fields nobody knows."""
    fields = (f'"f{number}":0' for number in range(size))
    return _filled(b'{"target_replicas":1,', fields, b"}", size)


@functools.cache
def small_values(size: int) -> bytes:
    """Return an inference's body of so many bytes: a list of empty lists, the most memory."""
    return b'{"inputs":[' + b"[]," * ((size - 20) // 3) + b"0]}"


def worst_json(field: str, size: int = MIB) -> list[bytes]:
    """Return bodies of about `size` bytes, each bad for a parser, under this field (`a.b`)."""
    names = field.split(".")
    name = "".join(f'{{"{one}":' for one in names).encode()
    room, end = size - 64, b"}" * len(names)
    pairs = (f'"{number:x}":0' for number in range(room))
    values = (
        b"[" * (room // 2) + b"]" * (room // 2),
        b'{"a":' * (room // 6) + b"0" + b"}" * (room // 6),
        _filled(b"{", pairs, b"}", room),
        b"9" * room,
        b"0." + b"9" * (room - 10) + b"e-9",
        b"[" + b"1e300," * (room // 6) + b"0]",
        b'"' + b"\\u00e9" * (room // 6) + b'"',
        b"[" + b'"x",' * (room // 4) + b"0]",
        b"[" + b"{}," * (room // 3) + b"0]",
        b"[" + b"null," * (room // 5) + b"0" + b"}" * 10,
        b"]" * room,
    )
    return [name + value + end for value in values]


def _filled(begin: bytes, parts: Any, end: bytes, size: int) -> bytes:
    made, length = [], len(begin) + len(end)
    for part in parts:
        length += len(part) + 1
        if length > size:
            break
        made.append(part)
    return begin + ",".join(made).encode() + end
