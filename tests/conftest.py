"""What every suite shares: the private Docker engine, registries and whole daemons.

Says too which tests are slow, and which stay together when several processes share the work.
"""

import signal
from pathlib import Path

import pytest

from tests.support.engine import GROUP_OF_LOADS

# In the background of a shell this process ignores SIGINT, and so would all that it starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.support.engine_fixtures",
    "tests.support.podman",
    "tests.support.registry_fixtures",
    "tests.support.daemon_fixtures",
]
_TESTS = Path(__file__).parent
# Whole daemons, processes, sockets and files: what `scripts/test --fast` has no time for.
_REAL_PARTS = ("api", "devices", "engine", "examples", "gateway", "limits", "store")
_LONG_LOADS = "e2e/test_rollouts_"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the suites that work on real parts as slow, and put every test into its group."""
    for item in items:
        place = item.path.relative_to(_TESTS)
        if place.parts[0] in _REAL_PARTS:
            item.add_marker(pytest.mark.slow)
        item.add_marker(pytest.mark.xdist_group(_group(item, place)))
    if hasattr(config, "workerinput"):  # the longest groups first
        items.sort(key=lambda item: item.get_closest_marker("engine") is None)


def _group(item: pytest.Item, place: Path) -> str:
    """Return what the test stays together with: what is costly to make is made once or twice."""
    if str(place).startswith(_LONG_LOADS):
        return GROUP_OF_LOADS
    if item.get_closest_marker("engine") is not None:
        return "engine"
    return str(place)
