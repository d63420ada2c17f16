"""Asks each replica how it is, and remembers the last answer. Decides nothing: `reconcile` does.

Ready is a 200 on the protocol's health path. Any other HTTP answer means alive but not ready; no
answer at all (refused, reset, timeout) counts as a liveness failure.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from prsmd.core.plan import Probe
from prsmd.domain.replica import Endpoint

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where and how to probe one replica. `eager` ones (starting) are asked more often."""

    replica_id: str
    endpoint: Endpoint
    path: str
    eager: bool


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProberSettings:
    """Seconds between probes of a running and of a starting replica, and for one answer."""

    interval_seconds: float = 5.0
    eager_seconds: float = 0.25
    timeout_seconds: float = 2.0
    at_once: int = 16


class Prober:
    """One loop over all targets. `on_change` runs when readiness or liveness of one changed."""

    def __init__(self, settings: ProberSettings, on_change: Callable[[], None]) -> None:
        self._settings = settings
        self._on_change = on_change
        self._targets: Mapping[str, ProbeTarget] = {}
        self._probes: dict[str, Probe] = {}
        self._due: dict[str, float] = {}
        self._changed = asyncio.Event()

    def probes(self) -> Mapping[str, Probe]:
        """Return the last finding for each replica that was asked at least once."""
        return dict(self._probes)

    def watch(self, targets: Sequence[ProbeTarget]) -> None:
        """Replace the set of probed replicas; new ones are asked at once."""
        fresh = {target.replica_id: target for target in targets}
        if fresh == self._targets:
            return
        for gone in self._targets.keys() - fresh.keys():
            self._probes.pop(gone, None)
            self._due.pop(gone, None)
        for added in fresh.keys() - self._targets.keys():
            self._due[added] = 0.0
        self._targets = fresh
        self._changed.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        connector = aiohttp.TCPConnector(force_close=True, limit=self._settings.at_once)
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()
        ) as session:
            while True:
                self._changed.clear()
                now = time.monotonic()
                due = [t for t in self._targets.values() if self._due[t.replica_id] <= now]
                await asyncio.gather(*(self._probe(session, target) for target in due))
                await self._wait()

    async def _wait(self) -> None:
        soonest = min(self._due.values(), default=None)
        pause = None if soonest is None else max(0.0, soonest - time.monotonic())
        try:
            await asyncio.wait_for(self._changed.wait(), pause)
        except TimeoutError:
            return

    async def _probe(self, session: aiohttp.ClientSession, target: ProbeTarget) -> None:
        before = self._probes.get(target.replica_id)
        found = await self._ask(session, target, before)
        if target.replica_id not in self._targets:
            return
        self._probes[target.replica_id] = found
        pause = self._settings.eager_seconds if target.eager else self._settings.interval_seconds
        self._due[target.replica_id] = time.monotonic() + pause
        was_ready = before is not None and before.ready
        if found.ready != was_ready or (found.failures and not target.eager):
            self._on_change()

    async def _ask(
        self, session: aiohttp.ClientSession, target: ProbeTarget, before: Probe | None
    ) -> Probe:
        url = f"http://{target.endpoint}{target.path}"
        try:
            async with session.get(url, allow_redirects=False) as response:
                if response.status == 200:
                    return Probe(ready=True)
                return Probe(ready=False, last_error=f"{target.path} answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            failures = (before.failures if before else 0) + 1
            return Probe(ready=False, failures=failures, last_error=_words(error, target))


def _words(error: Exception, target: ProbeTarget) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer from {target.path} in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing listens on port {target.endpoint.port}: {error.os_error.strerror}"
    return f"{target.path} broke off: {type(error).__name__}"
