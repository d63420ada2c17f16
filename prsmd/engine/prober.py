"""Asks each replica how it is, and remembers the last answer. Decides nothing: `reconcile` does.

Ready is a 200 on the protocol's health path. Any other HTTP answer means alive but not ready; no
answer at all (refused, reset, timeout) counts as a liveness failure. One exception: a replica that
was ready and works on requests is taken to be busy while it is silent, for as long as one request
may take; many model servers do one thing at a time. And what is not heard while this daemon, its
machine or the engine stood still, or had no descriptor left to ask with, is unknown: the last
finding stays.
"""

import asyncio
import dataclasses
import logging
import time
from collections.abc import Callable, Mapping, Sequence

import aiohttp

from prsmd.core.exhaustion import unknown_by
from prsmd.core.plan import Probe
from prsmd.core.stalls import ANY, OWN, AlwaysOnTime, DeadlineJudge, StallKind, Unknown
from prsmd.domain.replica import Endpoint
from prsmd.gateway.wary import WaryConnector

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeTarget:
    """Where and how to probe one replica.

    `eager` ones (starting) are asked more often. `busy_seconds` is how long one request may keep
    it from answering.
    """

    replica_id: str
    endpoint: Endpoint
    path: str
    eager: bool
    busy_seconds: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProberSettings:
    """Seconds between probes of a running and of a starting replica, and for one answer."""

    interval_seconds: float = 5.0
    eager_seconds: float = 0.25
    timeout_seconds: float = 2.0


class Prober:
    """A task for each target, so that one that hangs holds up nobody else.

    `on_change` runs when a replica became ready or stopped being so, and when a running one failed.
    `in_flight` gives the number of requests by replica id. `judge` is asked whether a missed
    deadline counts.
    """

    def __init__(
        self,
        settings: ProberSettings,
        on_change: Callable[[], None],
        in_flight: Callable[[], Mapping[str, int]],
        judge: DeadlineJudge | None = None,
    ) -> None:
        self._settings = settings
        self._on_change = on_change
        self._in_flight = in_flight
        self._judge = judge or AlwaysOnTime()
        self._silent_since: dict[str, float] = {}
        self._targets: Mapping[str, ProbeTarget] = {}
        self._probes: dict[str, Probe] = {}
        self._changed = asyncio.Event()

    def apply(self, settings: ProberSettings) -> None:
        """Go by these from the next probe on."""
        self._settings = settings

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
            self._silent_since.pop(gone, None)
        self._targets = fresh
        self._changed.set()

    async def run(self) -> None:
        """Probe until cancelled."""
        # No limit: each target has one connection at most, and who waited for a free one would
        # look as if it had not answered in time.
        connector = WaryConnector(force_close=True, limit=0)
        tasks: dict[str, asyncio.Task[None]] = {}
        async with (
            aiohttp.ClientSession(
                connector=connector, cookie_jar=aiohttp.DummyCookieJar()
            ) as session,
            asyncio.TaskGroup() as group,
        ):
            while True:
                self._changed.clear()
                for gone in tasks.keys() - self._targets.keys():
                    tasks.pop(gone).cancel()
                for added in self._targets.keys() - tasks.keys():
                    work = self._probe_repeatedly(session, added)
                    tasks[added] = group.create_task(work, name=f"probe:{added}")
                await self._changed.wait()

    async def _probe_repeatedly(self, session: aiohttp.ClientSession, replica_id: str) -> None:
        while (target := self._targets.get(replica_id)) is not None:
            known = await self._probe(session, target)
            soon = target.eager or not known
            pause = self._settings.eager_seconds if soon else self._settings.interval_seconds
            await asyncio.sleep(pause)

    async def _probe(self, session: aiohttp.ClientSession, target: ProbeTarget) -> bool:
        """Ask and note what was found; return whether that is known."""
        before = self._probes.get(target.replica_id)
        found = await self._ask(session, target, before)
        if target.replica_id not in self._targets or found is None:
            return False
        self._probes[target.replica_id] = found
        was_ready = before is not None and before.ready
        failed = found.failures and found.unknown is None
        if found.ready != was_ready or (failed and not target.eager):
            self._on_change()
        return found.unknown is None

    async def _ask(
        self, session: aiohttp.ClientSession, target: ProbeTarget, before: Probe | None
    ) -> Probe | None:
        """Return what was found; None: unknown, and no probe was heard before either."""
        url = f"http://{target.endpoint}{target.path}"
        began = self._judge.now()
        timeout = aiohttp.ClientTimeout(total=self._settings.timeout_seconds)
        try:
            async with session.get(url, allow_redirects=False, timeout=timeout) as response:
                self._silent_since.pop(target.replica_id, None)
                if response.status == 200:
                    return Probe(ready=True)
                return Probe(ready=False, last_error=f"{target.path} answered {response.status}")
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            stalls = _stalls_that_explain(error)
            unknown = unknown_by(error) or self._judge.unknown(began, stalls)
            if unknown is not None:
                self._silent_since.pop(target.replica_id, None)
                return _still(before, unknown)
            silent = isinstance(error, TimeoutError) and self._is_busy(target)
            if before is not None and before.ready and silent:
                return before
            failures = (before.failures if before else 0) + 1
            return Probe(ready=False, failures=failures, last_error=_words(error, target))
        except Exception as error:  # ours, so it says nothing about the replica's life
            log.exception("probe of %s failed unexpectedly", target.replica_id)
            return Probe(ready=False, last_error=f"cannot be probed: {error!r}")

    def _is_busy(self, target: ProbeTarget) -> bool:
        """Tell whether silence is explained by the requests that the replica works on."""
        now = time.monotonic()
        since = self._silent_since.setdefault(target.replica_id, now)
        working = self._in_flight().get(target.replica_id, 0) > 0
        return working and now - since < target.busy_seconds


def _stalls_that_explain(error: Exception) -> frozenset[StallKind]:
    """Return what explains that no answer came: an engine that hangs refuses no connection."""
    return ANY if isinstance(error, TimeoutError) else OWN


def _still(before: Probe | None, unknown: Unknown) -> Probe | None:
    """Return the last finding, which stays, with the word that the newest one is unknown."""
    return None if before is None else dataclasses.replace(before, unknown=unknown.reason)


def _words(error: Exception, target: ProbeTarget) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer from {target.path} in time"
    if isinstance(error, aiohttp.ClientConnectorError):
        return f"nothing listens on port {target.endpoint.port}: {error.os_error.strerror}"
    return f"{target.path} broke off: {type(error).__name__}"
