"""What each part is given of its section of the settings: when it is made, and when they change."""

from prsmd.core.autoscale import AutoscaleSettings
from prsmd.core.policy import Policy
from prsmd.domain.quantity import parse_cpu, parse_memory
from prsmd.engine.observer import NodeLimits
from prsmd.engine.prober import ProberSettings
from prsmd.engine.stock import StockSettings
from prsmd.settings import (
    AutoscaleSection,
    EngineSection,
    LimitsSection,
    NodeSection,
    Settings,
)


def policy(section: EngineSection) -> Policy:
    """Return what the reconciler goes by."""
    return Policy(
        drain_timeout_seconds=section.drain_timeout_seconds,
        liveness_failures=section.liveness_failures,
    )


def probing(section: EngineSection) -> ProberSettings:
    """Return how replicas are asked for their health."""
    return ProberSettings(
        interval_seconds=section.probe_seconds, timeout_seconds=section.probe_timeout_seconds
    )


def stock(settings: Settings, retry_seconds: float) -> StockSettings:
    """Return how images are kept and pulled."""
    section = settings.images
    return StockSettings(
        folder=settings.daemon.state_dir,
        keep_revisions=section.keep_revisions,
        min_free_bytes=parse_memory(section.min_free),
        max_archive_bytes=parse_memory(section.max_archive),
        pull_attempts=section.pull_attempts,
        retry_seconds=retry_seconds,
    )


def node(section: NodeSection) -> NodeLimits:
    """Return what of the machine is kept from models."""
    reserved = section.cpu_reserved
    return NodeLimits(
        name=section.name,
        cpu_reserved_millis=0 if reserved == "0" else parse_cpu(reserved),
        memory_reserved_bytes=parse_memory(section.memory_reserved),
    )


def autoscaling(section: AutoscaleSection) -> AutoscaleSettings:
    """Return what recommendations go by."""
    return AutoscaleSettings(
        tolerance=section.tolerance, down_window_seconds=section.down_window_seconds
    )


def answer_bytes(section: LimitsSection) -> int:
    """Return how large a container's answer may be."""
    return parse_memory(section.response)
