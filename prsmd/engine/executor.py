"""Carries out plans, and is the only writer of replica rows. Decides nothing.

Quick steps (a row) are done at once; slow ones (pull, start, stop) run as named tasks that show up
as `working` in the next observation. Intent is written first: a row stands before its container.
"""

import dataclasses
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from prsmd.core import plan as plans
from prsmd.devices.base import Gpus
from prsmd.domain.deployment import Revision
from prsmd.domain.errors import (
    EngineError,
    EngineUnreachableError,
    ImageUnavailableError,
    NotFoundError,
    PrsmdError,
)
from prsmd.domain.events import Event, Severity
from prsmd.domain.replica import ExitCause, ExitKind, Replica, ReplicaState
from prsmd.domain.truncation import TAIL_LINES, truncated_tail
from prsmd.engine.capture import LogCapture
from prsmd.engine.launcher import Launcher
from prsmd.engine.progress import Progress
from prsmd.engine.recorder import Recorder
from prsmd.engine.slowsteps import SlowSteps
from prsmd.engine.words import placed_words, started_words
from prsmd.runtime.base import Runtime
from prsmd.store import deployments, events, history, replicas, revisions
from prsmd.store.db import Database, Tx

log = logging.getLogger(__name__)
_DRAINED = "the model's replica was stopped before its answer ended: its drain timeout is over"
_STOPPED = "the model's replica failed, and was stopped before its answer ended"
_QUICK = (
    plans.Adopt,
    plans.MarkRunning,
    plans.Drain,
    plans.FinishDelete,
    plans.Advance,
    plans.NoteGood,
    plans.ScaleStep,
)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Workshop:
    """What the executor works with.

    `retry_seconds` is the first pause after a slow step's failure; `clock` gives seconds since the
    epoch; `on_removed` is told the id of each deployment that was removed from the store, and
    `on_stop` the id of each replica whose container is about to be stopped, with what its callers
    are told who still have no answer.
    """

    runtime: Runtime
    gpus: Gpus
    database: Database
    recorder: Recorder
    launcher: Launcher
    capture: LogCapture
    stop_grace_seconds: float = 10.0
    retry_seconds: float = 1.0
    clock: Callable[[], float] = time.time
    on_removed: Callable[[str], Awaitable[None]] | None = None
    on_stop: Callable[[str, str], None] | None = None


class Executor:
    """Applies plans. `wake` runs whenever a slow step has ended or a row was moved on."""

    def __init__(self, workshop: Workshop, wake: Callable[[], None]) -> None:
        self._tools = workshop
        self._wake = wake
        self._now = workshop.clock
        self._slow = SlowSteps(wake, workshop.retry_seconds)
        progress = self._progress = Progress(
            database=workshop.database,
            recorder=workshop.recorder,
            launcher=workshop.launcher,
            clock=workshop.clock,
        )
        self._steps: Mapping[type, Callable[[Any], Coroutine[Any, Any, None]]] = {
            plans.Launch: self._launch,
            plans.Resume: self._resume,
            plans.Adopt: self._adopt,
            plans.MarkRunning: self._mark_running,
            plans.Drain: self._drain,
            plans.Stop: self._stop,
            plans.Fail: self._fail,
            plans.RemoveOrphan: self._remove_orphan,
            plans.FinishDelete: self._finish_delete,
            plans.Prepare: self._prepare,
            plans.Advance: progress.advance,
            plans.NoteGood: progress.note_good,
            plans.ScaleStep: progress.step,
        }

    def working(self) -> frozenset[str]:
        """Return the ids of the replicas on which a slow step is in progress."""
        return self._slow.working()

    async def apply(self, plan: plans.Plan) -> None:
        """Do the plan's actions in order. One that fails is logged; the next tick sees the rest.

        A row that was moved on makes the next tick come at once: it may be routed, or stopped, now.
        """
        for action in plan.actions:
            name = type(action).__name__
            try:
                await self._steps[type(action)](action)
            except PrsmdError as error:
                log.warning("%s not done: %s", name, error.message)
            except Exception:  # one defect must not keep the other actions from being done
                log.exception("%s failed unexpectedly", name)
            else:
                if isinstance(action, _QUICK):
                    self._wake()

    async def close(self) -> None:
        """Give up slow steps. Rows and labels say what was half done; containers go on."""
        await self._slow.close()
        await self._tools.launcher.close()

    # Quick steps: a row and an event in one transaction.

    async def _launch(self, action: plans.Launch) -> None:
        replica = action.replica
        where = placed_words(replica.placement, self._tools.gpus.sample().gpus)
        event = self._event(
            replica, "Scheduled", f"slot {replica.slot}: {action.reason}; gets {where}"
        )

        async def write(tx: Tx) -> None:
            await replicas.add(tx, replica)
            await events.append(tx, event)

        await self._tools.database.write(write)
        self._tools.recorder.announce(event)
        self._slow.begin("launch", replica.id, functools.partial(self._bring_up, replica))

    async def _resume(self, action: plans.Resume) -> None:
        replica = action.replica
        if not self._slow.has_failed(replica.id):  # else it was us, and the log says so
            await self._tools.recorder.record(self._event(replica, "Resumed", action.reason))
        self._slow.begin("launch", replica.id, functools.partial(self._bring_up, replica))

    async def _adopt(self, action: plans.Adopt) -> None:
        adopted = dataclasses.replace(
            action.replica,
            state=ReplicaState.STARTING,
            container_id=action.container_id,
            endpoint=action.endpoint,
            started_at=self._now(),
        )
        at = f" at {action.endpoint}" if action.endpoint is not None else ""
        message = f"its container was found running{at} after a launch that was cut off"
        await self._save(adopted, "Adopted", message)

    async def _mark_running(self, action: plans.MarkRunning) -> None:
        replica, now = action.replica, self._now()
        running = dataclasses.replace(replica, state=ReplicaState.RUNNING, ready_at=now)
        took = max(0.0, now - (replica.started_at or replica.created_at))

        async def note_duration(tx: Tx) -> None:
            revision = await revisions.get(tx, replica.deployment_id, replica.revision)
            if revision is not None:
                whose, image = replica.organization, revision.spec.image
                await history.record(tx, whose, image, "start", took, now)

        message = f"answered its health check {took:.1f} s after its start"
        await self._save(running, "Ready", message, also=note_duration)

    async def _drain(self, action: plans.Drain) -> None:
        await self._slow.cancel(action.replica.id)  # at most a launch
        draining = dataclasses.replace(
            action.replica, state=ReplicaState.DRAINING, draining_since=self._now()
        )
        await self._save(draining, "Draining", action.reason)

    async def _finish_delete(self, action: plans.FinishDelete) -> None:
        await self._tools.database.write(lambda tx: deployments.remove(tx, action.deployment_id))
        if self._tools.on_removed is not None:
            await self._tools.on_removed(action.deployment_id)
        log.info("deployment removed", extra={"deployment": action.deployment_id})
        self._tools.recorder.announce()

    # Slow steps: each its own task.

    async def _stop(self, action: plans.Stop) -> None:
        cause = ExitCause(kind=ExitKind.STOPPED, message=action.reason)
        work = functools.partial(self._take_down, action.replica, cause)
        self._slow.begin("stop", action.replica.id, work)

    async def _fail(self, action: plans.Fail) -> None:
        work = functools.partial(self._take_down, action.replica, action.cause)
        self._slow.begin("fail", action.replica.id, work)

    async def _prepare(self, action: plans.Prepare) -> None:
        work = functools.partial(self._progress.prepare, action)
        self._slow.begin("prepare", plans.preparing(action.rollout), work)

    async def _remove_orphan(self, action: plans.RemoveOrphan) -> None:
        if not self._slow.has_failed(action.replica_id):
            log.warning("removing container %s: %s", action.container_id[:12], action.reason)
        grace = self._tools.stop_grace_seconds
        remove = functools.partial(self._tools.runtime.stop, action.container_id, grace)
        self._slow.begin("orphan", action.replica_id, remove)

    async def _bring_up(self, replica: Replica) -> None:
        revision = await self._revision(replica)
        try:
            container = await self._tools.launcher.launch(replica, revision)
        except EngineUnreachableError:
            raise  # says nothing about the replica: launched again when the engine answers
        except ImageUnavailableError as error:
            await self._end(replica, ExitCause(kind=ExitKind.IMAGE_UNAVAILABLE, message=str(error)))
        except EngineError as error:
            await self._end(replica, ExitCause(kind=ExitKind.LAUNCH_FAILED, message=str(error)))
        else:
            started = dataclasses.replace(
                replica,
                state=ReplicaState.STARTING,
                container_id=container.id,
                endpoint=container.endpoint,
                started_at=self._now(),
            )
            await self._save(started, "Started", started_words(replica, container))

    async def _take_down(self, replica: Replica, cause: ExitCause) -> None:
        """Keep the logs, remove the container, end the row. Every part may be done again."""
        tail = await self._keep_logs(replica)
        if self._tools.on_stop is not None:
            drained = cause.kind is ExitKind.STOPPED
            self._tools.on_stop(replica.id, _DRAINED if drained else _STOPPED)
        if replica.container_id is not None:
            await self._tools.runtime.stop(replica.container_id, self._tools.stop_grace_seconds)
        if cause.kind is not ExitKind.STOPPED:
            cause = dataclasses.replace(cause, log_tail=tail)
        await self._end(replica, cause)

    async def _keep_logs(self, replica: Replica) -> tuple[str, ...]:
        """Keep the last lines and return the end of them: all are not held while it stops."""
        lines = await self._tools.capture.take(replica)
        return truncated_tail([line.text for line in lines[-TAIL_LINES:]])

    async def _end(self, replica: Replica, cause: ExitCause) -> None:
        stopped = cause.kind is ExitKind.STOPPED
        ended = dataclasses.replace(
            replica,
            state=ReplicaState.STOPPED if stopped else ReplicaState.FAILED,
            finished_at=self._now(),
            exit=cause,
        )
        severity = Severity.NORMAL if stopped else Severity.WARNING
        await self._save(ended, _camel(cause.kind), cause.message, severity)

    async def _save(
        self,
        replica: Replica,
        reason: str,
        message: str,
        severity: Severity = Severity.NORMAL,
        *,
        also: Callable[[Tx], Awaitable[None]] | None = None,
    ) -> None:
        """Write the row and its event, and what belongs to them, in one transaction."""
        event = self._event(replica, reason, message, severity)

        async def write(tx: Tx) -> None:
            await replicas.save(tx, replica)
            await events.append(tx, event)
            if also is not None:
                await also(tx)

        await self._tools.database.write(write)
        self._slow.forgive(replica.id)
        self._tools.recorder.announce(event)

    async def _revision(self, replica: Replica) -> Revision:
        async with self._tools.database.read() as tx:
            revision = await revisions.get(tx, replica.deployment_id, replica.revision)
        if revision is None:
            raise NotFoundError(f"revision {replica.revision} of {replica.deployment_id} is gone")
        return revision

    def _event(
        self, replica: Replica, reason: str, message: str, severity: Severity = Severity.NORMAL
    ) -> Event:
        return Event(
            deployment_id=replica.deployment_id,
            organization=replica.organization,
            replica_id=replica.id,
            reason=reason,
            message=message,
            severity=severity,
            at=self._now(),
        )


def _camel(kind: ExitKind) -> str:
    return "".join(word.capitalize() for word in kind.value.split("_"))
