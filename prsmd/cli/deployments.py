"""Deployments: list them, and show how one does."""

import argparse

from prsm_sdk import calls
from prsm_sdk.models import DeploymentStatus, ReplicaDetail, Rollout

from .options import count
from .output import percent, printable, show_fields, show_json, show_table
from .session import Session


def list_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `list`."""
    parser.add_argument("--limit", type=count, default=100, help="at most this many (100)")
    parser.add_argument("--offset", type=count, default=0, help="leave out the first ones")


def run_list(session: Session, args: argparse.Namespace) -> int:
    """List deployments."""
    page = session.client.send(calls.list_deployments(args.limit, args.offset))
    if session.as_json:
        show_json(page.raw)
        return 0
    show_table(
        ["DEPLOYMENT", "MODEL", "STATUS", "READY", "REVISION", "MESSAGE"],
        [(d.deployment_id, d.model_id, d.status, _ready(d), d.revision, d.message) for d in page],
    )
    if page.has_more:
        print(f"{page.total - page.offset - len(page)} more: --offset {page.offset + len(page)}")
    return 0


def status_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `status`."""
    parser.add_argument("name", help="deployment id, model id or model name")
    parser.add_argument("--wait", action="store_true", help="wait until it runs or failed")


def run_status(session: Session, args: argparse.Namespace) -> int:
    """Show how a deployment does."""
    status = session.status_of(args.name)
    if args.wait:
        from .progress import wait_until_up

        status = wait_until_up(session, status.deployment_id)
    if session.as_json:
        show_json(status.raw)
    else:
        show_status(status)
    return 0


def show_status(status: DeploymentStatus) -> None:
    """Print a status for people."""
    metrics, usage = status.performance_metrics, status.resource_usage
    show_fields(
        {
            "deployment": status.deployment_id,
            "model": status.model_id,
            "status": status.status,
            "health": status.health_status,
            "why": ": ".join(part for part in (status.reason, status.message) if part),
            "replicas": f"{_ready(status)} ready",
            "version": status.model_version,
            "revision": status.revision,
            "rollout": status.rollout and _rollout(status.rollout),
            "endpoint": status.endpoint_url,
            "requests": metrics
            and f"{_number(metrics.requests_per_second)}/s, {_number(metrics.avg_latency_ms)} ms, "
            f"{percent((metrics.error_rate or 0) * 100)} errors",
            "usage": usage
            and f"cpu {percent(usage.cpu_percent)}, memory {percent(usage.memory_percent)}, "
            f"gpu {percent(usage.gpu_percent)}",
        }
    )
    if status.replica_details:
        print()
        show_table(
            ["REPLICA", "SLOT", "STATE", "READY", "GPUS", "ENDPOINT", "MESSAGE"],
            [_replica_row(replica) for replica in status.replica_details],
        )
    for replica in status.replica_details:
        _show_last_lines(replica)


def _rollout(rollout: Rollout) -> str:
    from .rollouts import headline

    return headline(rollout)


def _show_last_lines(replica: ReplicaDetail) -> None:
    if replica.exit is not None and replica.exit.log_tail:
        print(f"\nlast lines of {printable(replica.replica_id)}:")
        for line in replica.exit.log_tail:
            print(f"  {printable(line)}")


def _replica_row(replica: ReplicaDetail) -> tuple[object, ...]:
    ended = replica.exit.message if replica.exit is not None else ""
    return (
        replica.replica_id,
        replica.slot,
        replica.state,
        replica.ready,
        replica.gpu_uuids,
        replica.endpoint,
        ended or replica.message,
    )


def _ready(status: DeploymentStatus) -> str:
    return f"{status.replicas.ready}/{status.replicas.desired}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


COMMANDS = {"list": (list_arguments, run_list), "status": (status_arguments, run_status)}
