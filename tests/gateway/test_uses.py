"""Sums of use: what is added up, what is refused, and what has no room."""

from prsmd.core.meter import DAY_SECONDS
from prsmd.gateway.tape import InferenceNote, Tape
from prsmd.gateway.uses import Uses

NOTE = InferenceNote(
    at=10.5 * DAY_SECONDS,
    principal="key:k1",
    organization="partner",
    owner="acme",
    model_id="custom_legal",
    deployment_id="d1",
    revision=1,
    outcome="ok",
    seconds=0.5,
    request_bytes=10,
    answer_bytes=20,
    request_id="r",
    reached=True,
)


def test_inferences_add_up_by_day_model_and_principal():
    uses = Uses()
    for note in (NOTE, NOTE, NOTE._replace(at=11.5 * DAY_SECONDS), NOTE._replace(principal="x")):
        uses.note(note)
    first, later, other = uses.take(10**6)
    assert (first.day, first.requests, first.errors, first.refused) == (10, 2, 0, 0)
    assert (first.seconds, first.request_bytes, first.answer_bytes) == (1.0, 20, 40)
    assert (later.day, later.requests, other.principal) == (11, 1, "x")
    assert (first.owner, first.model_id, first.organization) == ("acme", "custom_legal", "partner")
    assert uses.take(10**6) == []


def test_what_failed_is_a_request_and_what_reached_no_container_is_none():
    uses = Uses()
    uses.note(NOTE._replace(outcome="provider_error"))
    uses.note(NOTE._replace(outcome="cancelled"))
    uses.note(NOTE._replace(outcome="queue_full", reached=False))
    (use,) = uses.take(10**6)
    assert (use.requests, use.errors, use.refused) == (2, 1, 1)


def test_an_inference_with_no_model_is_nobodys_use_and_still_noted():
    tape = Tape()
    uses = Uses(tape)
    uses.note(NOTE._replace(deployment_id="", outcome="denied"))
    assert uses.take(10**6) == []
    assert len(tape) == 1


def test_what_could_not_be_stored_is_added_to_what_came_since():
    uses = Uses()
    uses.note(NOTE)
    taken = uses.take(10**6)
    uses.note(NOTE)
    uses.put_back(taken)
    (use,) = uses.take(10**6)
    assert (use.requests, use.seconds, use.answer_bytes) == (2, 1.0, 40)


def test_what_has_no_room_is_counted():
    uses = Uses(capacity=1)
    uses.note(NOTE)
    uses.note(NOTE._replace(principal="x"))
    assert uses.lost == 1
    assert len(uses.take(10**6)) == 1
