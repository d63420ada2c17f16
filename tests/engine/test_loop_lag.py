"""The monitor tells how late the loop ran, with clocks that the test sets."""

import asyncio
import dataclasses
import logging
import time

import pytest

from prsmd.core.stalls import OWN, StallKind
from prsmd.engine.loop_lag import LoopLag
from tests.gateway.backends import until

INTERVAL = 0.05
EPOCH = 1_700_000_000.0


@dataclasses.dataclass
class Clocks:
    """What the three clocks show."""

    monotonic: float = 100.0
    boot: float = 100.0
    wall: float = EPOCH

    def pass_by(self, seconds: float) -> None:
        self.monotonic += seconds
        self.sleep(seconds)

    def sleep(self, seconds: float) -> None:
        """Let time pass while the machine is suspended."""
        self.boot += seconds
        self.wall += seconds


@pytest.fixture
def clocks() -> Clocks:
    return Clocks()


@pytest.fixture
def lag(clocks: Clocks) -> LoopLag:
    lag = LoopLag(lambda: clocks.wall, lambda: clocks.monotonic, lambda: clocks.boot)
    lag.tick()
    return lag


def on_time(clocks: Clocks, lag: LoopLag, ticks: int) -> None:
    for _ in range(ticks):
        clocks.pass_by(INTERVAL)
        lag.tick()


def test_a_loop_on_time_has_no_stalls(clocks: Clocks, lag: LoopLag) -> None:
    on_time(clocks, lag, 100)
    assert lag.stalls() == ()
    assert lag.unknown(100.0) is None
    assert lag.lag().worst_seconds == 0


def test_a_late_wake_up_is_remembered_and_counted(clocks: Clocks, lag: LoopLag) -> None:
    on_time(clocks, lag, 10)
    began = lag.now()
    clocks.pass_by(3 + INTERVAL)
    lag.tick()

    assert lag.unknown(began, OWN) is not None
    assert lag.lag().worst_seconds == pytest.approx(3)
    assert lag.lag().lost_seconds[StallKind.LOOP] == pytest.approx(3)
    on_time(clocks, lag, 10)
    assert lag.unknown(lag.now() - 0.4) is None, "what began after it is fair"


def test_a_deadline_is_judged_before_the_late_wake_up_came(clocks: Clocks, lag: LoopLag) -> None:
    clocks.pass_by(3)
    assert lag.unknown(lag.now() - 2) is not None


def test_a_loop_that_is_slow_all_the_time_is_remembered_as_few_stalls(
    clocks: Clocks, lag: LoopLag
) -> None:
    began = lag.now()
    for _ in range(10_000):
        clocks.pass_by(INTERVAL + 0.03)
        lag.tick()
    assert len(lag.stalls()) < 200
    assert lag.unknown(began) is not None
    assert lag.unknown(lag.now() - 5) is not None


def test_what_is_remembered_is_bounded(clocks: Clocks, lag: LoopLag) -> None:
    for _ in range(5000):
        clocks.pass_by(2)
        lag.tick()
    assert len(lag.stalls()) <= 1024


@pytest.mark.parametrize("noticed", [False, True], ids=["before the tick", "after it"])
@pytest.mark.parametrize("kind", [StallKind.SUSPENDED, StallKind.CLOCK])
def test_time_that_only_the_wall_clock_knows_is_lost_on_it_and_nowhere_else(
    clocks: Clocks, lag: LoopLag, kind: StallKind, *, noticed: bool
) -> None:
    on_time(clocks, lag, 3)
    before = lag.now()
    if kind is StallKind.SUSPENDED:
        clocks.sleep(3600)
    else:
        clocks.wall += 3600
    if noticed:
        on_time(clocks, lag, 1)

    (stall,) = lag.stalls()
    assert stall.kind is kind
    assert stall.lost_on_clock(EPOCH, clocks.wall) == pytest.approx(3600)
    assert lag.unknown(before) is None, "deadlines are measured on a clock that stood still"


def test_an_engine_is_silent_from_its_first_look_in_vain_until_it_answers(
    clocks: Clocks, lag: LoopLag
) -> None:
    began = lag.now()
    for _ in range(3):
        lag.look_began()
        on_time(clocks, lag, 40)
        lag.look_ended(answered=False)
        on_time(clocks, lag, 20)
    assert lag.unknown(lag.now() - 1) is not None, "it is silent between two looks"
    assert lag.unknown(began, OWN) is None
    lag.look_began()
    lag.look_ended(answered=True)
    on_time(clocks, lag, 40)
    assert lag.unknown(lag.now() - 1) is None
    (stall,) = lag.stalls()
    assert (stall.kind, stall.began) == (StallKind.ENGINE, began)


def test_a_look_that_takes_long_counts_before_it_has_failed(clocks: Clocks, lag: LoopLag) -> None:
    lag.look_began()
    on_time(clocks, lag, 40)
    assert lag.unknown(lag.now() - 1) is not None


def test_a_look_that_nobody_could_hear_says_nothing_of_the_engine(
    clocks: Clocks, lag: LoopLag
) -> None:
    lag.look_began()
    on_time(clocks, lag, 40)
    lag.look_ended(answered=None)
    assert lag.stalls() == ()


def test_stalls_are_told_in_one_line_in_ten_seconds(
    clocks: Clocks, lag: LoopLag, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    for _ in range(8):
        clocks.pass_by(1 + INTERVAL)
        lag.tick()
    assert len(caplog.messages) == 1
    assert caplog.messages[0].startswith("the event loop stood still for 1 s;")
    on_time(clocks, lag, 100)
    assert len(caplog.messages) == 2
    assert "for 1 s (7 times, 7 s in all)" in caplog.messages[1]
    on_time(clocks, lag, 1000)
    assert len(caplog.messages) == 2


async def test_a_callback_that_blocks_a_real_loop_is_seen_by_whoever_runs_next() -> None:
    lag = LoopLag()
    task = asyncio.create_task(lag.run(), name="loop-lag")
    await asyncio.sleep(0)
    began = lag.now()
    time.sleep(0.3)  # noqa: ASYNC251 - this is what is measured
    assert lag.unknown(began, OWN) is not None
    await until(lambda: lag.lag().worst_seconds > 0.1)
    task.cancel()
    await asyncio.wait({task})


@pytest.mark.parametrize("step", [3600.0, -3600.0])
def test_a_clock_that_is_set_is_told_once_ahead_or_back(
    clocks: Clocks, lag: LoopLag, step: float
) -> None:
    told: list[float] = []
    lag.on_clock_set.append(lambda: told.append(clocks.wall))
    on_time(clocks, lag, 2)
    assert told == []
    clocks.wall += step
    on_time(clocks, lag, 3)
    assert len(told) == 1
