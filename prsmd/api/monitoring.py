"""Probes and Prometheus metrics. Labels are ids of existing things, so their number is bounded."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest

from prsmd.api.operations import OpenOperation, Operation, Services
from prsmd.api.requests import refuse_unknown
from prsmd.api.respond import json_response
from prsmd.core.memory_budget import MemoryBudget
from prsmd.core.rollout import traffic
from prsmd.domain.access import Permission
from prsmd.engine.loop_lag import Lag
from prsmd.service.audit import Backlog
from prsmd.service.caller import Caller
from prsmd.service.health import Measurements

_DEPLOYMENT = ("deployment", "model", "organization")


async def healthz(_services: Services, _request: web.Request) -> web.Response:
    """Answer that the process serves requests."""
    return json_response({"status": "ok"})


async def readyz(services: Services, _request: web.Request) -> web.Response:
    """Answer 200 when loop, engine and store work; else 503 and why. No details: it is open."""
    trouble = services.health.trouble()
    if trouble is None:
        return json_response({"status": "ready"})
    return json_response({"status": "not ready", "reason": trouble}, 503)


async def metrics(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Answer all measurements in the Prometheus text format."""
    refuse_unknown(request)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Scrape(await services.health.measure(caller), services.memory))
    # In a thread: with thousands of models it takes long, and the loop goes on meanwhile.
    body = await asyncio.to_thread(generate_latest, registry)
    return web.Response(body=body, headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4})


class _Scrape:
    """One scrape's measurements as metric families."""

    def __init__(self, measured: Measurements, memory: MemoryBudget) -> None:
        self._measured = measured
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        measured = self._measured
        yield from _deployments(measured)
        yield from _requests(measured)
        yield from _rollouts(measured)
        yield from _gpus(measured)
        yield _gauge(
            "prsmd_engine_reachable", "1 while the engine answers", measured.engine_reachable
        )
        yield _gauge(
            "prsmd_store_writable", "1 while the store takes writes", measured.store_writable
        )
        yield _gauge(
            "prsmd_store_damaged", "1 where the state's file is damaged", measured.store_damaged
        )
        yield _gauge(
            "prsmd_usage_damaged", "1 where the usage file is damaged", measured.usage_damaged
        )
        yield from _audit(measured.audit)
        yield from _memory(self._memory)
        yield from _failures(measured.failures)
        yield _gauge("prsmd_tick_age_seconds", "Since the last tick", measured.tick_age_seconds)
        yield from _lag(measured.lag)
        yield _gauge("prsmd_host_cpu_percent", "Of the whole machine", measured.host.cpu_percent)
        yield _gauge(
            "prsmd_host_memory_available_bytes",
            "Memory of the machine that is available",
            measured.host.memory_available_bytes,
        )


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(name, text, value=float(value))


def _lag(lag: Lag) -> Iterable[Metric]:
    worst = "How late the event loop was at worst in the last minute"
    yield _gauge("prsmd_event_loop_lag_seconds", worst, lag.worst_seconds)
    lost = CounterMetricFamily(
        "prsmd_stalled_seconds", "Time in which nothing could be judged, by cause", labels=["cause"]
    )
    for kind, seconds in lag.lost_seconds.items():
        lost.add_metric([kind.value], seconds)
    yield lost


def _memory(budget: MemoryBudget) -> Iterable[Metric]:
    yield _gauge("prsmd_memory_held_bytes", "Bytes held for callers", budget.held)
    yield _gauge("prsmd_memory_limit_bytes", "That may be held for callers", budget.limits.total)
    refused = "Times that no more could be held for a caller"
    yield CounterMetricFamily("prsmd_memory_refusals", refused, value=budget.refused)


def _audit(backlog: Backlog | None) -> Iterable[Metric]:
    if backlog is None:
        return
    yield _gauge("prsmd_audit_writable", "1 while the audit logs take records", backlog.writable)
    yield _gauge("prsmd_audit_signing", "1 while the audit logs can be signed", backlog.signing)
    yield _gauge("prsmd_audit_waiting", "Inferences not on record yet", backlog.waiting)
    lost = "Inferences that had no room to wait for the record"
    yield CounterMetricFamily("prsmd_audit_lost", lost, value=backlog.lost)


def _failures(failures: Mapping[str, int]) -> Iterable[Metric]:
    counts = CounterMetricFamily(
        "prsmd_authentication_failures",
        "Attempts to say who one is that failed, or (throttled) were not looked at",
        labels=["reason"],
    )
    for reason, count in failures.items():
        counts.add_metric([reason], count)
    return (counts,) if failures else ()


def _deployments(measured: Measurements) -> Iterable[Metric]:
    replicas = GaugeMetricFamily(
        "prsmd_deployment_replicas", "Replicas by kind", labels=[*_DEPLOYMENT, "kind"]
    )
    load = GaugeMetricFamily(
        "prsmd_deployment_load", "Requests in flight, queued, slots", labels=[*_DEPLOYMENT, "kind"]
    )
    status = GaugeMetricFamily(
        "prsmd_deployment_status", "1 for the current status", labels=[*_DEPLOYMENT, "status"]
    )
    for report in measured.reports:
        item = report.deployment
        labels = [item.id, item.model_id, item.organization]
        replicas.add_metric([*labels, "desired"], report.view.desired_replicas)
        replicas.add_metric([*labels, "ready"], report.view.ready_replicas)
        status.add_metric([*labels, report.view.status.value], 1)
        loads = measured.loads[item.id]
        for kind in ("in_flight", "queued", "slots"):
            load.add_metric([*labels, kind], getattr(loads, kind))
    return (replicas, load, status)


def _requests(measured: Measurements) -> Iterable[Metric]:
    requests = CounterMetricFamily(
        "prsmd_inference_requests", "Inferences by outcome", labels=[*_DEPLOYMENT, "outcome"]
    )
    latency = HistogramMetricFamily(
        "prsmd_inference_latency_seconds", "Of answered inferences", labels=_DEPLOYMENT
    )
    for report in measured.reports:
        item = report.deployment
        totals = measured.totals.get(item.id)
        if totals is None:
            continue
        labels = [item.id, item.model_id, item.organization]
        for outcome, count in totals.requests.items():
            requests.add_metric([*labels, outcome.value], count)
        buckets, running = [], 0
        bounds = [str(bound) for bound in totals.latency_bounds_seconds] + ["+Inf"]
        for bound, count in zip(bounds, totals.latency_counts, strict=True):
            running += count
            buckets.append((bound, running))
        latency.add_metric(labels, buckets=buckets, sum_value=totals.latency_sum_seconds)
    return (requests, latency)


def _rollouts(measured: Measurements) -> Iterable[Metric]:
    """Yield what each revision answered, and the rollouts under way; ended ones have no series."""
    by_revision = (*_DEPLOYMENT, "revision")
    requests = CounterMetricFamily(
        "prsmd_revision_requests",
        "Inferences of the newest revisions by outcome",
        labels=[*by_revision, "outcome"],
    )
    under_way = GaugeMetricFamily(
        "prsmd_rollout", "1 for the phase of a rollout under way", labels=[*by_revision, "phase"]
    )
    weight = GaugeMetricFamily(
        "prsmd_rollout_traffic_percent", "Traffic of the revision on trial", labels=by_revision
    )
    for report in measured.reports:
        item = report.deployment
        rollout = report.rollout.rollout if report.rollout is not None else None
        labels = [item.id, item.model_id, item.organization]
        for number, totals in sorted(measured.revisions.get(item.id, {}).items()):
            for outcome, count in totals.requests.items():
                requests.add_metric([*labels, str(number), outcome.value], count)
        if rollout is not None and rollout.active:
            revision = [*labels, str(rollout.to_revision)]
            under_way.add_metric([*revision, rollout.phase.value], 1)
            trial = traffic(rollout)
            if trial is not None:
                weight.add_metric(revision, trial.weight)
    return (requests, under_way, weight)


def _gpus(measured: Measurements) -> Iterable[Metric]:
    labels = ("uuid", "name")
    total = GaugeMetricFamily("prsmd_gpu_memory_total_bytes", "GPU memory", labels=labels)
    used = GaugeMetricFamily("prsmd_gpu_memory_used_bytes", "GPU memory in use", labels=labels)
    busy = GaugeMetricFamily("prsmd_gpu_utilization_percent", "SM utilization", labels=labels)
    healthy = GaugeMetricFamily("prsmd_gpu_healthy", "1 while usable", labels=labels)
    for gpu in measured.gpus.gpus:
        named = [gpu.uuid, gpu.name]
        total.add_metric(named, gpu.memory_total_bytes)
        used.add_metric(named, gpu.memory_used_bytes)
        healthy.add_metric(named, gpu.unhealthy is None)
        if gpu.utilization_percent is not None:
            busy.add_metric(named, gpu.utilization_percent)
    stale = measured.gpus.stale_since is not None
    return (total, used, busy, healthy, _gauge("prsmd_gpu_telemetry_stale", "1 if stale", stale))


OPERATIONS = (
    Operation(
        method="GET",
        path="/metrics",
        handler=metrics,
        summary="Measurements for Prometheus",
        permission=Permission.NODE_READ,
        answers="text/plain",
    ),
)
OPEN_OPERATIONS = (
    OpenOperation(path="/healthz", handler=healthz, summary="Whether the process serves"),
    OpenOperation(path="/readyz", handler=readyz, summary="Whether loop, engine and store work"),
)
