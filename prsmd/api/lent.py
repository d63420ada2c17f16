"""What those see of a model who borrow it: how it does, not how it is made or where it runs."""

from collections.abc import Mapping
from typing import Any

from prsmd.api.shares import borrowed_body
from prsmd.service.shares import Lent

_MODEL = (
    "model_id",
    "model_name",
    "organization",
    "deployment_id",
    "model_type",
    "status",
    "revision",
    "version",
    "created_at",
    "model_metadata",
)
_STATUS = (
    "deployment_id",
    "status",
    "health_status",
    "replicas",
    "model_id",
    "model_name",
    "organization",
    "revision",
    "model_version",
    "created_at",
    "updated_at",
)
_PERFORMANCE = ("requests_per_second", "avg_latency_ms", "p95_latency_ms", "error_rate")


def lent_model(body: Mapping[str, Any], lent: Lent | None, endpoint_url: str) -> dict[str, Any]:
    """Return what a borrower sees of a model whose owner sees `body`.

    `endpoint_url` names the deployment: the borrower may have a model of its own of that name.
    """
    shown = {name: body[name] for name in _MODEL}
    return {**shown, "endpoint_url": endpoint_url, "share": _share(lent)}


def lent_status(body: Mapping[str, Any], lent: Lent | None, endpoint_url: str) -> dict[str, Any]:
    """Return what a borrower sees of a status of which the owner sees `body`.

    The reason and most of the message speak of replicas, hardware and rollouts.
    """
    replicas, performance = body["replicas"], body["performance_metrics"]
    return {
        **{name: body[name] for name in _STATUS},
        "endpoint_url": endpoint_url,
        "performance_metrics": {name: performance[name] for name in _PERFORMANCE},
        "message": f"{replicas['available']} of {replicas['desired']} replicas can serve",
        "share": _share(lent),
    }


def _share(lent: Lent | None) -> dict[str, Any] | None:
    return None if lent is None else borrowed_body(lent)
