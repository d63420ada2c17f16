"""What inferences are counted in: nothing for those that wait or reach no container."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from prsmd.core.blocks import Window, lease
from prsmd.core.meter import Meter, Refuse
from prsmd.domain.errors import (
    PrsmdError,
    QueueFullError,
    QuotaExceededError,
    ResourceUnavailableError,
)
from prsmd.domain.quota import UsageLimits
from prsmd.gateway.infer import Gateway, InferenceResult, Outcome
from prsmd.gateway.meters import Meters
from tests.gateway.backends import Gated, nobody_listens, route, table, until
from tests.support.asking import asking
from tests.support.exhausted import no_descriptors


class Bank:
    """Meters with a store in memory. `shut`: it answers nothing."""

    def __init__(self) -> None:
        self.meters = Meters({}, patience_seconds=0.05)
        self.open = asyncio.Event()
        self.open.set()
        self._reserved: dict[int, int] = {}

    async def run(self) -> None:
        while True:
            await self.meters.wanted.wait()
            await self.open.wait()
            due = self.meters.collect()
            for meter in due:
                for window in meter.windows:
                    ask = window.ask(meter.account)
                    before, after = lease(ask, self._reserved.get(ask.day, 0))
                    self._reserved[ask.day] = after
                    window.learn(before, after)
            self.meters.answered(due)

    def meter(self, limit: int) -> Meter:
        return self.meters.meter("s/o", UsageLimits(total_requests=limit))

    @property
    def window(self) -> Window:
        [window] = self._meter.windows
        return window

    @property
    def _meter(self) -> Meter:
        meter = self.meters._meters.get("s/o")
        assert meter is not None
        return meter


@pytest.fixture
async def bank() -> AsyncIterator[Bank]:
    bank = Bank()
    task = asyncio.create_task(bank.run(), name="bank")
    yield bank
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


def limited(refusal: Refuse) -> PrsmdError:
    return QuotaExceededError("used up", limit=refusal.limit)


async def ask(gateway: Gateway, bank: Bank, limit: int) -> "asyncio.Task[InferenceResult]":
    found = gateway.find("acme", "custom_a")
    assert found is not None
    held = await bank.meters.admit("s/o", UsageLimits(total_requests=limit), limited)
    inference = asking(inputs="x", request_id="r")
    return asyncio.create_task(gateway.infer(found, inference, (held,)), name="infer")


async def test_who_waits_in_the_queue_has_a_place_and_spends_when_its_turn_comes(gateway, bank):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=2, queue_depth=10)))
        asked = [await ask(gateway, bank, 8) for _ in range(8)]
        await backend.wait_inside(2)
        await until(lambda: gateway.load("deploy_a").queued == 6)
        assert (bank.window.used, bank.window.places) == (2, 6)
        with pytest.raises(QuotaExceededError):
            await ask(gateway, bank, 8)
        backend.let_through(8)
        await asyncio.gather(*asked)
        assert (bank.window.used, bank.window.places, len(backend.requests)) == (8, 0, 8)


async def test_who_is_refused_or_goes_away_has_spent_nothing(gateway, bank):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1, queue_depth=1)))
        inside, queued = [await ask(gateway, bank, 50) for _ in range(2)]
        await backend.wait_inside(1)
        with pytest.raises(QueueFullError):
            await (await ask(gateway, bank, 50))
        queued.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await queued
        assert (bank.window.used, bank.window.places) == (1, 0)
        backend.let_through()
        await inside


async def test_where_no_connection_comes_about_nothing_is_spent(gateway, bank):
    gateway.publish(table(route(nobody_listens(), request_timeout_seconds=0.2)))
    with pytest.raises(ResourceUnavailableError):
        await (await ask(gateway, bank, 5))
    assert (bank.window.used, bank.window.places) == (0, 0)


async def test_where_nothing_can_connect_for_want_of_descriptors_nothing_is_spent(gateway, bank):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target)))
        asked = await ask(gateway, bank, 5)
        with no_descriptors(), pytest.raises(ResourceUnavailableError):
            await asked
        assert (bank.window.used, bank.window.places) == (0, 0)


async def test_a_limit_that_was_lowered_refuses_who_waits_beyond_it_and_frees_the_slot(
    gateway, bank
):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1, queue_depth=10)))
        asked = [await ask(gateway, bank, 9) for _ in range(9)]
        await backend.wait_inside(1)
        bank.meter(4)
        backend.let_through(9)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert sum(isinstance(one, InferenceResult) for one in ended) == 4
        assert sum(isinstance(one, QuotaExceededError) for one in ended) == 5
        assert len(backend.requests) == bank.window.used == 4
        assert gateway.in_flight() == {"r1": 0}
        totals = gateway.totals()["deploy_a"].requests
        assert totals == {Outcome.OK: 4, Outcome.LIMITED: 5}


async def test_a_store_that_does_not_answer_keeps_no_slot_for_long(gateway, bank):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1, queue_depth=10)))
        asked = [await ask(gateway, bank, 12) for _ in range(3)]
        await backend.wait_inside(1)
        await until(lambda: not bank.meters.wanted.is_set())
        bank.open.clear()
        backend.let_through(9)
        ended = await asyncio.gather(*asked, return_exceptions=True)
        assert any(isinstance(one, ResourceUnavailableError) for one in ended)
        assert gateway.in_flight() == {"r1": 0}
        bank.open.set()
        await (await ask(gateway, bank, 12))
