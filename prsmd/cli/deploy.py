"""Deploy a model, from flags or from a file that holds the API's request."""

import argparse
import json
import tomllib
from pathlib import Path
from typing import Any

from prsm_sdk import calls
from prsm_sdk.models import Deployment

from .options import count, pair
from .output import show_fields, show_json
from .session import Session, UsageError, explain, note

_FLAGS = {  # flag: where its value goes in the request
    "name": ("model_name",),
    "type": ("model_type",),
    "image": ("deployment_config", "container_image"),
    "cpu": ("deployment_config", "resource_requirements", "cpu"),
    "memory": ("deployment_config", "resource_requirements", "memory"),
    "gpu": ("deployment_config", "resource_requirements", "gpu"),
    "gpu_memory": ("deployment_config", "resource_requirements", "gpu_memory"),
    "min": ("deployment_config", "scaling", "min_replicas"),
    "max": ("deployment_config", "scaling", "max_replicas"),
    "target_utilization": ("deployment_config", "scaling", "target_utilization"),
    "port": ("deployment_config", "serving", "port"),
    "protocol": ("deployment_config", "serving", "protocol"),
    "health_path": ("deployment_config", "serving", "health_path"),
    "predict_path": ("deployment_config", "serving", "predict_path"),
    "model_version": ("model_metadata", "version"),
    "description": ("model_metadata", "description"),
}


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add the arguments of `deploy`."""
    parser.add_argument("name", nargs="?", help="the model's name (may stand in the file)")
    parser.add_argument(
        "-f",
        "--file",
        metavar="FILE",
        help="the request as the API takes it, in JSON or TOML; flags go over it",
    )
    what = parser.add_argument_group("what runs")
    what.add_argument("--image", help="container image, such as company/model:v1")
    what.add_argument("--type", help="kind of model, such as text-classification")
    what.add_argument("--model-version", metavar="X.Y.Z", help="semantic version (1.0.0)")
    what.add_argument("--description", help="one line for people")
    what.add_argument(
        "--env", metavar="NAME=VALUE", type=pair, action="append", default=[], help="repeatable"
    )
    needs = parser.add_argument_group("what one replica needs, written as in Kubernetes")
    needs.add_argument("--cpu", help='"2", "500m"')
    needs.add_argument("--memory", help='"8Gi", "512M"')
    needs.add_argument("--gpu", help='"0", "1", "2", or a share "0.5"')
    needs.add_argument("--gpu-memory", metavar="SIZE", help='"10Gi" on each GPU')
    scaling = parser.add_argument_group("scaling")
    scaling.add_argument("--min", metavar="N", type=count, help="replicas at least (1)")
    scaling.add_argument("--max", metavar="N", type=count, help="replicas at most (10)")
    scaling.add_argument("--target-utilization", metavar="FRACTION", type=float, help="0.7")
    serving = parser.add_argument_group("how to speak to the container")
    serving.add_argument("--port", type=count, help="8080")
    serving.add_argument("--protocol", help="native")
    serving.add_argument("--health-path", metavar="PATH", help="/health")
    serving.add_argument("--predict-path", metavar="PATH", help="/infer")
    parser.add_argument(
        "--wait",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="wait until the model runs (the default)",
    )


def run(session: Session, args: argparse.Namespace) -> int:
    """Deploy a model."""
    deployment = session.client.send(calls.deploy(request(args)))
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
    body = {} if args.file is None else _read(args.file)
    for flag, path in _FLAGS.items():
        value = getattr(args, flag)
        if value is not None:
            _section(body, path)[path[-1]] = value
    for name, value in args.env:
        _section(body, ("deployment_config", "environment", name))[name] = value
    if "model_name" not in body:
        raise UsageError("say which name the model gets: prsmctl deploy NAME --image IMAGE")
    if "container_image" not in _section(body, _FLAGS["image"]):
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


def _read(name: str) -> dict[str, Any]:
    try:
        text = Path(name).read_text(encoding="utf-8")
        body = tomllib.loads(text) if name.endswith(".toml") else json.loads(text)
    except OSError as error:
        raise UsageError(f"{name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        kind = "TOML" if name.endswith(".toml") else "JSON"
        raise UsageError(f"{name} is not {kind}: {error}") from error
    if not isinstance(body, dict):
        raise UsageError(f"{name} must hold an object")
    return body


def _section(body: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the object that holds the last part of `path`, made where it is missing."""
    for part in path[:-1]:
        body = body.setdefault(part, {})
        if not isinstance(body, dict):
            raise UsageError(f"{part} must be an object")
    return body


COMMANDS = {"deploy": (arguments, run)}
