"""The appliance and its GPUs."""

import argparse
from collections.abc import Mapping

from prsm_sdk import calls
from prsm_sdk.models import Gpu

from .output import gib, percent, show_fields, show_json, show_table
from .session import Session, note


def no_arguments(parser: argparse.ArgumentParser) -> None:
    """Add nothing: the command has no arguments of its own."""


def run_node(session: Session, _args: argparse.Namespace) -> int:
    """Show the appliance."""
    node = session.client.send(calls.get_node())
    if session.as_json:
        show_json(node.raw)
        return 0
    show_fields(_flat(node.raw))
    return 0


def run_gpus(session: Session, _args: argparse.Namespace) -> int:
    """List the GPUs."""
    answer = session.client.send(calls.list_gpus())
    if session.as_json:
        show_json(answer.raw)
        return 0
    if answer.error:
        note(f"the GPUs cannot be read: {answer.error}")
    if answer.stale_since:
        note(f"this was measured before {answer.stale_since}")
    if answer.gpus or not answer.error:
        columns = ["GPU", "UUID", "NAME", "MEMORY", "BUSY", "TEMP", "POWER", "HEALTH", "USED BY"]
        show_table(columns, [_row(gpu) for gpu in answer.gpus])
    return 0


def _row(gpu: Gpu) -> tuple[object, ...]:
    heat, power = gpu.temperature_celsius, gpu.power_watts
    return (
        gpu.index,
        gpu.uuid,
        gpu.name,
        f"{gib(gpu.memory_used_bytes)} of {gib(gpu.memory_total_bytes)}",
        percent(gpu.utilization_percent),
        None if heat is None else f"{heat:.0f} °C",
        None if power is None else f"{power:.0f} W",
        gpu.health,
        tuple(_holder(item) for item in gpu.reserved_by),
    )


def _holder(item: object) -> object:
    """Return what names a reservation, whether the server sends a name or an object."""
    if isinstance(item, Mapping):
        return item.get("replica_id") or item.get("deployment_id") or item.get("model_id")
    return item


def _flat(fields: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """Return nested objects as one, with sizes for people."""
    flat: dict[str, object] = {}
    for name, value in fields.items():
        label = f"{prefix}{name.replace('_', ' ')}"
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{label} ")
        elif name.endswith("_bytes"):
            flat[label.removesuffix(" bytes")] = gib(value)
        elif not isinstance(value, list):
            flat[label] = ("yes" if value else "no") if isinstance(value, bool) else value
    return flat


COMMANDS = {"node": (no_arguments, run_node), "gpus": (no_arguments, run_gpus)}
