"""The daemon and its machine: state, logs, what is kept away from models, the loops' clocks."""

import socket
from pathlib import Path
from typing import Literal

from pydantic import Field

from .section import Cpu, Memory, Seconds, Section


class DaemonSection(Section):
    """Where state is kept and how the daemon logs."""

    state_dir: Path = Path("/var/lib/prsmd")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text", "journal"] = "auto"
    access_log: Literal["all", "failures", "off"] = "failures"
    stop_timeout_seconds: Seconds = 30.0


class NodeSection(Section):
    """This machine, and what of it is kept away from models."""

    name: str = Field(
        default_factory=socket.gethostname, pattern="^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
    )
    cpu_reserved: Cpu = "0"
    memory_reserved: Memory = "512Mi"


class EngineSection(Section):
    """How often the loops look and how patient they are."""

    tick_seconds: Seconds = 5.0
    probe_seconds: Seconds = 5.0
    probe_timeout_seconds: Seconds = 2.0
    liveness_failures: int = Field(default=3, ge=1, le=100)
    drain_timeout_seconds: Seconds = 30.0


class GpusSection(Section):
    """NVML telemetry."""

    sample_seconds: Seconds = 2.0
    deadline_seconds: Seconds = 5.0


class AutoscaleSection(Section):
    """The autoscaler's clock."""

    interval_seconds: Seconds = 5.0
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    down_window_seconds: Seconds = 300.0
