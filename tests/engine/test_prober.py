"""The prober asks real HTTP servers on loopback; each is asked on its own."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from prsmd.core.plan import Probe
from prsmd.domain.replica import Endpoint
from prsmd.engine.prober import Prober, ProberSettings, ProbeTarget
from tests.gateway.backends import Raw, nobody_listens, until
from tests.support.exhausted import no_descriptors


class Answers:
    """A server that answers with `status`, or never while `hung`."""

    def __init__(self) -> None:
        self.status = 200
        self.asked = 0
        self.hung: asyncio.Event | None = None

    async def start(self) -> Endpoint:
        app = web.Application()
        app.router.add_get("/health", self._answer)
        self.runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
        await self.runner.setup()
        await web.TCPSite(self.runner, "127.0.0.1", 0).start()
        return Endpoint("127.0.0.1", self.runner.addresses[0][1])

    async def stop(self) -> None:
        """Answer who waits, and end. Nobody may connect any more.

        asyncio leaks a connection whose acceptance is under way when its listener closes.
        """
        if self.hung is not None:
            self.hung.set()
        for _ in range(5):
            await asyncio.sleep(0)
        await self.runner.cleanup()

    async def _answer(self, _: web.Request) -> web.Response:
        self.asked += 1
        if self.hung is not None:
            await self.hung.wait()
        return web.Response(status=self.status)


class Watched:
    """A running prober and how often it told of a change."""

    def __init__(self, **settings: float) -> None:
        self.changes = 0
        self.in_flight: dict[str, int] = {}
        values = {"interval_seconds": 0.005, "eager_seconds": 0.005, "timeout_seconds": 5.0}
        self.prober = Prober(
            ProberSettings(**{**values, **settings}), self._note, lambda: self.in_flight
        )

    def _note(self) -> None:
        self.changes += 1

    def probe(self, replica: str) -> Probe:
        return self.prober.probes().get(replica, Probe(ready=False, last_error="never asked"))


@pytest.fixture
async def run(
    server: tuple[Answers, Endpoint],  # which ends after the probers
) -> AsyncIterator[Callable[[Watched], asyncio.Task[None]]]:
    tasks: list[asyncio.Task[None]] = []

    def start(watched: Watched) -> asyncio.Task[None]:
        tasks.append(asyncio.create_task(watched.prober.run(), name="prober"))
        return tasks[-1]

    yield start
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


@pytest.fixture
async def server() -> AsyncIterator[tuple[Answers, Endpoint]]:
    answers = Answers()
    endpoint = await answers.start()
    yield answers, endpoint
    await answers.stop()


def target(
    endpoint: Endpoint, replica: str = "r1", *, eager: bool = True, busy_seconds: float = 0.0
) -> ProbeTarget:
    return ProbeTarget(replica, endpoint, "/health", eager, busy_seconds)


async def test_ready_is_a_200_and_is_told_once(run, server) -> None:
    answers, endpoint = server
    watched = Watched()
    run(watched)
    watched.prober.watch([target(endpoint)])
    await until(lambda: answers.asked >= 3)

    assert watched.probe("r1") == Probe(ready=True)
    assert watched.changes == 1


async def test_another_answer_means_alive_but_not_ready(run, server) -> None:
    answers, endpoint = server
    answers.status = 503
    watched = Watched()
    run(watched)
    watched.prober.watch([target(endpoint, eager=False)])
    await until(lambda: answers.asked >= 3)

    assert watched.probe("r1") == Probe(ready=False, last_error="/health answered 503")


async def test_a_refused_connection_counts_and_an_answer_ends_the_count(run, server) -> None:
    _, endpoint = server
    watched = Watched()
    run(watched)
    watched.prober.watch([target(nobody_listens().endpoint, eager=False)])
    await until(lambda: watched.probe("r1").failures >= 2)
    found = watched.probe("r1")
    assert found.last_error is not None
    assert found.last_error.startswith("nothing listens on port")
    assert watched.changes >= 2, "each failure of a running replica is told"

    watched.prober.watch([target(endpoint, eager=False)])
    await until(lambda: watched.probe("r1").ready)
    assert watched.probe("r1").failures == 0


async def test_a_server_that_hangs_up_or_never_answers_is_a_failure(run, server) -> None:
    answers, endpoint = server
    answers.hung = asyncio.Event()
    watched = Watched(timeout_seconds=0.05)
    run(watched)
    async with Raw(b"") as silent:
        hangs_up = target(silent.target.endpoint, "hangs-up")
        watched.prober.watch([hangs_up, target(endpoint, "hangs")])
        await until(lambda: watched.probe("hangs-up").failures > 0)
        await until(lambda: watched.probe("hangs").failures > 0)

    assert watched.probe("hangs-up").last_error == "/health broke off: ServerDisconnectedError"
    assert watched.probe("hangs").last_error == "no answer from /health in time"


async def test_replicas_that_hang_hold_up_nobody_else(run, server) -> None:
    answers, endpoint = server
    hung = Answers()
    hung.hung = asyncio.Event()
    hung_at = await hung.start()
    watched = Watched(timeout_seconds=60.0)
    run(watched)
    hanging = [target(hung_at, f"hung-{number}") for number in range(40)]
    watched.prober.watch([*hanging, target(endpoint, "fine")])

    await until(lambda: hung.asked == 40)
    asked = answers.asked
    await until(lambda: answers.asked >= asked + 3)

    assert watched.probe("fine").ready
    assert watched.probe("hung-0").last_error == "never asked"
    watched.prober.watch([])
    await hung.stop()


async def test_what_a_probe_finds_of_a_replica_that_left_is_forgotten(run, server) -> None:
    answers, endpoint = server
    answers.hung = asyncio.Event()
    watched = Watched()
    run(watched)
    watched.prober.watch([target(endpoint)])
    await until(lambda: answers.asked == 1)

    watched.prober.watch([])
    answers.hung.set()
    await until(lambda: not _probing("r1"))

    assert watched.prober.probes() == {}
    assert watched.changes == 0


async def test_what_is_watched_before_the_start_is_probed_after_it(run, server) -> None:
    _, endpoint = server
    watched = Watched()
    watched.prober.watch([target(endpoint)])
    run(watched)

    await until(lambda: watched.probe("r1").ready)


async def test_a_running_replica_is_asked_less_often_than_a_starting_one(run, server) -> None:
    answers, endpoint = server
    watched = Watched(interval_seconds=3600.0)
    run(watched)
    watched.prober.watch([target(endpoint)])
    await until(lambda: answers.asked >= 3)
    watched.prober.watch([target(endpoint, eager=False)])
    await until(lambda: watched.probe("r1").ready)
    asked = answers.asked
    for _ in range(200):
        await asyncio.sleep(0)

    assert answers.asked <= asked + 1


async def test_a_redirect_is_not_followed(run) -> None:
    async with Raw(
        b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"
    ) as elsewhere:
        watched = Watched()
        run(watched)
        watched.prober.watch([target(elsewhere.target.endpoint)])
        await until(lambda: elsewhere.connections >= 2)

        assert watched.probe("r1").last_error == "/health answered 302"


async def test_cancelling_ends_every_probe(run, server) -> None:
    answers, endpoint = server
    answers.hung = asyncio.Event()
    watched = Watched()
    running = run(watched)
    watched.prober.watch([target(endpoint)])
    await until(lambda: answers.asked == 1)
    running.cancel()
    await asyncio.wait([running])

    assert not _probing("r1")


def _probing(replica: str) -> bool:
    return any(task.get_name() == f"probe:{replica}" for task in asyncio.all_tasks())


async def test_a_ready_replica_that_is_silent_over_its_requests_is_busy_and_not_ill(
    run, server
) -> None:
    answers, endpoint = server
    watched = Watched(timeout_seconds=0.02)
    watched.in_flight["r1"] = 1
    run(watched)
    watched.prober.watch([target(endpoint, eager=False, busy_seconds=3600)])
    await until(lambda: watched.probe("r1").ready)
    answers.hung = asyncio.Event()
    silent_from = answers.asked
    await until(lambda: answers.asked >= silent_from + 5)
    assert watched.probe("r1") == Probe(ready=True)

    watched.in_flight.clear()
    await until(lambda: watched.probe("r1").failures >= 2)
    assert not watched.probe("r1").ready


async def test_a_replica_silent_for_longer_than_a_request_may_take_is_ill_however_busy(
    run, server
) -> None:
    answers, endpoint = server
    watched = Watched(timeout_seconds=0.02)
    watched.in_flight["r1"] = 1
    run(watched)
    watched.prober.watch([target(endpoint, eager=False, busy_seconds=0.1)])
    await until(lambda: watched.probe("r1").ready)
    answers.hung = asyncio.Event()
    await until(lambda: watched.probe("r1").failures >= 2)


async def test_who_cannot_be_asked_for_want_of_descriptors_stays_what_it_was(run, server) -> None:
    answers, endpoint = server
    watched = Watched()
    run(watched)
    watched.prober.watch([target(endpoint, eager=False)])
    await until(lambda: watched.probe("r1").ready)
    with no_descriptors():
        await until(lambda: watched.probe("r1").words is not None)
        found, asked = watched.probe("r1"), answers.asked
    assert found == Probe(ready=True, unknown="this daemon could not ask: Too many open files")
    assert watched.changes == 1, "nobody is told of a failure"
    await until(lambda: answers.asked > asked and watched.probe("r1") == Probe(ready=True))
