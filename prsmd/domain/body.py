"""A spec in the form in which clients write it: written back, patched, compared field by field.

Knows the form only; whether a body is right is for whoever reads it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from .deployment import FieldChange
from .quantity import format_cpu, format_gpu, format_memory
from .spec import Resources, SecretUse, Serving, Spec

Body = dict[str, Any]
HIDDEN = "<hidden>"  # stands for a value that may be a secret
_CONFIG = "deployment_config"
_PRIVATE = tuple(f"{_CONFIG}.{name}" for name in ("environment", "command", "args"))


def body_of(spec: Spec) -> Body:
    """Return the request body, without a model's name, that asks for exactly this spec."""
    return {
        "model_type": spec.model_type,
        _CONFIG: {
            "container_image": spec.image,
            "resource_requirements": _resources(spec.resources),
            "scaling": {
                "min_replicas": spec.scaling.min_replicas,
                "max_replicas": spec.scaling.max_replicas,
                "target_utilization": spec.scaling.target_utilization,
                "scale_to_zero_after_seconds": spec.scaling.scale_to_zero_after_seconds,
            },
            "serving": _serving(spec.serving),
            "security": {
                "run_as_user": spec.security.run_as_user,
                "writable_root": spec.security.writable_root,
                "egress": spec.security.egress,
                "runtime_class": spec.security.runtime_class,
            },
            "environment": dict(spec.environment),
            "secrets": {name: _secret(use) for name, use in spec.secrets.items()},
            "command": list(spec.command),
            "args": list(spec.args),
        },
        "model_metadata": {
            "description": spec.metadata.description,
            "version": spec.metadata.version,
            "capabilities": list(spec.metadata.capabilities),
            "domains": list(spec.metadata.domains),
        },
    }


def patched(body: Any, patch: Any) -> Any:
    """Return `body` with a JSON merge patch (RFC 7396) applied: null takes a member away."""
    if not isinstance(patch, Mapping):
        return patch
    merged = dict(body) if isinstance(body, Mapping) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = patched(merged.get(name), value)
    return merged


def differences(before: Spec, after: Spec) -> tuple[FieldChange, ...]:
    """Return every field that differs, by its dotted name in the body.

    What may hold a secret (environment, command, arguments) is named, its values are not shown.
    """
    old, new = dict(_fields(body_of(before))), dict(_fields(body_of(after)))
    names = [*old, *(name for name in new if name not in old)]
    return tuple(
        FieldChange(field=name, before=_shown(name, old), after=_shown(name, new))
        for name in names
        if (name in old) != (name in new) or old.get(name) != new.get(name)
    )


def contents(spec: Spec) -> tuple[FieldChange, ...]:
    """Return every field that a spec gives something, as what changes where there was none."""
    given = dict(_fields(body_of(spec)))
    return tuple(
        FieldChange(field=name, before=None, after=_shown(name, given))
        for name, value in given.items()
        if value not in (None, "", [])
    )


def _secret(use: SecretUse) -> Any:
    return {"name": use.name, "as": "environment"} if use.in_environment else use.name


def _resources(needs: Resources) -> Body:
    memory = needs.gpu_memory_bytes
    return {
        "cpu": format_cpu(needs.cpu_millis),
        "memory": format_memory(needs.memory_bytes),
        "gpu": format_gpu(needs.gpu_millis),
        "gpu_memory": None if memory is None else format_memory(memory),
    }


def _serving(serving: Serving) -> Body:
    return {
        "protocol": serving.protocol,
        "port": serving.port,
        "predict_path": serving.predict_path,
        "health_path": serving.health_path,
        "startup_timeout_seconds": serving.startup_timeout_seconds,
        "request_timeout_seconds": serving.request_timeout_seconds,
        "max_concurrency": serving.max_concurrency,
        "queue_depth": serving.queue_depth,
    }


def _fields(body: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in body.items():
        if isinstance(value, Mapping):
            yield from _fields(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _shown(name: str, values: Mapping[str, Any]) -> Any:
    value = values.get(name)
    return HIDDEN if value and name.startswith(_PRIVATE) else value
