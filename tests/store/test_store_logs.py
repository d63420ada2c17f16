"""Kept output of ended replicas: whole, replaced as a whole, bounded in number."""

import asyncio
import os
import time
from pathlib import Path

from prsmd.domain.logs import LogLine
from prsmd.store.logs import LogArchive


def lines(*texts: str) -> list[LogLine]:
    return [LogLine(at=1.5, stream="stderr", text=text) for text in texts]


def kept(folder: Path) -> int:
    return len(list(folder.iterdir()))


async def test_what_was_saved_is_read_again_and_a_second_save_replaces_it(tmp_path: Path):
    archive = LogArchive(tmp_path / "logs")
    await archive.save("r1", lines("größer", "line\twith\ttabs", ""))
    assert await archive.read("r1") == lines("größer", "line\twith\ttabs", "")
    await archive.save("r1", lines("again"))
    assert await archive.read("r1") == lines("again")
    assert await archive.read("r2") == []


async def test_only_the_newest_files_are_kept(tmp_path: Path):
    archive = LogArchive(tmp_path, keep_files=3)
    for number in range(5):
        await archive.save(f"r{number}", lines(str(number)))
        (tmp_path / f"r{number}.jsonl").touch()
    await archive.save("last", lines("last"))
    assert kept(tmp_path) == 3
    assert await archive.read("last") == lines("last")
    assert await archive.read("r0") == []


async def test_what_was_written_while_the_clock_was_ahead_is_no_newer_than_what_came_after(
    tmp_path: Path,
):
    archive = LogArchive(tmp_path, keep_files=3)
    ahead = time.time() + 365 * 86400
    for number in range(3):
        await archive.save(f"r{number}", lines(str(number)))
        os.utime(tmp_path / f"r{number}.jsonl", (ahead + number, ahead + number))
    await archive.save("new", lines("new"))
    await archive.save("newer", lines("newer"))
    assert await archive.read("new") == lines("new")
    assert await archive.read("newer") == lines("newer")
    assert await archive.read("r2") == lines("2")
    assert kept(tmp_path) == 3


async def test_replicas_that_end_together_lose_no_save_to_each_others_pruning(tmp_path: Path):
    archive = LogArchive(tmp_path, keep_files=2)
    await asyncio.gather(*(archive.save(f"r{number}", lines("x")) for number in range(200)))
    assert kept(tmp_path) == 2


async def test_a_damaged_line_is_left_out_and_the_rest_is_read(tmp_path: Path):
    archive = LogArchive(tmp_path)
    await archive.save("r1", lines("before"))
    path = tmp_path / "r1.jsonl"
    whole = path.read_bytes()
    damaged = (
        *(b"", b"\0" * 50, b"\xff\xfe", b'[1.5, "std', b"7", b"[]", b'["x", "stdout", "y"]'),
        *(b'[NaN, "stdout", "y"]', b'[1, "stdout", null]', b"[" * 100_000, b'{"a": 1, "b": 2}'),
    )
    path.write_bytes(whole + b"\n".join(damaged) + b"\n" + whole + b'[2.5, "s')

    assert await archive.read("r1") == lines("before", "before")
