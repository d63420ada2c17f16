"""What the ledger tells after known inferences at known times."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.gateway.ledger import FAILURES, Ledger, Outcome


def test_a_deployment_never_used_shows_zeros_and_no_latency():
    performance = Ledger().performance("d", 100.0)
    assert (performance.requests_per_second, performance.error_rate) == (0.0, 0.0)
    assert performance.avg_latency_ms is None
    assert performance.p95_latency_ms is None
    assert performance.totals.requests == {}


def test_a_steady_rate_is_seen_as_it_is():
    ledger = Ledger()
    for tick in range(600):
        ledger.record("d", Outcome.OK, 0.2, tick * 0.2)
    performance = ledger.performance("d", 119.99)
    assert performance.requests_per_second == pytest.approx(5.0, rel=0.1)
    assert performance.avg_latency_ms == pytest.approx(200)
    assert performance.p95_latency_ms == pytest.approx(200, rel=0.05)


def test_a_young_deployment_s_rate_counts_only_the_time_since_its_first_inference():
    ledger = Ledger()
    for tick in range(20):
        ledger.record("d", Outcome.OK, 0.1, 1000 + tick * 0.5)
    assert ledger.performance("d", 1010.0).requests_per_second == pytest.approx(2.0)


def test_the_last_minute_forgets_and_the_totals_do_not():
    ledger = Ledger()
    ledger.record("d", Outcome.PROVIDER_ERROR, 1.0, 0.0)
    ledger.record("d", Outcome.OK, 1.0, 0.0)
    performance = ledger.performance("d", 61.0)
    assert (performance.requests_per_second, performance.error_rate) == (0.0, 0.0)
    assert performance.totals.requests == {Outcome.PROVIDER_ERROR: 1, Outcome.OK: 1}
    assert performance.totals.latency_sum_seconds == 1.0


@pytest.mark.parametrize("outcome", Outcome)
def test_only_failures_of_model_and_appliance_count_as_errors(outcome: Outcome):
    ledger = Ledger()
    ledger.record("d", Outcome.OK, 0.1, 0.0)
    ledger.record("d", outcome, 0.1, 0.0)
    assert ledger.performance("d", 0.0).error_rate == (0.5 if outcome in FAILURES else 0.0)


def test_the_latency_is_of_answered_inferences_only():
    ledger = Ledger()
    ledger.record("d", Outcome.OK, 0.1, 0.0)
    ledger.record("d", Outcome.TIMEOUT, 60.0, 0.0)
    assert ledger.performance("d", 0.0).avg_latency_ms == pytest.approx(100)


def test_the_newest_revisions_are_told_apart_and_none_is_lost_from_the_totals():
    ledger = Ledger()
    for revision in range(1, 21):
        ledger.record("d", Outcome.OK, 0.1, 0.0, revision)
        ledger.record("d", Outcome.PROVIDER_ERROR, 0.1, 0.0, revision)
    by_revision = ledger.revision_totals()["d"]
    assert list(by_revision) == list(range(13, 21))
    assert by_revision[20].requests == {Outcome.OK: 1, Outcome.PROVIDER_ERROR: 1}
    assert ledger.totals()["d"].requests == {Outcome.OK: 20, Outcome.PROVIDER_ERROR: 20}
    assert sum(ledger.totals()["d"].latency_counts) == 20


def test_what_is_forgotten_is_gone():
    ledger = Ledger()
    ledger.record("d", Outcome.OK, 0.1, 0.0)
    ledger.forget("d")
    assert ledger.totals() == {}


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.sampled_from(Outcome), st.floats(0, 400)), max_size=60
    )
)
def test_the_totals_are_everything_that_was_recorded(records: list[tuple[str, Outcome, float]]):
    ledger = Ledger()
    for now, (deployment, outcome, seconds) in enumerate(records):
        ledger.record(deployment, outcome, seconds, float(now))
    for deployment, totals in ledger.totals().items():
        mine = [(outcome, took) for name, outcome, took in records if name == deployment]
        assert sum(totals.requests.values()) == len(mine)
        answered = [took for outcome, took in mine if outcome is Outcome.OK]
        assert sum(totals.latency_counts) == len(answered)
        assert totals.latency_sum_seconds == pytest.approx(sum(answered))
