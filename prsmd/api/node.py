"""The appliance: node and GPUs."""

from typing import Any

from aiohttp import web

from prsmd import __version__
from prsmd.api.operations import Operation, Services
from prsmd.api.requests import refuse_unknown
from prsmd.api.respond import json_response, rfc3339, rounded
from prsmd.domain.access import Permission
from prsmd.domain.quantity import format_gpu
from prsmd.service.caller import Caller
from prsmd.service.node import GpuReport


async def node(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Show the machine and what is reserved on it."""
    refuse_unknown(request)
    report = await services.nodes.get(caller)
    observed, host = report.observed, report.observed.node.host
    return json_response(
        {
            "name": observed.node.name,
            "version": __version__,
            "runtime": {
                "name": report.runtime,
                "isolates": report.isolates,
                "reachable": observed.containers is not None,
                "error": report.engine_error,
            },
            "cpu": {
                "count": host.cpu_count,
                "percent": rounded(host.cpu_percent, 1),
                "allocatable_millis": observed.node.cpu_millis,
                "reserved_millis": report.reserved_cpu_millis,
            },
            "memory": {
                "total_bytes": host.memory_total_bytes,
                "available_bytes": host.memory_available_bytes,
                "allocatable_bytes": observed.node.memory_bytes,
                "reserved_bytes": report.reserved_memory_bytes,
            },
            "gpus_supported": observed.node.gpus.supported,
            "gpu_count": len(observed.node.gpus.gpus),
        }
    )


async def gpus(services: Services, request: web.Request, caller: Caller) -> web.Response:
    """Show every GPU with its telemetry and who reserved it."""
    refuse_unknown(request)
    report = await services.nodes.get(caller)
    sample = report.observed.node.gpus
    return json_response(
        {
            "gpus": [_gpu_body(item) for item in report.gpus],
            "supported": sample.supported,
            "driver_version": sample.driver_version,
            "taken_at": rfc3339(sample.taken_at),
            "stale_since": rfc3339(sample.stale_since),
            "error": sample.error,
        }
    )


def _gpu_body(item: GpuReport) -> dict[str, Any]:
    gpu = item.gpu
    return {
        "uuid": gpu.uuid,
        "name": gpu.name,
        "index": gpu.index,
        "memory_total_bytes": gpu.memory_total_bytes,
        "memory_used_bytes": gpu.memory_used_bytes,
        "memory_reserved_bytes": item.reserved_memory_bytes,
        "memory_strangers_bytes": item.strangers_memory_bytes,
        "utilization_percent": gpu.utilization_percent,
        "memory_bandwidth_percent": gpu.memory_bandwidth_percent,
        "temperature_celsius": gpu.temperature_celsius,
        "power_watts": gpu.power_watts,
        "mig_parent": gpu.mig_parent,
        "xid_errors": list(gpu.xid_errors),
        "health": gpu.unhealthy or "healthy",
        "reserved": format_gpu(item.reserved_millis),
        "reserved_by": list(item.reserved_by),
        "processes": [
            {"pid": p.pid, "name": p.name, "memory_bytes": p.memory_bytes} for p in gpu.processes
        ],
    }


OPERATIONS = (
    Operation(
        method="GET",
        path="/v1/node",
        handler=node,
        summary="The machine and what is reserved on it",
        permission=Permission.NODE_READ,
    ),
    Operation(
        method="GET",
        path="/v1/gpus",
        handler=gpus,
        summary="GPUs with telemetry and reservations",
        permission=Permission.NODE_READ,
    ),
)
