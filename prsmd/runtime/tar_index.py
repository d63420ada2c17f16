"""Reads where things lie in a tar file that nobody vouches for, and writes tar files.

Knows nothing of images. It extracts nothing, and holds no more in memory than names: a header that
asks for more is refused. Python's own `tarfile` reads extended headers of any size into memory.
"""

import dataclasses
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO

from prsmd.domain.errors import InvalidInputError

BLOCK = 512
_MOST_MEMBERS = 20_000
_LONGEST_NAME_BYTES = 4096
_LONGEST_RECORDS_BYTES = 64 * 1024
_CHUNK = 1 << 20
_FILES = {tarfile.REGTYPE, tarfile.AREGTYPE}
_KINDS = {
    tarfile.LNKTYPE: "a hard link",
    tarfile.CHRTYPE: "a device",
    tarfile.BLKTYPE: "a device",
    tarfile.FIFOTYPE: "a pipe",
    tarfile.GNUTYPE_SPARSE: "a sparse file",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Span:
    """Where a file's bytes lie in the archive."""

    offset: int
    size: int


@dataclasses.dataclass(frozen=True, slots=True)
class TarIndex:
    """What a tar file holds: files by name, and symbolic links by name with where they lead."""

    files: Mapping[str, Span]
    links: Mapping[str, str]


def refused(problem: str) -> InvalidInputError:
    """Return the error for an archive with this problem."""
    return InvalidInputError.field("archive", problem)


def read_index(file: BinaryIO, size: int) -> TarIndex:
    """Return what a tar file of `size` bytes holds. InvalidInputError for anything unusual."""
    files: dict[str, Span] = {}
    links: dict[str, str] = {}
    for header, span in _entries(file, size):
        name = _safe_name(header.name)
        if header.type == tarfile.DIRTYPE:
            continue
        if name in files or name in links:
            raise refused(f"holds {_shown(name)} twice")
        if header.type == tarfile.SYMTYPE:
            links[name] = header.linkname
        elif header.type in _FILES:
            files[name] = span
        else:
            kind = _KINDS.get(header.type, "of an unknown kind")
            raise refused(f"holds {_shown(name)}, which is {kind}; only files can be loaded")
        if len(files) + len(links) > _MOST_MEMBERS:
            raise refused(f"holds more than {_MOST_MEMBERS} files")
    return TarIndex(files, links)


def chunks(file: BinaryIO, span: Span) -> Iterator[bytes]:
    """Yield a file's bytes in pieces."""
    file.seek(span.offset)
    left = span.size
    while left:
        piece = file.read(min(left, _CHUNK))
        if not piece:
            raise refused("was cut off while it was read")
        left -= len(piece)
        yield piece


def tar_size(sizes: Iterator[int]) -> int:
    """Return how many bytes a written tar file with files of these sizes has."""
    return sum(BLOCK + _padded(size) for size in sizes) + 2 * BLOCK


def written(path: Path, members: Mapping[str, Span | bytes]) -> Iterator[bytes]:
    """Yield a new tar file whose members are given, or are spans of the tar file at `path`."""
    with path.open("rb") as file:
        for name, content in members.items():
            size = len(content) if isinstance(content, bytes) else content.size
            header = tarfile.TarInfo(name)
            header.size, header.mode = size, 0o644
            yield header.tobuf(tarfile.USTAR_FORMAT)
            yield from [content] if isinstance(content, bytes) else chunks(file, content)
            yield bytes(_padded(size) - size)
    yield bytes(2 * BLOCK)


def _entries(file: BinaryIO, size: int) -> Iterator[tuple[tarfile.TarInfo, Span]]:
    """Yield each header, with what extended headers say in place of its own, and its bytes."""
    offset, said = 0, dict[str, str]()
    while True:
        file.seek(offset)
        block = file.read(BLOCK)
        if len(block) < BLOCK:
            raise refused(_WHOLE if offset else "is empty or not a tar file")
        if block == bytes(BLOCK):
            return
        header = _header(block, first=offset == 0)
        span = Span(offset + BLOCK, int(said.get("size", header.size)))
        offset = span.offset + _padded(span.size)
        if span.size < 0 or span.offset + span.size > size:
            raise refused(_WHOLE)
        if header.type in _EXTENSIONS:
            said |= _extension(file, header.type, span)
            continue
        header.name = said.get("path", header.name)
        header.linkname = said.get("linkpath", header.linkname)
        said = {}
        yield header, span


_WHOLE = "is not whole: it was cut off"
_EXTENSIONS = {
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
}


def _header(block: bytes, *, first: bool) -> tarfile.TarInfo:
    try:
        return tarfile.TarInfo.frombuf(block, "utf-8", "strict")
    except (tarfile.HeaderError, UnicodeDecodeError):
        if first and block.startswith(b"\x1f\x8b"):
            raise refused("is compressed: send the tar file itself (gunzip it first)") from None
        problem = "is not a tar file" if first else "has a broken header: it is damaged"
        raise refused(problem) from None


def _extension(file: BinaryIO, kind: bytes, span: Span) -> dict[str, str]:
    """Return what an extended header says of the next one."""
    if span.size > _LONGEST_RECORDS_BYTES:
        raise refused("has an extended header that is too long")
    content = b"".join(chunks(file, span))
    if kind == tarfile.XGLTYPE:
        return {}  # of all that follow; nothing that matters here is ever said so
    try:
        if kind in {tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}:
            text = content.rstrip(b"\0").decode()
            return {"path" if kind == tarfile.GNUTYPE_LONGNAME else "linkpath": text}
        return _records(content)
    except (ValueError, IndexError):
        raise refused("has an extended header that is damaged") from None


def _records(content: bytes) -> dict[str, str]:
    """Return the records of a POSIX extended header: LENGTH, a space, KEY=VALUE, a line end."""
    found: dict[str, str] = {}
    while content:
        digits, _, _ = content.partition(b" ")
        length = int(digits)
        record, content = content[len(digits) + 1 : length], content[length:]
        if len(digits) + 1 + len(record) != length or not record.endswith(b"\n"):
            raise ValueError("a record does not end")
        key, equals, value = record[:-1].decode().partition("=")
        if not equals or (key == "size" and not (value.isascii() and value.isdigit())):
            raise ValueError("not a record")
        if key.startswith("GNU.sparse"):
            raise refused("holds a sparse file; only plain files can be loaded")
        found[key] = value
    return found


def _safe_name(name: str) -> str:
    """Return a member's plain name. Refuse one that leads out, or anywhere unexpected."""
    if len(name) > _LONGEST_NAME_BYTES or any(ord(letter) < 32 for letter in name):
        raise refused("holds a file whose name cannot be one")
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if name.startswith("/") or ".." in parts:
        raise refused(f"holds {_shown(name)}, which would lead out of it")
    return "/".join(parts)


def _shown(name: str) -> str:
    return repr(name[:100])


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
