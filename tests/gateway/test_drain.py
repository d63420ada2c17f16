"""Stopping: nothing new is accepted, nothing accepted is lost."""

import asyncio

import pytest

from prsmd.domain.errors import PrsmdError, ResourceUnavailableError
from prsmd.gateway.infer import Gateway
from tests.gateway.backends import Gated, Raw, route, table, until
from tests.support.asking import asking


def ask(gateway: Gateway, number: int) -> "asyncio.Task[object]":
    found = gateway.find("acme", "custom_a")
    assert found is not None
    inference = asking(inputs=number, request_id=str(number))
    return asyncio.create_task(gateway.infer(found, inference), name=f"infer-{number}")


async def test_draining_answers_everything_that_was_accepted_the_queue_included(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=4, queue_depth=100)))
        accepted = [ask(gateway, number) for number in range(50)]
        await backend.wait_inside(4)
        drain = asyncio.create_task(gateway.drain(30), name="drain")
        await until(lambda: "stopping" in repr(gateway))
        with pytest.raises(ResourceUnavailableError, match="the daemon is stopping"):
            await ask(gateway, 99)
        assert not drain.done()
        backend.let_through(50)
        assert await drain == 0
        assert all(task.done() and task.exception() is None for task in accepted)
        assert len(backend.requests) == 50


async def test_draining_gives_up_in_time_and_says_how_many_are_left(gateway: Gateway):
    async with Gated() as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        tasks = [ask(gateway, number) for number in range(3)]
        await backend.wait_inside(1)
        assert await gateway.drain(0.01) == 3
        backend.let_through(3)
        await asyncio.gather(*tasks)


async def test_draining_an_idle_gateway_is_over_at_once(gateway: Gateway):
    assert await gateway.drain(0.0) == 0


async def test_closing_answers_everyone_with_an_error(gateway: Gateway):
    async with Raw(b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{", linger=True) as backend:
        gateway.publish(table(route(backend.target, max_concurrency=1)))
        tasks = [ask(gateway, number) for number in range(3)]
        await until(lambda: backend.connections == 1)
        await gateway.close()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(result, PrsmdError) for result in results), results
        assert gateway.in_flight() == {"raw": 0}
