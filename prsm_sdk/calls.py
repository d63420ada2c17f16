"""Every call of the API as a value: what is sent and how the answer is read. Sends nothing itself.

Both clients, asynchronous and not, carry out these same values. Calls that make and move revisions
are in `revision_calls`.
"""

import dataclasses
import os
from collections.abc import Callable, Mapping
from typing import Any, Generic, TypeVar
from urllib.parse import quote

from .models import (
    Deployment,
    DeploymentStatus,
    Event,
    GpuList,
    InferenceResult,
    LogLine,
    Model,
    Node,
    ScaleResult,
)
from .upload import Upload
from .wire import Page, page_of

T = TypeVar("T")
INFER_TIMEOUT = 300.0  # above the server's own limit, so that the server's words arrive


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Call(Generic[T]):
    """One request and the reading of its answer.

    `timeout` is seconds (None: the client's own). `repeatable` says that sending it twice does no
    harm; `unserved_on_refusal` that a 429 or 503 means that nothing was done. `if_match` is the
    revision that the caller has seen: at another one, nothing is done. An `upload` is sent as it
    is in the place of a `body`.
    """

    method: str
    path: str
    decode: Callable[[object], T]
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    body: Any = None
    idempotency_key: str | None = None
    timeout: float | None = None
    unserved_on_refusal: bool = False
    if_match: int | None = None
    upload: Upload | None = None

    @property
    def repeatable(self) -> bool:
        """True when a repetition has the effect of one."""
        if self.method == "GET" or "dry_run" in self.query:
            return True
        return self.idempotency_key is not None


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Follow(Generic[T]):
    """An event stream and the reading of its events.

    `resumable` says that the server continues after `Last-Event-ID`, so a cut can be bridged.
    """

    path: str
    event: str
    decode: Callable[[object], T]
    query: Mapping[str, str] = dataclasses.field(default_factory=dict)
    resumable: bool = False
    last_event_id: str = ""


def deploy(body: Mapping[str, Any], idempotency_key: str | None = None) -> Call[Deployment]:
    """Deploy a new model; `body` is the document's request."""
    key = idempotency_key or fresh_key()
    path = "/v1/custom-models/deploy"
    return Call(method="POST", path=path, decode=Deployment.decode, body=body, idempotency_key=key)


def deployment_config(
    container_image: str,
    resource_requirements: Mapping[str, str],
    scaling: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the document's `deployment_config`; `more` holds its other sections."""
    config = dict(more or {}) | {
        "container_image": container_image,
        "resource_requirements": dict(resource_requirements),
    }
    return config | ({} if scaling is None else {"scaling": dict(scaling)})


def deploy_body(
    model_name: str,
    config: Mapping[str, Any],
    model_type: str | None = None,
    model_metadata: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the document's deploy request."""
    body: dict[str, Any] = {"model_name": model_name, "deployment_config": config}
    body |= {} if model_type is None else {"model_type": model_type}
    return body | ({} if model_metadata is None else {"model_metadata": dict(model_metadata)})


def deployment_status(
    deployment_id: str, wait_seconds: float | None = None
) -> Call[DeploymentStatus]:
    """Return how a deployment does, after waiting at most `wait_seconds` until it settled."""
    path = f"/v1/custom-models/deployments/{segment(deployment_id)}"
    if wait_seconds is None:
        return Call(method="GET", path=path, decode=DeploymentStatus.decode)
    query = {"wait": f"{wait_seconds:g}"}
    return Call(
        method="GET",
        path=path,
        decode=DeploymentStatus.decode,
        query=query,
        timeout=wait_seconds + 30,
    )


def list_deployments(limit: int = 20, offset: int = 0) -> Call[Page[DeploymentStatus]]:
    """List deployments, at most 100 at a time."""
    decode = page_of(("deployments",), DeploymentStatus.decode)
    return Call(
        method="GET",
        path="/v1/custom-models/deployments",
        decode=decode,
        query=window(limit, offset),
    )


def events(deployment_id: str, limit: int = 100) -> Call[Page[Event]]:
    """List the last things that happened to a deployment, oldest first."""
    return Call(
        method="GET",
        path=f"/v1/custom-models/deployments/{segment(deployment_id)}/events",
        decode=page_of(("events",), Event.decode),
        query={"limit": str(limit)},
    )


def follow_events(deployment_id: str, after: int | None = None) -> Follow[Event]:
    """Follow what happens to a deployment, beginning after the event numbered `after`."""
    return Follow(
        path=f"/v1/custom-models/deployments/{segment(deployment_id)}/events",
        event="deployment",
        decode=Event.decode,
        resumable=True,
        last_event_id="" if after is None else str(after),
    )


def logs(
    deployment_id: str,
    tail: int | None = None,
    since: float | None = None,
    replica: str | None = None,
) -> Call[Page[LogLine]]:
    """Return log lines: the last `tail`, those since an epoch second, of one replica."""
    return Call(
        method="GET",
        path=f"/v1/custom-models/deployments/{segment(deployment_id)}/logs",
        decode=page_of(("lines",), LogLine.decode),
        query=_given(tail=tail, since=since, replica=replica),
    )


def follow_logs(
    deployment_id: str,
    tail: int | None = None,
    since: float | None = None,
    replica: str | None = None,
) -> Follow[LogLine]:
    """Follow log lines as they are written."""
    return Follow(
        path=f"/v1/custom-models/deployments/{segment(deployment_id)}/logs",
        event="log",
        decode=LogLine.decode,
        query=_given(tail=tail, since=since, replica=replica, follow="true"),
    )


def list_custom_models(limit: int = 20, offset: int = 0) -> Call[Page[Model]]:
    """List the models that the caller's organization owns."""
    decode = page_of(("custom_models", "models"), Model.decode)
    return Call(method="GET", path="/v1/custom-models", decode=decode, query=window(limit, offset))


def get_custom_model(model: str) -> Call[Model]:
    """Return one model by id or name."""
    return Call(method="GET", path=model_path(model), decode=Model.decode)


def scale(
    model: str,
    target_replicas: int,
    scaling_strategy: str = "immediate",
    idempotency_key: str | None = None,
    if_match: int | None = None,
) -> Call[ScaleResult]:
    """Ask for a number of replicas."""
    return Call(
        method="POST",
        path=f"{model_path(model)}/scale",
        decode=ScaleResult.decode,
        body={"target_replicas": target_replicas, "scaling_strategy": scaling_strategy},
        idempotency_key=idempotency_key or fresh_key(),
        if_match=if_match,
    )


def delete(model: str, if_match: int | None = None) -> Call[Mapping[str, Any]]:
    """Drain, stop and remove a model."""
    return Call(method="DELETE", path=model_path(model), decode=_mapping, if_match=if_match)


def infer(
    model: str,
    inputs: Any,
    parameters: Mapping[str, Any] | None = None,
    timeout: float | None = None,
) -> Call[InferenceResult]:
    """Ask a model; `inputs` and `parameters` reach its container as they are."""
    body = {"inputs": inputs} | ({} if parameters is None else {"parameters": dict(parameters)})
    return Call(
        method="POST",
        path=f"/v1/models/{segment(model)}/infer",
        decode=InferenceResult.decode,
        body=body,
        timeout=timeout or INFER_TIMEOUT,
        unserved_on_refusal=True,
    )


def list_models(limit: int = 20, offset: int = 0) -> Call[Page[Model]]:
    """List the models that the caller may infer with."""
    decode = page_of(("models", "custom_models"), Model.decode)
    return Call(method="GET", path="/v1/models", decode=decode, query=window(limit, offset))


def get_node() -> Call[Node]:
    """Return the appliance."""
    return Call(method="GET", path="/v1/node", decode=Node.decode)


def list_gpus() -> Call[GpuList]:
    """Return the appliance's GPUs."""
    return Call(method="GET", path="/v1/gpus", decode=GpuList.decode)


def fresh_key() -> str:
    """Return an idempotency key that nobody else has."""
    return os.urandom(16).hex()


def model_path(model: str) -> str:
    """Return the path of one model, by id or name."""
    return f"/v1/custom-models/{segment(model)}"


def segment(text: str) -> str:
    """Return `text` as one segment of a path, so that no id can reach another route."""
    quoted = quote(text, safe="")
    return quoted.replace(".", "%2E") if set(text) <= {"."} else quoted


def window(limit: int, offset: int) -> dict[str, str]:
    """Return the query of one page of a list."""
    return {"limit": str(limit), "offset": str(offset)}


def _given(**values: str | float | None) -> dict[str, str]:
    return {name: str(value) for name, value in values.items() if value is not None}


def _mapping(data: object) -> Mapping[str, Any]:
    return data if isinstance(data, Mapping) else {}
