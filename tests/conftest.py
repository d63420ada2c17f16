"""What every suite shares: the private Docker engine, registries and whole daemons."""

from pathlib import Path

import pytest

pytest_plugins = [
    "tests.support.engine_fixtures",
    "tests.support.podman",
    "tests.support.registry_fixtures",
    "tests.support.daemon_fixtures",
]
# Whole daemons, processes, sockets and files: what `scripts/test --fast` has no time for.
_REAL_PARTS = ("api", "devices", "engine", "examples", "gateway", "limits", "store")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the suites that work on real parts as slow."""
    folders = [Path(__file__).parent / name for name in _REAL_PARTS]
    for item in items:
        if any(item.path.is_relative_to(folder) for folder in folders):
            item.add_marker(pytest.mark.slow)
