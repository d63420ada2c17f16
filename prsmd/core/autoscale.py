"""How many replicas a deployment needs, and why: the ratio formula of the Kubernetes HPA.

    needed = ready * utilization / target_utilization

with utilization the larger of requests (in flight and queued, averaged) per slot and the use of its
GPUs. Within the tolerance nothing changes. Up happens at once, at most doubling or a few replicas
at a time; down only to the most that was needed at any moment of the down window. Stale telemetry
never scales. The result is a recommendation: what the user asked for and the bounds go first.
"""

import dataclasses
import math
from collections.abc import Sequence

from prsmd.domain.deployment import Recommendation
from prsmd.domain.spec import Scaling


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleSettings:
    """How cautious to be. `tolerance` is a fraction; the step up is the larger of both limits."""

    tolerance: float = 0.1
    down_window_seconds: float = 300.0
    up_factor: int = 2
    up_step: int = 4
    stale_after_seconds: float = 15.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class GpuUse:
    """The average use of the GPUs of the ready replicas, 0..1 (None: the devices do not tell).

    `stale_since` is when fresh samples stopped coming, in seconds since the epoch; None: fresh.
    """

    utilization: float | None
    stale_since: float | None = None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """How many replicas were needed at one moment: an entry of the history."""

    at: float
    replicas: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class AutoscaleInputs:
    """What is known about one deployment.

    `current` is how many replicas are wanted now, `ready` how many of them can serve. `average` is
    in-flight plus queued averaged over the gateway's window; `in_flight` and `queued` are of this
    moment, sampled at `sampled_at`. `gpu` is None for a model without GPU. `idle_since` is None
    while something is in flight or queued. `history` is what `remember` returned, oldest first.
    """

    scaling: Scaling
    current: int
    ready: int
    slots_per_replica: int
    in_flight: int
    queued: int
    average: float
    sampled_at: float
    gpu: GpuUse | None = None
    idle_since: float | None = None
    stalled: str | None = None
    history: tuple[Need, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Scale:
    """Another number of replicas is needed."""

    recommendation: Recommendation

    @property
    def needed(self) -> int:
        """How many replicas are needed; goes into the history."""
        return self.recommendation.replicas


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """The number stays as it is. `needed` is what goes into the history, `reason` to the user."""

    reason: str
    needed: int
    utilization: float | None = None


def recommend(inputs: AutoscaleInputs, settings: AutoscaleSettings, now: float) -> Scale | Hold:
    """Return how many replicas the deployment needs, or why it keeps what it has."""
    return (
        _within_bounds(inputs, now)
        or _from_zero(inputs, now)
        or _stalled(inputs)
        or _stale(inputs, settings, now)
        or _to_zero(inputs, now)
        or _by_ratio(inputs, settings, now)
    )


def remember(
    history: tuple[Need, ...], verdict: Scale | Hold, settings: AutoscaleSettings, now: float
) -> tuple[Need, ...]:
    """Return the history with this verdict: the down window, and one entry from before it.

    That older entry proves that the window is covered; without it nothing is scaled down. So start
    from an empty history after a restart, and when a user set the number of replicas.
    """
    since = now - settings.down_window_seconds
    older = [need for need in history if need.at <= since][-1:]
    recent = [need for need in history if since < need.at <= now]  # a clock may have been set back
    return (*older, *recent, Need(at=now, replicas=verdict.needed))


def limited(verdict: Scale, current: int, most: int, limits: Sequence[str]) -> Scale | Hold:
    """Return a verdict as far as an organization's quota lets it go: to `most` replicas.

    `limits` says in words which of its limits are in the way.
    """
    wanted = verdict.recommendation
    words = f"{wanted.replicas} needed, the quota allows {most} ({'; '.join(limits)})"
    if most > current:
        reasons = (*wanted.reasons, words)
        return Scale(dataclasses.replace(wanted, replicas=most, reasons=reasons))
    return Hold(
        reason=f"{wanted.reasons[0]}, but {words}", needed=current, utilization=wanted.utilization
    )


def _within_bounds(inputs: AutoscaleInputs, now: float) -> Scale | None:
    scaling, current = inputs.scaling, inputs.current
    if current < scaling.min_replicas:
        return _scale(inputs, scaling.min_replicas, now, f"min_replicas is {scaling.min_replicas}")
    if current > scaling.max_replicas:
        return _scale(inputs, scaling.max_replicas, now, f"max_replicas is {scaling.max_replicas}")
    return None


def _from_zero(inputs: AutoscaleInputs, now: float) -> Scale | Hold | None:
    if inputs.current > 0:
        return None
    waiting = inputs.in_flight + inputs.queued
    if waiting and inputs.scaling.max_replicas:
        return _scale(inputs, 1, now, f"{_count(waiting, 'request')} waiting for a replica")
    return Hold(reason="scaled to zero, and no request is waiting", needed=0)


def _stalled(inputs: AutoscaleInputs) -> Hold | None:
    if inputs.stalled is None:
        return None
    return _hold(inputs, f"what was measured is no evidence: {inputs.stalled}", inputs.current)


def _stale(inputs: AutoscaleInputs, settings: AutoscaleSettings, now: float) -> Hold | None:
    age = now - inputs.sampled_at
    if age > settings.stale_after_seconds:
        why = f"the load was last measured {age:.0f} s ago"
    elif inputs.gpu is not None and inputs.gpu.stale_since is not None:
        why = f"GPU telemetry is stale since {max(0.0, now - inputs.gpu.stale_since):.0f} s"
    else:
        return None
    return Hold(reason=f"{why}: holding at {inputs.current}", needed=inputs.current)


def _to_zero(inputs: AutoscaleInputs, now: float) -> Scale | None:
    if inputs.scaling.min_replicas > 0 or inputs.idle_since is None:
        return None
    idle, limit = now - inputs.idle_since, inputs.scaling.scale_to_zero_after_seconds
    if idle < limit:
        return None
    return _scale(inputs, 0, now, f"idle for {idle:.0f} s (scale to zero after {limit:.0f} s)")


def _by_ratio(inputs: AutoscaleInputs, settings: AutoscaleSettings, now: float) -> Scale | Hold:
    needed, measured = _needed(inputs)
    if abs(needed - inputs.current) <= settings.tolerance * inputs.current:
        reason = f"{measured}: within {_percent(settings.tolerance)} of {inputs.current}"
        return _hold(inputs, reason, inputs.current)
    wanted = max(1, _ceil(needed))
    if wanted > inputs.current:
        return _up(inputs, settings, wanted, measured, now)
    return _down(inputs, settings, wanted, measured, now)


def _needed(inputs: AutoscaleInputs) -> tuple[float, str]:
    """Return how many replicas, as a fraction, bring utilization to its target; and the numbers."""
    target, slots = inputs.scaling.target_utilization, inputs.slots_per_replica
    by_load = inputs.average / (slots * target)
    gpu = inputs.gpu.utilization if inputs.gpu is not None else None
    if gpu is not None and inputs.ready * gpu / target > by_load:
        return inputs.ready * gpu / target, f"GPU {_percent(gpu)} against target {_percent(target)}"
    if not inputs.ready:
        return by_load, f"{_number(inputs.average)} requests waiting, no replica ready"
    total = inputs.ready * slots
    measured = (
        f"in-flight {_number(inputs.average)} of {total} slots = {_percent(inputs.average / total)}"
        f" against target {_percent(target)}"
    )
    if inputs.gpu is not None and gpu is None:
        measured += " (its GPUs report no utilization)"
    return by_load, measured


def _up(
    inputs: AutoscaleInputs, settings: AutoscaleSettings, wanted: int, measured: str, now: float
) -> Scale | Hold:
    current, starting, limits = inputs.current, inputs.current - inputs.ready, []
    if starting > 0:
        demand = inputs.in_flight + inputs.queued
        by_demand = demand / (inputs.slots_per_replica * inputs.scaling.target_utilization)
        if by_demand <= current * (1 + settings.tolerance):
            reason = f"{measured}, but {_count(starting, 'replica')} still starting"
            return _hold(inputs, reason, current)
        measured = f"{_count(demand, 'request')} in flight or queued now need {_ceil(by_demand)}"
        wanted = _ceil(by_demand)
    step = max(settings.up_factor * current, current + settings.up_step)
    if wanted > step:
        limits.append(f"{wanted} needed, at most {step} in one step")
    if wanted > inputs.scaling.max_replicas:
        limits.append(f"{wanted} needed, max_replicas is {inputs.scaling.max_replicas}")
    granted = min(wanted, step, inputs.scaling.max_replicas)
    if granted == current:
        return _hold(inputs, f"{measured}, but {limits[-1]}", current)
    return _scale(inputs, granted, now, measured, *limits)


def _down(
    inputs: AutoscaleInputs, settings: AutoscaleSettings, wanted: int, measured: str, now: float
) -> Scale | Hold:
    current, window = inputs.current, settings.down_window_seconds
    least = max(1, inputs.scaling.min_replicas)
    if max(wanted, least) == current:
        why = f"{current} is the least" if current == least else f"{current} needed"
        return _hold(inputs, f"{measured}: {why}", current)
    wanted = max(wanted, least)
    since = now - window
    if not any(need.at <= since for need in inputs.history):
        reason = f"{measured}: {wanted} would do, but the last {window:.0f} s are not known yet"
        return _hold(inputs, reason, wanted)
    most = max((need.replicas for need in inputs.history if need.at > since), default=wanted)
    if most >= current:
        reason = f"{measured}: {wanted} would do, but {most} were needed within {window:.0f} s"
        return _hold(inputs, reason, wanted)
    if most > wanted:
        return _scale(inputs, most, now, measured, f"{most} were needed within {window:.0f} s")
    return _scale(inputs, wanted, now, measured)


def _scale(inputs: AutoscaleInputs, replicas: int, now: float, why: str, *limits: str) -> Scale:
    reasons = (f"{why}: {inputs.current} → {replicas}", *limits)
    return Scale(
        Recommendation(replicas=replicas, reasons=reasons, utilization=_utilization(inputs), at=now)
    )


def _hold(inputs: AutoscaleInputs, reason: str, needed: int) -> Hold:
    return Hold(reason=reason, needed=needed, utilization=_utilization(inputs))


def _utilization(inputs: AutoscaleInputs) -> float | None:
    if not inputs.ready:
        return None
    load = inputs.average / (inputs.ready * inputs.slots_per_replica)
    gpu = inputs.gpu
    if gpu is None or gpu.utilization is None or gpu.stale_since is not None:
        return load
    return max(load, gpu.utilization)


def _ceil(value: float) -> int:
    return math.ceil(value - 1e-9)  # 0.7 * 3 / 0.7 is 3, not 3.0000000000000004


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _percent(fraction: float) -> str:
    return f"{fraction * 100:.0f} %"


def _count(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
