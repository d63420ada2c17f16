"""The API's request of a model, from flags and from a file; and how it is to be rolled out."""

import argparse
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .options import count, pair, positive_seconds
from .session import UsageError

_CONFIG = "deployment_config"
IMAGE = (_CONFIG, "container_image")
_FLAGS = {  # flag: where its value goes in the request
    "name": ("model_name",),
    "type": ("model_type",),
    "image": IMAGE,
    "cpu": (_CONFIG, "resource_requirements", "cpu"),
    "memory": (_CONFIG, "resource_requirements", "memory"),
    "gpu": (_CONFIG, "resource_requirements", "gpu"),
    "gpu_memory": (_CONFIG, "resource_requirements", "gpu_memory"),
    "min": (_CONFIG, "scaling", "min_replicas"),
    "max": (_CONFIG, "scaling", "max_replicas"),
    "target_utilization": (_CONFIG, "scaling", "target_utilization"),
    "port": (_CONFIG, "serving", "port"),
    "protocol": (_CONFIG, "serving", "protocol"),
    "health_path": (_CONFIG, "serving", "health_path"),
    "predict_path": (_CONFIG, "serving", "predict_path"),
    "model_version": ("model_metadata", "version"),
    "description": ("model_metadata", "description"),
}
_ROLLOUT_FLAGS = {
    "strategy": ("strategy",),
    "max_surge": ("max_surge",),
    "canary_steps": ("canary", "steps"),
    "header": ("canary", "header"),
    "sticky": ("canary", "sticky"),
    "shadow_percent": ("shadow", "percent"),
    "bake": ("bake_seconds",),
    "max_error_rate": ("gate", "max_error_rate"),
    "max_latency_ratio": ("gate", "max_latency_ratio"),
    "min_requests": ("gate", "min_requests"),
    "promotion": ("promotion",),
}


def request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what runs and how."""
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
    what.add_argument(
        "--secret",
        metavar="VARIABLE=SECRET",
        type=pair,
        action="append",
        default=[],
        help="a file whose path is in VARIABLE_FILE; repeatable",
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


def rollout_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say how a new revision takes over."""
    how = parser.add_argument_group("how the new revision takes over")
    how.add_argument(
        "--strategy",
        help="auto (the default), surge, buffered_swap, recreate, blue_green, canary or shadow",
    )
    how.add_argument("--max-surge", metavar="N", type=count, help="replicas beyond the target")
    how.add_argument(
        "--canary-steps", metavar="P,P…", type=_percents, help="percents of the traffic: 10,50"
    )
    how.add_argument(
        "--header", metavar="NAME=VALUE", type=_header, help="requests that go to the canary"
    )
    how.add_argument(
        "--sticky", action="store_true", default=None, help="keep a client on one side"
    )
    how.add_argument("--shadow-percent", metavar="P", type=count, help="requests copied (100)")
    how.add_argument(
        "--bake", metavar="DURATION", type=positive_seconds, help="how long each step lasts (60s)"
    )
    how.add_argument("--max-error-rate", metavar="FRACTION", type=float, help="gate: 0.05")
    how.add_argument("--max-latency-ratio", metavar="RATIO", type=float, help="gate: 2.0")
    how.add_argument("--min-requests", metavar="N", type=count, help="gate: 20")
    how.add_argument(
        "--promotion", choices=["auto", "manual"], help="manual: a trial that passed waits for you"
    )


def body_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the API's request: the file's content with the flags over it.

    Raises:
        UsageError: The file cannot be used.
    """
    body = {} if args.file is None else read_file(args.file)
    _put(body, args, _FLAGS)
    for name, value in args.env:
        section(body, (_CONFIG, "environment", name))[name] = value
    for name, value in args.secret:
        section(body, (_CONFIG, "secrets", name))[name] = value
    return body


def rollout_of(args: argparse.Namespace) -> dict[str, Any]:
    """Return the `rollout` section that the flags ask for; empty without any."""
    rollout: dict[str, Any] = {}
    _put(rollout, args, _ROLLOUT_FLAGS)
    return rollout


def read_file(name: str) -> dict[str, Any]:
    """Return the object that a JSON or TOML file holds."""
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


def section(body: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return the object that holds the last part of `path`, made where it is missing."""
    for part in path[:-1]:
        body = body.setdefault(part, {})
        if not isinstance(body, dict):
            raise UsageError(f"{part} must be an object")
    return body


def _put(
    body: dict[str, Any], args: argparse.Namespace, flags: Mapping[str, tuple[str, ...]]
) -> None:
    for flag, path in flags.items():
        value = getattr(args, flag, None)
        if value is not None:
            section(body, path)[path[-1]] = value


def _percents(text: str) -> list[int]:
    return [count(part.strip().removesuffix("%")) for part in text.split(",")]


def _header(text: str) -> dict[str, str]:
    name, value = pair(text)
    return {"name": name, "value": value}
