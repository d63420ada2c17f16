"""The words for how a replica ended, as status, events and log share them."""

import pytest

from prsmd.core.exits import cause_words, liveness_failed, lost, startup_timeout
from prsmd.core.plan import Probe
from prsmd.domain.replica import ExitKind
from tests.core.cases import failed


@pytest.mark.parametrize(
    ("probe", "words"),
    [
        (Probe(ready=False, last_error="/health answered 503"), "/health answered 503"),
        (Probe(ready=False), "it was never reached"),
    ],
)
def test_a_startup_timeout_says_how_long_and_what_the_probe_met(probe, words):
    cause = startup_timeout(2.5, probe)
    assert cause.kind is ExitKind.STARTUP_TIMEOUT
    assert cause.message == f"not ready within its startup timeout of 2.5 s: {words}"


def test_liveness_says_how_often_even_without_an_error():
    cause = liveness_failed(Probe(ready=False, failures=4))
    assert cause.message == "failed 4 liveness checks in a row"


def test_a_lost_container_has_no_exit_code():
    assert (lost().kind, lost().exit_code) == (ExitKind.LOST, None)


def test_the_words_of_an_ended_replica_are_those_of_its_cause():
    assert cause_words(failed()) == "exited with code 3"
    assert cause_words(failed(exit=None)) == "for an unknown reason"
