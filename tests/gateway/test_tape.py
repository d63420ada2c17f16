"""What the audit hears of inferences: how each ended, bounded, and never a payload."""

import asyncio

import pytest
from aiohttp import web

from prsmd.domain.errors import ProviderError, ResourceUnavailableError
from prsmd.gateway.infer import Gateway
from prsmd.gateway.tape import InferenceNote, Tally, Tape
from tests.gateway.backends import Backend, Gated, route, table
from tests.gateway.test_streams import EVENTS, Streaming
from tests.support.asking import asking

SECRET = "the payload that no audit may hold"


def note(**changes):
    values = {
        "at": 1.0, "principal": "key:a", "organization": "acme", "owner": "acme",
        "model_id": "custom_a", "deployment_id": "deploy_a", "revision": 3, "outcome": "ok",
        "seconds": 0.5, "request_bytes": 10, "answer_bytes": 20, "request_id": "r",
    }  # fmt: skip
    return InferenceNote(**{**values, **changes})


@pytest.fixture
async def heard():
    """A gateway and the tape that hears it."""
    tape = Tape()
    gateway = Gateway(notes=tape)
    await gateway.start()
    yield gateway, tape
    await gateway.close()


async def failing(request):
    return web.Response(status=500)


def asked_by(**more):
    return asking(
        inputs=SECRET, request_id="req-1", client="key:a", organization="borrower", **more
    )


async def test_an_answered_inference_is_noted_with_its_sizes_and_without_its_payload(heard):
    gateway, tape = heard
    async with Backend() as backend:
        published = route(backend.target)
        gateway.publish(table(published))
        await gateway.infer(published, asked_by())
    [found] = tape.take(9)
    assert found[1:8] == ("key:a", "borrower", "acme", "custom_a", "deploy_a", 1, "ok")
    assert found.request_bytes == backend.requests[0].content_length
    assert found.answer_bytes == len('{"outputs": {"replica": "r1"}}')
    assert 0 < found.seconds < 60
    assert found.request_id == "req-1"
    assert SECRET not in repr(found)


async def test_a_stream_is_noted_once_at_its_end_with_all_that_passed(heard):
    gateway, tape = heard
    async with Streaming() as backend:
        published = route(backend.target)
        gateway.publish(table(published))
        result = await gateway.infer(published, asked_by(stream=True))
        assert len(tape) == 0
        async with result.stream as stream:
            for _ in EVENTS:
                backend.step.release()
            assert [chunk async for chunk in stream]
    [found] = tape.take(9)
    assert (found.outcome, found.answer_bytes) == ("ok", sum(map(len, EVENTS)))


async def test_what_failed_was_refused_or_given_up_is_noted_as_that(heard):
    gateway, tape = heard
    async with Backend(handler=failing) as backend:
        published = route(backend.target)
        gateway.publish(table(published))
        with pytest.raises(ProviderError):
            await gateway.infer(published, asked_by())
    async with Gated() as backend:
        published = route(backend.target)
        gateway.publish(table(published))
        waiting = asyncio.create_task(gateway.infer(published, asked_by()), name="given-up")
        await backend.wait_inside(1)
        waiting.cancel()
        await asyncio.wait([waiting])
    gateway.note_refused(asked_by(), "custom_secret", "denied")
    assert [each.outcome for each in tape.take(9)] == ["provider_error", "cancelled", "denied"]


async def test_what_a_stopping_daemon_refuses_is_noted(heard):
    gateway, tape = heard
    async with Backend() as backend:
        published = route(backend.target)
        gateway.publish(table(published))
        await gateway.drain(1.0)
        with pytest.raises(ResourceUnavailableError):
            await gateway.infer(published, asked_by())
    assert [each.outcome for each in tape.take(9)] == ["unavailable"]


def test_a_tape_keeps_order_is_bounded_and_counts_what_it_lost():
    tape = Tape(capacity=3)
    for number in range(5):
        tape.note(note(at=float(number)))
    assert (len(tape), tape.lost) == (3, 2)
    assert [each.at for each in tape.take(2)] == [0.0, 1.0]
    tape.note(note(at=9.0))
    assert [each.at for each in tape.take(9)] == [2.0, 9.0]
    assert tape.take(9) == []


def test_a_tally_adds_up_what_is_alike_and_nothing_else():
    tally = Tally(capacity=2)
    tally.note(note(at=1.0, request_id="one"))
    tally.note(note(at=2.0, request_id="two"))
    tally.note(note(outcome="timeout"))
    tally.note(note(revision=4))
    first, second = tally.take(9)
    assert (first.requests, first.seconds, first.answer_bytes, first.at) == (2, 1.0, 40, 1.0)
    assert first.request_id == ""
    assert (second.outcome, second.requests) == ("timeout", 1)
    assert (len(tally), tally.lost) == (0, 1)
