"""The runtimes by the name they have in the settings: one line each.

A runtime is imported only when it is chosen: the Docker SDK alone costs 20 MB.
"""

import importlib
from collections.abc import Mapping

from .base import Runtime

_RUNTIMES: Mapping[str, tuple[str, str]] = {
    "docker": ("docker", "DockerRuntime"),
    "process": ("process", "ProcessRuntime"),
    "fake": ("fake", "FakeRuntime"),
}
NAMES = tuple(_RUNTIMES)


def make(name: str, settings: object) -> Runtime:
    """Return the runtime called `name`, made from its own settings. KeyError for no such name."""
    module, constructor = _RUNTIMES[name]
    runtime: Runtime = getattr(importlib.import_module(f".{module}", __package__), constructor)(
        settings
    )
    return runtime
