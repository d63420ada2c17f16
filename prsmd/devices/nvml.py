"""NVIDIA GPUs through NVML: owns the helper process that measures and the last sample it gave.

A driver can hang for ever, so nothing here calls it. The helper is asked for a sample every
`sample_seconds`; one that misses its deadline is killed and replaced after a pause, and meanwhile
the last sample stays, marked stale. On a machine without a driver no process is kept: one is tried
now and then. Whether a GPU may be used is said in words by `devices/nvml_reading.py`.
"""

import asyncio
import contextlib
import dataclasses
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from prsmd.core.stalls import OWN, AlwaysOnTime, DeadlineJudge
from prsmd.domain.node import GpuSample

from .nvml_reading import NO_DRIVER, KnownGpus, fault_in_words

_LOG = logging.getLogger(__name__)
_HELPER = Path(__file__).with_name("nvml_helper.py")
_LONGEST_LINE = 4 * 1024**2  # thousands of processes
_STEADY_SAMPLES = 5  # a helper that gave so many did not fail at once: the backoff starts anew
_CLOSE_SECONDS = 2.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NvmlSettings:
    """How to sample. All times are seconds.

    `start_deadline_seconds` is for the first sample of a helper, which waits for the driver to
    wake the GPUs. `retry_seconds` is the pause before asking again where there is no driver (then
    doubled, up to ten times it), and after which a lost GPU is looked for anew. A helper that
    failed is replaced after `backoff_seconds`, doubled up to its limit. `environment` is added to
    the helper's own.
    """

    sample_seconds: float = 2.0
    deadline_seconds: float = 5.0
    start_deadline_seconds: float = 30.0
    retry_seconds: float = 60.0
    backoff_seconds: float = 1.0
    backoff_limit_seconds: float = 30.0
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, slots=True)
class _Ended:
    """Why a helper gives no more samples. `code` is NVML's, None for a hang or a death."""

    text: str
    code: int | None = None


class NvmlGpus:
    """The GPUs of this machine as NVML tells. `on_sample` runs on the loop after every change.

    `judge` is asked whether a helper that missed its deadline was heard at all.
    """

    def __init__(
        self,
        settings: NvmlSettings | None = None,
        *,
        on_sample: Callable[[GpuSample], None] | None = None,
        judge: DeadlineJudge | None = None,
    ) -> None:
        self._judge = judge or AlwaysOnTime()
        self._settings = settings or NvmlSettings()
        self._on_sample = on_sample
        self._known = KnownGpus()
        self._task: asyncio.Task[None] | None = None
        now = time.time()
        self._sample = GpuSample(gpus=(), taken_at=now, stale_since=now, error="not yet sampled")

    async def start(self) -> None:
        """Begin sampling. Returns at once; until the first answer the sample is stale."""
        if self._task is None:
            self._task = asyncio.create_task(self._sample_forever(), name="nvml-sampler")
            self._task.add_done_callback(self._note_end)

    def sample(self) -> GpuSample:
        """Return the last sample at once."""
        return self._sample

    async def close(self) -> None:
        """End the helper. One that the driver holds in the kernel is left to its parent's end."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.wait({task}, timeout=_CLOSE_SECONDS)

    async def _sample_forever(self) -> None:
        failures = 0
        while True:
            served, ended = await self._use_one_helper()
            failures = 1 if served >= _STEADY_SAMPLES else failures + 1
            if ended is not None:
                self._mark_stale(ended)
                await asyncio.sleep(self._pause(ended, failures))

    async def _use_one_helper(self) -> tuple[int, _Ended | None]:
        """Return how many samples a new helper gave, and why it ended (None: to look afresh)."""
        served = 0
        look_afresh_at = time.monotonic() + self._settings.retry_seconds
        async with _Helper(self._settings.environment, self._judge) as helper:
            while not (self._known.incomplete and served and time.monotonic() > look_afresh_at):
                limit = self._settings
                answer = await helper.ask(
                    limit.deadline_seconds if served else limit.start_deadline_seconds
                )
                if isinstance(answer, _Ended):
                    return served, answer
                self._publish(self._known.take(answer, time.time()))
                served += 1
                await asyncio.sleep(self._settings.sample_seconds)
        return served, None

    def _mark_stale(self, ended: _Ended) -> None:
        if self._has_no_driver(ended):
            now = time.time()
            self._publish(GpuSample(gpus=(), taken_at=now, error=ended.text, supported=False))
        else:
            self._publish(_stale(self._sample, ended.text))

    def _publish(self, sample: GpuSample) -> None:
        if sample.error != self._sample.error:
            _LOG.log(
                logging.WARNING if sample.stale_since else logging.INFO,
                "GPU telemetry: %s",
                sample.error or "fresh",
            )
        self._sample = sample
        if self._on_sample is not None:
            self._on_sample(sample)

    def _note_end(self, task: asyncio.Task[None]) -> None:
        """Say so when sampling ended by a defect: the sample must not pass for a fresh one."""
        defect = None if task.cancelled() else task.exception()
        if defect is not None:
            self._sample = _stale(self._sample, f"GPU sampling ended by a defect: {defect!r}")
            _LOG.error("GPU sampling ended by a defect", exc_info=defect)

    def _pause(self, ended: _Ended, failures: int) -> float:
        settings = self._settings
        doublings = min(failures - 1, 10)
        if self._has_no_driver(ended):
            return settings.retry_seconds * min(2.0**doublings, 10)
        return min(settings.backoff_seconds * 2.0**doublings, settings.backoff_limit_seconds)

    def _has_no_driver(self, ended: _Ended) -> bool:
        """Tell a machine without NVIDIA GPUs from one whose driver is away for a moment."""
        return ended.code in NO_DRIVER and not self._known.gpus


class _Helper:
    """One helper process, killed on exit. Asked when it is dead, it answers how it died."""

    def __init__(self, environment: Mapping[str, str], judge: DeadlineJudge) -> None:
        self._environment = environment
        self._judge = judge
        self._process: asyncio.subprocess.Process | None = None
        self._refused = ""

    async def __aenter__(self) -> Self:
        try:
            self._process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-I", str(_HELPER), str(os.getpid())),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={**os.environ, **self._environment},
                limit=_LONGEST_LINE,
            )
        except OSError as error:
            self._refused = f"the NVML helper cannot be started: {error.strerror}"
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._process is not None:
            await _kill(self._process)

    async def ask(self, deadline: float) -> Mapping[str, Any] | _Ended:
        """Return the next sample's line, or why there is none, after `deadline` seconds at most."""
        if self._process is None:
            return _Ended(self._refused)
        try:
            line = await self._exchange_within(deadline, self._process)
        except TimeoutError:
            return _Ended(f"the NVIDIA driver did not answer within {deadline:g} s")
        except (OSError, ValueError):
            line = b""
        return _understood(line) if line else await self._how_it_died(self._process)

    async def _exchange_within(self, deadline: float, process: asyncio.subprocess.Process) -> bytes:
        """Return what the helper says; one that could not be heard in time is waited for again."""
        exchange = asyncio.create_task(self._exchange(process), name="nvml-helper-exchange")
        try:
            while True:
                began = self._judge.now()
                done, _ = await asyncio.wait({exchange}, timeout=deadline)
                if done:
                    return exchange.result()
                if self._judge.unknown(began, OWN) is None:
                    raise TimeoutError
        finally:
            exchange.cancel()

    async def _exchange(self, process: asyncio.subprocess.Process) -> bytes:
        assert process.stdin is not None  # noqa: S101 - both are pipes, as asked above
        assert process.stdout is not None  # noqa: S101
        with contextlib.suppress(ConnectionError):  # what it said before it died is still there
            process.stdin.write(b"\n")
            await process.stdin.drain()
        return await process.stdout.readline()

    async def _how_it_died(self, process: asyncio.subprocess.Process) -> _Ended:
        code = await _kill(process)
        how = f"was killed by signal {-code}" if code < 0 else f"ended with exit code {code}"
        return _Ended(f"the NVML helper process {how}")


def _stale(last: GpuSample, error: str) -> GpuSample:
    since = last.stale_since or last.taken_at
    return dataclasses.replace(last, stale_since=since, error=error, supported=True)


async def _kill(process: asyncio.subprocess.Process) -> int:
    """End the process and return its exit code.

    Without a time limit: while the driver holds it in the kernel, a second would hang beside it.
    """
    if process.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            # Not process.kill(): it polls, and takes the exit code away from asyncio's own watcher.
            os.kill(process.pid, signal.SIGKILL)
    return await process.wait()


def _understood(line: bytes) -> Mapping[str, Any] | _Ended:
    try:
        message: Mapping[str, Any] = json.loads(line)
    except ValueError:
        return _Ended("the NVML helper was cut off in the middle of an answer")
    if "fatal" in message:
        return _Ended(fault_in_words(message["fatal"], message["text"]), message["fatal"])
    return message
