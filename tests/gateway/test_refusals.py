"""Inferences that reached no container do not push others out of the audit."""

import pytest

from prsmd.core.coalesce import Shares
from prsmd.gateway.refusals import Refusals
from prsmd.gateway.tape import InferenceNote, Tally, Tape

NOTE = InferenceNote(10.0, "key:a", "acme", "", "", "", 0, "denied", 0.0, 0, 0, "r", address="::1")


def refusals(inner=None):
    clock = [0.0]
    made = Refusals(inner or Tape(), Shares(each=2, caller=4, kinds=2), lambda: clock[0])
    return made, clock


@pytest.mark.parametrize("outcome", ["denied", "limited", "unavailable", "queue_full", "invalid"])
def test_a_flood_of_one_kind_is_two_notes_and_one_sum(outcome):
    notes, clock = refusals()
    for n in range(1000):
        notes.note(NOTE._replace(outcome=outcome, at=float(n)))
    assert len(notes.take(5000)) == 2
    clock[0] = 60.0
    [found] = notes.take(5000)
    assert (found.requests, found.at, found.last_at) == (998, 2.0, 999.0)
    assert (found.outcome, found.request_id) == (outcome, "")


def test_names_of_models_that_are_not_there_make_no_sums_of_their_own():
    notes, clock = refusals(Tally())
    for n in range(1000):
        notes.note(NOTE._replace(model_id=f"guess-{n}"))
    clock[0] = 60.0
    assert sum(each.requests for each in notes.take(5000)) == 1000
    for n in range(1000):
        notes.note(NOTE._replace(model_id=f"guess-{n}", outcome=f"o{n % 7}", deployment_id=str(n)))
    clock[0] = 120.0
    found = notes.take(5000)
    assert len(found) <= 7
    assert sum(each.requests for each in found) == 1000


def test_what_a_container_saw_is_always_noted_itself():
    notes, _ = refusals()
    for _ in range(1000):
        notes.note(NOTE._replace(outcome="ok", reached=True))
    assert len(notes.take(5000)) == 1000


def test_at_the_end_the_sums_are_ready_at_once():
    notes, _ = refusals()
    for _ in range(10):
        notes.note(NOTE)
    notes.finish()
    assert sum(each.requests for each in notes.take(5000)) == 10
    assert len(notes) == 0
