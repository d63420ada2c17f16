"""Which tests stay together when two processes share the suite: those that need the same engine.

The tests under load, which are long, have an engine to themselves; all others of the engine share
the one on which the firewall is tested. The rest goes by files. (The groups of pytest-xdist itself
have no effect with pytest 9.2, which has other node ids.)
"""

import os

from xdist.scheduler import LoadScopeScheduling

_LOADS = "tests/e2e/test_rollouts_"
_ON_THE_ENGINE = ("tests/e2e/", "tests/examples/", "tests/runtime/", "tests/systemd/")
_ORDER = ("loads", "engine")


class Places(LoadScopeScheduling):
    """Gives each process one place after another, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return place_of(nodeid)


def place_of(nodeid: str) -> str:
    """Return what a test stays together with."""
    if nodeid.startswith(_LOADS):
        return "loads"
    if nodeid.startswith(_ON_THE_ENGINE):
        return "engine"
    return nodeid.partition("::")[0]


def order_of(nodeid: str) -> int:
    """Return which tests come before others: the longest ones first."""
    place = place_of(nodeid)
    return _ORDER.index(place) if place in _ORDER else len(_ORDER)


def beside_the_firewall() -> bool:
    """Tell whether the test that runs is under load while others are on the other engine."""
    running = os.environ.get("PYTEST_CURRENT_TEST", "")
    return "PYTEST_XDIST_WORKER" in os.environ and place_of(running) == "loads"
