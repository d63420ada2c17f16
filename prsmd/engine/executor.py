"""Carries out plans, and is the only writer of replica rows. Decides nothing.

Quick steps (a row) are done at once; slow ones (pull, start, stop) run as named tasks that show up
as `working` in the next observation. Intent is written first: a row stands before its container.
"""

import asyncio
import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from prsmd.core import plan as plans
from prsmd.domain.errors import (
    EngineError,
    EngineUnreachableError,
    ImageUnavailableError,
    PrsmdError,
)
from prsmd.domain.events import Event, Severity
from prsmd.domain.logs import LogLine
from prsmd.domain.replica import ExitCause, ExitKind, Replica, ReplicaState
from prsmd.engine.launcher import Launcher
from prsmd.engine.recorder import Recorder
from prsmd.runtime.base import LogQuery, Runtime
from prsmd.store import deployments, events, history, replicas, revisions
from prsmd.store.db import Database, Tx
from prsmd.store.logs import LogArchive

log = logging.getLogger(__name__)
_KEPT_LINES = 2000
_TAIL_LINES = 20
_CAPTURE_SECONDS = 5.0
_QUICK = (plans.Adopt, plans.MarkRunning, plans.Drain, plans.FinishDelete)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What the executor works with."""

    runtime: Runtime
    database: Database
    recorder: Recorder
    launcher: Launcher
    archive: LogArchive
    stop_grace_seconds: float = 10.0


class Executor:
    """Applies plans. `wake` runs whenever a slow step has ended."""

    def __init__(self, workshop: Workshop, wake: Callable[[], None]) -> None:
        self._tools = workshop
        self._wake = wake
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._steps: dict[type, Callable[[Any], Coroutine[Any, Any, None]]] = {
            plans.Launch: self._launch,
            plans.Resume: self._resume,
            plans.Adopt: self._adopt,
            plans.MarkRunning: self._mark_running,
            plans.Drain: self._drain,
            plans.Stop: self._stop,
            plans.Fail: self._fail,
            plans.RemoveOrphan: self._remove_orphan,
            plans.FinishDelete: self._finish_delete,
        }

    def working(self) -> frozenset[str]:
        """Return the ids of the replicas on which a slow step is in progress."""
        return frozenset(self._tasks)

    async def apply(self, plan: plans.Plan) -> None:
        """Do the plan's actions in order. One that fails is logged; the next tick sees the rest.

        A row that was moved on makes the next tick come at once: it may be routed, or stopped, now.
        """
        for action in plan.actions:
            try:
                await self._steps[type(action)](action)
            except PrsmdError as error:
                log.warning("%s not done: %s", type(action).__name__, error.message)
            else:
                if isinstance(action, _QUICK):
                    self._wake()

    async def close(self) -> None:
        """Cancel slow steps. Rows and labels say what was half done; containers go on."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._tools.launcher.close()

    # Quick steps: a row and an event in one transaction.

    async def _launch(self, action: plans.Launch) -> None:
        replica = action.replica
        placed = ", ".join(replica.placement.gpu_uuids) or "no GPU"
        event = _event(
            replica, "Scheduled", f"slot {replica.slot}: {action.reason}; placed with {placed}"
        )

        async def write(tx: Tx) -> None:
            await replicas.add(tx, replica)
            await events.append(tx, event)

        await self._tools.database.write(write)
        await self._tools.recorder.announce(event)
        self._begin("launch", replica, self._bring_up(replica))

    async def _resume(self, action: plans.Resume) -> None:
        await self._tools.recorder.record(_event(action.replica, "Resumed", action.reason))
        self._begin("launch", action.replica, self._bring_up(action.replica))

    async def _adopt(self, action: plans.Adopt) -> None:
        adopted = dataclasses.replace(
            action.replica,
            state=ReplicaState.STARTING,
            container_id=action.container_id,
            endpoint=action.endpoint,
            started_at=time.time(),
        )
        await self._save(adopted, "Adopted", "found its container running and took it over")

    async def _mark_running(self, action: plans.MarkRunning) -> None:
        replica, now = action.replica, time.time()
        running = dataclasses.replace(replica, state=ReplicaState.RUNNING, ready_at=now)
        took = now - (replica.started_at or replica.created_at)
        await self._save(running, "Ready", f"answers its health check after {took:.1f} s")
        revision = await self._revision(replica)
        if revision is not None:
            image = revision.spec.image
            await self._tools.database.write(
                lambda tx: history.record(tx, image, "start", took, now)
            )

    async def _drain(self, action: plans.Drain) -> None:
        await self._cancel(action.replica.id)
        draining = dataclasses.replace(
            action.replica, state=ReplicaState.DRAINING, draining_since=time.time()
        )
        await self._save(draining, "Draining", action.reason)

    async def _finish_delete(self, action: plans.FinishDelete) -> None:
        await self._tools.database.write(lambda tx: deployments.remove(tx, action.deployment_id))
        log.info("deployment removed", extra={"deployment": action.deployment_id})

    # Slow steps: each its own task.

    async def _stop(self, action: plans.Stop) -> None:
        await self._cancel(action.replica.id)
        cause = ExitCause(kind=ExitKind.STOPPED, message=action.reason)
        self._begin("stop", action.replica, self._take_down(action.replica, cause))

    async def _fail(self, action: plans.Fail) -> None:
        self._begin("fail", action.replica, self._take_down(action.replica, action.cause))

    async def _remove_orphan(self, action: plans.RemoveOrphan) -> None:
        log.warning("removing orphan %s: %s", action.container_id[:12], action.reason)
        self._start_task(
            f"orphan:{action.replica_id}",
            action.replica_id,
            self._tools.runtime.stop(action.container_id, self._tools.stop_grace_seconds),
        )

    async def _bring_up(self, replica: Replica) -> None:
        revision = await self._revision(replica)
        if revision is None:
            raise EngineError(f"revision {replica.revision} of {replica.deployment_id} is gone")
        try:
            container = await self._tools.launcher.launch(replica, revision)
        except EngineUnreachableError as error:
            log.warning("%s; launching again later", error.message, extra={"replica": replica.id})
            await asyncio.sleep(1.0)  # stays `working`, so the loop does not spin on a dead engine
        except ImageUnavailableError as error:
            await self._end(replica, ExitKind.IMAGE_UNAVAILABLE, error.message)
        except EngineError as error:
            await self._end(replica, ExitKind.LAUNCH_FAILED, error.message)
        else:
            started = dataclasses.replace(
                replica,
                state=ReplicaState.STARTING,
                container_id=container.id,
                endpoint=container.endpoint,
                started_at=time.time(),
            )
            await self._save(started, "Started", f"container {container.id[:12]} started")

    async def _take_down(self, replica: Replica, cause: ExitCause) -> None:
        lines: list[LogLine] = []
        if replica.container_id is not None:
            lines = await self._capture(replica)
            await self._tools.runtime.stop(replica.container_id, self._tools.stop_grace_seconds)
        tail = tuple(line.text for line in lines[-_TAIL_LINES:])
        stopped = cause.kind is ExitKind.STOPPED
        ended = dataclasses.replace(
            replica,
            state=ReplicaState.STOPPED if stopped else ReplicaState.FAILED,
            finished_at=time.time(),
            exit=dataclasses.replace(cause, log_tail=() if stopped else tail),
        )
        reason = "Stopped" if stopped else _camel(cause.kind)
        severity = Severity.NORMAL if stopped else Severity.WARNING
        await self._save(ended, reason, cause.message, severity)

    async def _capture(self, replica: Replica) -> list[LogLine]:
        """Keep what the container wrote; losing it must not keep the container from ending."""
        lines: list[LogLine] = []
        assert replica.container_id is not None  # noqa: S101 - the caller checked
        try:
            async with asyncio.timeout(_CAPTURE_SECONDS):
                query = LogQuery(tail=_KEPT_LINES)
                async for line in self._tools.runtime.logs(replica.container_id, query):
                    lines.append(line)  # noqa: PERF401 - what came before a timeout is kept
        except (PrsmdError, TimeoutError) as error:
            log.warning("logs not kept whole: %s", error, extra={"replica": replica.id})
        try:
            await self._tools.archive.save(replica.id, lines)
        except OSError as error:
            log.warning("logs not kept: %s", error, extra={"replica": replica.id})
        return lines

    async def _end(self, replica: Replica, kind: ExitKind, message: str) -> None:
        ended = dataclasses.replace(
            replica,
            state=ReplicaState.FAILED,
            finished_at=time.time(),
            exit=ExitCause(kind=kind, message=message),
        )
        await self._save(ended, _camel(kind), message, Severity.WARNING)

    async def _save(
        self, replica: Replica, reason: str, message: str, severity: Severity = Severity.NORMAL
    ) -> None:
        event = _event(replica, reason, message, severity)

        async def write(tx: Tx) -> None:
            await replicas.save(tx, replica)
            await events.append(tx, event)

        await self._tools.database.write(write)
        await self._tools.recorder.announce(event)

    async def _revision(self, replica: Replica) -> Any:
        async with self._tools.database.read() as tx:
            return await revisions.get(tx, replica.deployment_id, replica.revision)

    def _begin(self, step: str, replica: Replica, work: Coroutine[Any, Any, None]) -> None:
        self._start_task(f"{step}:{replica.id}", replica.id, work)

    def _start_task(self, name: str, key: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self._guarded(name, work), name=name)
        self._tasks[key] = task
        task.add_done_callback(lambda done: self._finished(key, done))

    async def _guarded(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        try:
            await work
        except PrsmdError as error:
            log.warning("%s not done: %s", name, error.message)
        except Exception:
            log.exception("%s failed unexpectedly", name)

    def _finished(self, key: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(key) is task:
            del self._tasks[key]
        self._wake()

    async def _cancel(self, key: str) -> None:
        task = self._tasks.pop(key, None)
        if task is not None:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def _event(
    replica: Replica, reason: str, message: str, severity: Severity = Severity.NORMAL
) -> Event:
    return Event(
        deployment_id=replica.deployment_id,
        organization=replica.organization,
        replica_id=replica.id,
        reason=reason,
        message=message,
        severity=severity,
        at=time.time(),
    )


def _camel(kind: ExitKind) -> str:
    return "".join(word.capitalize() for word in kind.value.split("_"))
