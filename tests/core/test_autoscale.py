"""The autoscaler's decisions: a table of cases, then properties over generated loads."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.autoscale import (
    AutoscaleInputs,
    AutoscaleSettings,
    GpuUse,
    Hold,
    Need,
    Scale,
    recommend,
    remember,
)
from prsmd.domain.spec import Scaling

NOW = 10_000.0
SETTINGS = AutoscaleSettings()
LONG_AGO = Need(at=NOW - 400, replicas=1)


def inputs(average: float = 0.0, current: int = 2, **changes: object) -> AutoscaleInputs:
    """Two ready replicas of 8 slots, a calm and covered down window, fresh measurements."""
    scaling = Scaling(
        min_replicas=changes.pop("least", 1),
        max_replicas=changes.pop("most", 10),
        target_utilization=changes.pop("target", 0.7),
        scale_to_zero_after_seconds=changes.pop("zero_after", 300.0),
    )
    values: dict[str, object] = {
        "scaling": scaling,
        "current": current,
        "ready": current,
        "slots_per_replica": 8,
        "in_flight": round(average),
        "queued": 0,
        "average": average,
        "sampled_at": NOW,
        "history": (LONG_AGO,),
        **changes,
    }
    return AutoscaleInputs(**values)


def scaled(verdict: Scale | Hold) -> int:
    assert isinstance(verdict, Scale), verdict
    return verdict.recommendation.replicas


UP = {
    "88 % of the slots": (inputs(14), 3),
    "everything full and a queue": (inputs(40), 6),
    "the GPU is busier than the slots": (inputs(2, gpu=GpuUse(utilization=0.95)), 3),
    "the slots are busier than the GPU": (inputs(14, gpu=GpuUse(utilization=0.2)), 3),
    "at most +4 at once": (inputs(400, current=2, most=100), 6),
    "at most doubled at once": (inputs(4000, current=20, most=100), 40),
    "not above max_replicas": (inputs(400, current=2, most=3), 3),
    "below min_replicas": (inputs(0, current=1, least=3), 3),
    "from zero to one at once": (inputs(50, current=0, least=0, queued=1), 1),
    "a full node still starting, but demand alone asks for more": (
        inputs(30, current=3, ready=1, in_flight=8, queued=22), 6,
    ),
    "nothing ready yet and demand alone asks for more": (
        inputs(30, current=1, ready=0, in_flight=0, queued=30), 5,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "replicas"), UP.values(), ids=UP)
def test_up(given_: AutoscaleInputs, replicas: int):
    assert scaled(recommend(given_, SETTINGS, NOW)) == replicas


DOWN = {
    "a third of the load": (inputs(4), 1),
    "above max_replicas": (inputs(14, most=1), 1),
    "to min_replicas, not further": (inputs(0, current=5, least=2), 2),
    "to the most that the window needed": (
        inputs(0, current=5, history=(LONG_AGO, Need(at=NOW - 100, replicas=3))), 3,
    ),
    "what was needed before the window does not count": (
        inputs(0, current=5, history=(Need(at=NOW - 300, replicas=5),)), 1,
    ),
    "a replica that never gets ready does not keep the others": (inputs(0, current=5, ready=4), 1),
    "to zero after the idle time": (inputs(0, least=0, idle_since=NOW - 300), 0),
    "to zero even inside the window": (
        inputs(0, least=0, zero_after=60.0, idle_since=NOW - 60, history=()), 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize(("given_", "replicas"), DOWN.values(), ids=DOWN)
def test_down(given_: AutoscaleInputs, replicas: int):
    assert scaled(recommend(given_, SETTINGS, NOW)) == replicas


HOLDS = {
    "in-flight 11 of 16 slots = 69 % against target 70 %: within 10 % of 2": inputs(11),
    "in-flight 160 of 16 slots = 1000 % against target 70 %, but 29 needed, max_replicas is 2": (
        inputs(160, most=2)
    ),
    "in-flight 0 of 8 slots = 0 % against target 70 %: 1 is the least": inputs(0, current=1),
    "in-flight 0 of 16 slots = 0 % against target 70 %: 2 is the least": inputs(0, least=2),
    "in-flight 7.5 of 16 slots = 47 % against target 70 %: 2 needed": inputs(7.5),
    "in-flight 0 of 16 slots = 0 % against target 70 %: 1 would do,"
    " but 4 were needed within 300 s": (
        inputs(0, history=(LONG_AGO, Need(at=NOW - 10, replicas=4)))
    ),
    "in-flight 0 of 16 slots = 0 % against target 70 %: 1 would do,"
    " but the last 300 s are not known yet": inputs(0, history=(Need(at=NOW - 10, replicas=1),)),
    "in-flight 13 of 8 slots = 162 % against target 70 %, but 1 replica still starting": (
        inputs(13, ready=1, in_flight=8)
    ),
    "13 requests waiting, no replica ready, but 2 replicas still starting": (
        inputs(13, ready=0, in_flight=0)
    ),
    "GPU telemetry is stale since 42 s: holding at 2": (
        inputs(160, gpu=GpuUse(utilization=1.0, stale_since=NOW - 42))
    ),
    "the load was last measured 20 s ago: holding at 2": inputs(160, sampled_at=NOW - 20),
    "scaled to zero, and no request is waiting": inputs(0, current=0, least=0),
    "in-flight 0 of 8 slots = 0 % against target 70 % (its GPUs report no utilization):"
    " 1 is the least": inputs(0, current=1, gpu=GpuUse(utilization=None)),
}


@pytest.mark.parametrize(("reason", "given_"), HOLDS.items(), ids=range(len(HOLDS)))
def test_a_hold_says_why_in_numbers(reason: str, given_: AutoscaleInputs):
    verdict = recommend(given_, SETTINGS, NOW)
    assert isinstance(verdict, Hold), verdict
    assert verdict.reason == reason


REASONS = {
    ("in-flight 14 of 16 slots = 88 % against target 70 %: 2 → 3",): inputs(14),
    ("GPU 95 % against target 70 %: 2 → 3",): inputs(2, gpu=GpuUse(utilization=0.95)),
    (
        "in-flight 400 of 16 slots = 2500 % against target 70 %: 2 → 5",
        "72 needed, at most 6 in one step",
        "72 needed, max_replicas is 5",
    ): inputs(400, most=5),
    ("30 requests in flight or queued now need 6: 3 → 6",): (
        inputs(30, current=3, ready=1, in_flight=8, queued=22)
    ),
    ("3 requests waiting for a replica: 0 → 1",): inputs(0, current=0, least=0, queued=3),
    ("idle for 301 s (scale to zero after 300 s): 2 → 0",): (
        inputs(0, least=0, idle_since=NOW - 301)
    ),
    (
        "in-flight 0 of 40 slots = 0 % against target 70 %: 5 → 3",
        "3 were needed within 300 s",
    ): inputs(0, current=5, history=(LONG_AGO, Need(at=NOW - 100, replicas=3))),
    ("min_replicas is 3: 1 → 3",): inputs(0, current=1, least=3),
}


@pytest.mark.parametrize(("reasons", "given_"), REASONS.items(), ids=range(len(REASONS)))
def test_a_recommendation_gives_its_reasons_in_numbers(
    reasons: tuple[str, ...], given_: AutoscaleInputs
):
    verdict = recommend(given_, SETTINGS, NOW)
    assert isinstance(verdict, Scale), verdict
    assert verdict.recommendation.reasons == reasons
    assert verdict.recommendation.at == NOW


def test_the_utilization_shown_is_the_one_that_governs():
    verdict = recommend(inputs(4, gpu=GpuUse(utilization=0.95)), SETTINGS, NOW)
    assert isinstance(verdict, Scale)
    assert verdict.recommendation.utilization == 0.95
    nothing_ready = recommend(inputs(8, ready=0), SETTINGS, NOW)
    assert isinstance(nothing_ready, Hold)
    assert nothing_ready.utilization is None


def test_the_history_keeps_the_window_and_one_entry_before_it():
    hold = Hold(reason="", needed=2)
    history: tuple[Need, ...] = ()
    for at in range(0, 1000, 10):
        history = remember(history, hold, SETTINGS, float(at))
    assert [history[0].at, history[1].at, history[-1].at] == [690.0, 700.0, 990.0]


LOADS = st.builds(
    inputs,
    average=st.floats(0, 500),
    current=st.integers(0, 40),
    least=st.integers(0, 5),
    most=st.integers(5, 40),
    target=st.floats(0.05, 1.0),
    ready=st.integers(0, 40),
    in_flight=st.integers(0, 300),
    queued=st.integers(0, 300),
    slots_per_replica=st.integers(1, 64),
    gpu=st.none() | st.builds(GpuUse, utilization=st.none() | st.floats(0, 1)),
    idle_since=st.none() | st.floats(NOW - 1000, NOW),
    history=st.lists(
        st.builds(Need, at=st.floats(NOW - 900, NOW), replicas=st.integers(0, 40)), max_size=8
    ).map(lambda needs: tuple(sorted(needs, key=lambda need: need.at))),
).map(lambda made: dataclasses.replace(made, ready=min(made.ready, made.current)))


def after(verdict: Scale | Hold, current: int) -> int:
    return verdict.recommendation.replicas if isinstance(verdict, Scale) else current


@given(LOADS)
def test_a_recommendation_is_inside_the_bounds_and_changes_something(given_: AutoscaleInputs):
    verdict = recommend(given_, SETTINGS, NOW)
    if isinstance(verdict, Scale):
        assert given_.scaling.min_replicas <= verdict.recommendation.replicas
        assert verdict.recommendation.replicas <= given_.scaling.max_replicas
        assert verdict.recommendation.replicas != given_.current
        assert verdict.recommendation.reasons


@given(LOADS)
def test_one_step_up_is_bounded_unless_min_replicas_asks_for_more(given_: AutoscaleInputs):
    replicas = after(recommend(given_, SETTINGS, NOW), given_.current)
    assert replicas <= max(given_.scaling.min_replicas, 2 * given_.current, given_.current + 4)


@given(LOADS, st.floats(0, 200), st.integers(0, 100))
def test_more_load_never_means_fewer_replicas(given_: AutoscaleInputs, more: float, queue: int):
    given_ = dataclasses.replace(given_, idle_since=None)
    busier = dataclasses.replace(
        given_, average=given_.average + more, queued=given_.queued + queue
    )
    less = after(recommend(given_, SETTINGS, NOW), given_.current)
    assert after(recommend(busier, SETTINGS, NOW), given_.current) >= less


@given(LOADS, st.floats(0, 500))
def test_stale_telemetry_never_scales_within_the_bounds(given_: AutoscaleInputs, age: float):
    bounds = given_.scaling
    current = min(max(given_.current, bounds.min_replicas, 1), bounds.max_replicas)
    stale = dataclasses.replace(
        given_, current=current, gpu=GpuUse(utilization=1.0, stale_since=NOW - age)
    )
    verdict = recommend(stale, SETTINGS, NOW)
    assert isinstance(verdict, Hold)
    assert "stale" in verdict.reason
    assert verdict.needed == current


@given(LOADS)
def test_only_long_idleness_leads_to_zero(given_: AutoscaleInputs):
    verdict = recommend(given_, SETTINGS, NOW)
    if isinstance(verdict, Scale) and verdict.recommendation.replicas == 0:
        assert given_.scaling.min_replicas == 0
        assert given_.idle_since is not None
        assert NOW - given_.idle_since >= given_.scaling.scale_to_zero_after_seconds


@given(
    st.lists(
        st.tuples(st.floats(0, 300), st.integers(0, 3), st.floats(1, 120)),
        min_size=20,
        max_size=60,
    )
)
def test_whatever_the_load_does_nothing_is_taken_down_within_the_window_of_going_up(
    steps: list[tuple[float, int, float]],
):
    history: tuple[Need, ...] = ()
    current, now, went_up_at = 1, NOW, -1e9
    for average, starting, pause in steps:
        now += pause
        seen = inputs(
            average,
            current=current,
            ready=max(0, current - starting),
            least=1,
            most=20,
            sampled_at=now,
            history=history,
        )
        verdict = recommend(seen, SETTINGS, now)
        history = remember(history, verdict, SETTINGS, now)
        wanted = after(verdict, current)
        if wanted < current:
            assert now - went_up_at >= SETTINGS.down_window_seconds
        if wanted > current:
            went_up_at = now
        current = wanted


def test_a_steady_load_settles_and_stays():
    history: tuple[Need, ...] = ()
    current, seen = 1, []
    for tick in range(200):
        now = NOW + tick * 5
        given_ = inputs(31, current=current, sampled_at=now, history=history)
        verdict = recommend(given_, SETTINGS, now)
        history = remember(history, verdict, SETTINGS, now)
        current = after(verdict, current)
        seen.append(current)
    assert seen[:2] == [5, 6]
    assert set(seen[1:]) == {6}
