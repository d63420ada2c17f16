"""The last lines of a log are found from its end, across the rotation of its files."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.runtime import process_logs
from prsmd.runtime.base import LogQuery
from prsmd.runtime.process_logs import LogReader


def written(lines: list[str], began: float = 0.0) -> bytes:
    return b"".join(f"{began + at} stdout {text}\n".encode() for at, text in enumerate(lines))


def texts(reader: LogReader, **query: object) -> list[str]:
    found = [line.text for line in reader.first(LogQuery(**query))]  # type: ignore[arg-type]
    reader.close()
    return found


LINES = st.lists(st.text(alphabet="ab é", max_size=30), max_size=12)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of which a test's log has many."""
    monkeypatch.setattr(process_logs, "_BLOCK_BYTES", 50)


@settings(max_examples=200, deadline=None)
@given(
    older=st.none() | LINES,
    newer=LINES,
    half=st.booleans(),
    tail=st.none() | st.integers(0, 30),
    since=st.none() | st.integers(0, 24),
)
def test_the_last_lines_are_those_of_the_whole(
    tmp_path_factory: pytest.TempPathFactory,
    older: list[str] | None,
    newer: list[str],
    half: bool,
    tail: int | None,
    since: int | None,
) -> None:
    folder = tmp_path_factory.mktemp("run")
    if older is not None:
        (folder / "log.1").write_bytes(written(older))
    begun = b"99 stdout not whole" if half else b""
    (folder / "log").write_bytes(written(newer, began=len(older or [])) + begun)

    found = texts(LogReader(folder), tail=tail, since=since)

    everything = [*(older or []), *newer][since or 0 :]
    assert found == (everything if tail is None else everything[max(0, len(everything) - tail) :])


def test_what_was_half_written_comes_when_it_is_whole(tmp_path: Path) -> None:
    (tmp_path / "log").write_bytes(written(["one", "two"]) + b"2 stdout th")
    reader = LogReader(tmp_path)
    assert [line.text for line in reader.first(LogQuery(tail=1))] == ["two"]
    with (tmp_path / "log").open("ab") as file:
        file.write(b"ree\n3 stdout four\n")

    assert [line.text for line in reader.more()] == ["three", "four"]
    reader.close()


def test_a_log_that_is_moved_aside_while_it_is_opened_is_not_read_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "log"
    log.write_bytes(written(["one", "two"]))
    opened = LogReader._open

    def open_and_rotate(self: LogReader) -> bool:
        done = opened(self)
        if not log.with_suffix(".1").exists():
            log.rename(log.with_suffix(".1"))
            log.write_bytes(written(["three"], began=2))
        return done

    monkeypatch.setattr(LogReader, "_open", open_and_rotate)

    assert texts(LogReader(tmp_path), tail=10) == ["one", "two", "three"]


def test_a_run_without_a_log_has_no_lines(tmp_path: Path) -> None:
    assert texts(LogReader(tmp_path), tail=5) == []


def test_of_a_long_log_little_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "log").write_bytes(written(["x" * 90] * 10_000))
    parsed: list[bytes] = []
    line_of = process_logs._line

    def counting(raw: bytes) -> process_logs.LogLine:
        parsed.append(raw)
        return line_of(raw)

    monkeypatch.setattr(process_logs, "_line", counting)

    assert len(texts(LogReader(tmp_path), tail=7)) == 7
    assert len(parsed) == 7


def test_a_damaged_line_is_left_out(tmp_path: Path) -> None:
    damaged = b"\0" * 300 + b"\nnot-a-time stdout x\n"
    (tmp_path / "log.1").write_bytes(written(["one"]) + damaged)
    (tmp_path / "log").write_bytes(damaged + written(["two"], began=2))

    assert texts(LogReader(tmp_path), tail=10) == ["one", "two"]
