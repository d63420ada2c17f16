"""Deploy a model, from flags or from a file that holds the API's request."""

import argparse
from typing import Any

from prsm_sdk import calls
from prsm_sdk.models import Deployment

from .body import IMAGE, body_of, request_arguments, section
from .output import show_fields, show_json
from .plans import dry_run_argument, show_dry_run
from .session import Session, UsageError, explain, note


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `deploy`."""
    parser.add_argument("name", nargs="?", help="the model's name (may stand in the file)")
    request_arguments(parser)
    dry_run_argument(parser)
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until the model runs (the default)",
    )


def run(session: Session, args: argparse.Namespace) -> int:
    """Deploy a model."""
    call = calls.deploy(request(args))
    if args.dry_run:
        return show_dry_run(session, call)
    deployment = session.client.send(call)
    explain(deployment.message, deployment.reasons)
    if args.wait:
        return _wait(session, deployment)
    if session.as_json:
        show_json(deployment.raw)
        return 0
    given = deployment.resource_allocation
    show_fields(
        {
            "deployment": deployment.deployment_id,
            "model": deployment.model_id,
            "status": deployment.status,
            "estimated time": deployment.estimated_deployment_time,
            "resources": ", ".join(f"{name} {amount}" for name, amount in given.items()),
            "endpoint": deployment.endpoint_url,
        }
    )
    return 0


def request(args: argparse.Namespace) -> dict[str, Any]:
    """Return the API's request: the file's content with the flags over it.

    Raises:
        UsageError: The file cannot be used, or name or image are in neither.
    """
    body = body_of(args)
    if "model_name" not in body:
        raise UsageError("say which name the model gets: prsmctl deploy NAME --image IMAGE")
    if "container_image" not in section(body, IMAGE):
        raise UsageError("say what to run: --image IMAGE, or container_image in the file")
    return body


def _wait(session: Session, deployment: Deployment) -> int:
    from .deployments import show_status
    from .progress import wait_until_up

    expected = deployment.estimated_deployment_time
    note(
        f"{deployment.deployment_id} accepted"
        + (f"; estimated time: {expected}" if expected else "")
    )
    status = wait_until_up(session, deployment.deployment_id)
    if session.as_json:
        show_json(status.raw)
    else:
        show_status(status)
    return 0


COMMANDS = {"deploy": (arguments, run)}
