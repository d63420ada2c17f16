"""The load generator (benchmarks/load.py) as a process of its own, and what it counted."""

import contextlib
import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Self

ROOT = Path(__file__).parents[2]
REQUESTS = int(os.environ.get("PRSMD_LOAD_REQUESTS", "6000"))
"""How many requests pass through each kind of change."""
_END_SECONDS = 90


@dataclasses.dataclass(frozen=True)
class Failure:
    """One request that was not answered rightly. Moments are seconds of the monotonic clock."""

    number: int
    began: float
    ended: float
    status: int
    text: str


@dataclasses.dataclass(frozen=True)
class Counted:
    """What the generator counted; its module says what each word means."""

    sent: int
    answered: int
    failed: int
    wrong: int
    lost: int
    refused: int
    cut: int
    closed: int
    statuses: Mapping[str, int]
    tags: Mapping[str, int]
    failures: tuple[Failure, ...]
    slow: tuple[tuple[int, float, float], ...]
    seconds: float
    per_second: float = 0.0
    latency_ms: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @classmethod
    def read(cls, line: bytes) -> Self:
        """Return what a line of the generator says."""
        values = json.loads(line)
        values.pop("final", None)
        values["failures"] = tuple(Failure(**one) for one in values["failures"])
        values["slow"] = tuple(map(tuple, values["slow"]))
        return cls(**values)


class Load:
    """Constant load on one model, from `start` to `stop`."""

    def __init__(self, address: Path | str, model: str, **options: object) -> None:
        """Prepare it; `options` are the generator's, such as `connections` and `rate`."""
        where = ("--unix" if isinstance(address, Path) else "--tcp", str(address))
        flags = [text for name, value in options.items() for text in (f"--{name}", str(value))]
        self._command = [sys.executable, "-m", "benchmarks.load", *where, "--model", model, *flags]
        self._process: subprocess.Popen[bytes] | None = None
        self._line = b""
        self._news = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)

    @property
    def counted(self) -> Counted:
        """What was counted so far, at most a fifth of a second old."""
        with self._news:
            self._news.wait_for(lambda: self._line, 30)
            return Counted.read(self._line)

    def start(self) -> Self:
        """Begin; return at once."""
        self._process = subprocess.Popen(
            self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
        )
        self._reader.start()
        return self

    def until_answered(self, count: int, seconds: float = 600) -> Counted:
        """Return when that many more were answered."""
        goal = self.counted.answered + count
        return self.until(lambda counted: counted.answered >= goal, seconds)

    def until(self, condition: Callable[[Counted], bool], seconds: float = 600) -> Counted:
        """Return the first counts that fulfil the condition."""
        with self._news:
            there = self._news.wait_for(
                lambda: self._line and condition(Counted.read(self._line)), seconds
            )
            assert there, f"not within {seconds} s; counted so far: {self._line[:2000]!r}"
            return Counted.read(self._line)

    def until_ended(self) -> Counted:
        """Return all that was counted when the generator has sent as many as it was to."""
        assert self._process is not None
        self._process.wait(_END_SECONDS)
        self._reader.join(10)
        assert self._process.returncode == 0, "the load generator failed"
        return self.counted

    def stop(self) -> Counted:
        """Send nothing new, wait for what is under way and return all that was counted."""
        assert self._process is not None
        assert self._process.stdin is not None
        if not self._process.stdin.closed:
            self._process.stdin.close()
        return self.until_ended()

    def abandon(self) -> None:
        """End the process whatever it does."""
        if self._process is None:
            return
        self._process.kill()
        self._reader.join(10)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._news:
                self._line = line
                self._news.notify_all()


@contextlib.contextmanager
def constant_load(address: Path | str, model: str, **options: object) -> Iterator[Load]:
    """Give load that runs; it is ended in any case."""
    load = Load(address, model, **options).start()
    try:
        yield load
    finally:
        load.abandon()
