"""What a container wrote is kept within bounds; losing it keeps nothing from ending."""

import asyncio
import dataclasses
from pathlib import Path
from typing import Self

import pytest

from prsmd.domain.logs import LogLine
from prsmd.domain.replica import Placement, Replica, ReplicaState
from prsmd.engine.capture import KEPT_CHARACTERS, KEPT_LINES, LogCapture
from prsmd.store.logs import LogArchive
from tests.engine.harness import Life, World

REPLICA = Replica(
    id="a-r1-s0-x",
    deployment_id="deploy_a",
    organization="default",
    revision=1,
    slot=0,
    state=ReplicaState.RUNNING,
    placement=Placement(node="n", cpu_millis=1, memory_bytes=1),
    created_at=1.0,
    container_id="c1",
)


class Writes:
    """A runtime whose container wrote these lines, and then hangs or not."""

    def __init__(self, *texts: str, hangs: bool = False) -> None:
        self.texts = texts
        self.hangs = hangs

    async def logs(self, container_id: str, query: object):
        for number, text in enumerate(self.texts):
            yield LogLine(at=float(number), stream="stdout", text=text)
        if self.hangs:
            await asyncio.get_running_loop().create_future()


async def taken(tmp_path: Path, runtime: Writes) -> tuple[list[LogLine], list[LogLine]]:
    archive = LogArchive(tmp_path)
    lines = await LogCapture(runtime, archive).take(REPLICA)  # type: ignore[arg-type]
    return lines, await archive.read(REPLICA.id)


async def test_lines_are_returned_and_kept(tmp_path: Path) -> None:
    lines, kept = await taken(tmp_path, Writes("one", "two"))

    assert [line.text for line in lines] == ["one", "two"]
    assert kept == lines


async def test_only_the_newest_lines_are_kept(tmp_path: Path) -> None:
    lines, kept = await taken(tmp_path, Writes(*map(str, range(KEPT_LINES + 7))))

    assert len(kept) == KEPT_LINES
    assert (lines[0].text, lines[-1].text) == ("7", str(KEPT_LINES + 6))


async def test_long_lines_are_cut_and_all_together_are_bounded(tmp_path: Path) -> None:
    lines, _ = await taken(tmp_path, Writes(*["x" * 100_000] * 200))

    assert all(len(line.text) < 20_000 for line in lines)
    assert 0 < sum(len(line.text) for line in lines) <= KEPT_CHARACTERS


class Counted(str):
    """A text that knows how many of its kind there are."""

    __slots__ = ()
    alive = 0

    def __new__(cls, text: str) -> Self:
        cls.alive += 1
        return super().__new__(cls, text)

    def __del__(self) -> None:
        type(self).alive -= 1


class WritesMuch:
    """A runtime whose container wrote a lot. `most` is how much of it was held at a time."""

    most = 0

    async def logs(self, container_id: str, query: object):
        for number in range(KEPT_LINES):
            yield LogLine(at=float(number), stream="stdout", text=Counted("x" * 10_000))
            self.most = max(self.most, Counted.alive)


async def test_no_more_than_is_kept_is_held_while_it_is_read(tmp_path: Path) -> None:
    runtime = WritesMuch()
    await LogCapture(runtime, LogArchive(tmp_path)).take(REPLICA)  # type: ignore[arg-type]

    assert 0 < runtime.most * 10_000 <= KEPT_CHARACTERS + 10_000


class Crowd:
    """A runtime that counts who reads at the same time. `most` is how many did."""

    reading = 0
    most = 0

    async def logs(self, container_id: str, query: object):
        self.reading += 1
        self.most = max(self.most, self.reading)
        for _ in range(3):
            await asyncio.sleep(0)
        yield LogLine(at=1.0, stream="stdout", text="one")
        self.reading -= 1


async def test_four_are_captured_at_a_time_and_all_in_the_end(tmp_path: Path) -> None:
    runtime = Crowd()
    capture = LogCapture(runtime, LogArchive(tmp_path))  # type: ignore[arg-type]
    ended = [dataclasses.replace(REPLICA, id=f"a-{number}") for number in range(20)]

    taken_of = await asyncio.gather(*map(capture.take, ended))

    assert [len(lines) for lines in taken_of] == [1] * 20
    assert runtime.most == 4


async def test_what_came_before_a_hang_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prsmd.engine.capture._READ_SECONDS", 0.01)
    lines, kept = await taken(tmp_path, Writes("before", hangs=True))

    assert [line.text for line in lines] == ["before"]
    assert kept == lines


async def test_a_disk_that_takes_nothing_loses_the_file_and_not_the_lines(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    archive = LogArchive(tmp_path / "logs")
    (tmp_path / "logs").rmdir()
    capture = LogCapture(Writes("one"), archive)  # type: ignore[arg-type]

    assert [line.text for line in await capture.take(REPLICA)] == ["one"]
    assert "logs not kept" in caplog.text


async def test_a_replica_without_a_container_has_no_lines(tmp_path: Path) -> None:
    capture = LogCapture(Writes("one"), LogArchive(tmp_path))  # type: ignore[arg-type]

    assert await capture.take(dataclasses.replace(REPLICA, container_id=None)) == []


async def test_a_container_that_is_gone_leaves_what_was_kept_before(
    life: Life, world: World
) -> None:
    archive = life.appliance.parts.archive
    known = [LogLine(at=1.0, stream="stderr", text="kept before")]
    await archive.save(REPLICA.id, known)
    capture = LogCapture(life.appliance.runtime, archive)

    assert await capture.take(REPLICA) == known
    assert await archive.read(REPLICA.id) == known


async def test_a_capture_that_fails_in_any_way_does_not_keep_a_replica(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Fails(LogArchive):
        async def read(self, replica_id: str) -> list[LogLine]:
            raise ValueError("a damaged file")

    capture = LogCapture(Writes(), Fails(tmp_path))  # type: ignore[arg-type]

    assert await capture.take(REPLICA) == []
    assert "a damaged file" in caplog.text
