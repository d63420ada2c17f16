"""Which tests stay together when several processes share the suite: those on the same engine.

Only one engine of a machine can write firewall rules. The tests that need none, those under load
among them, have an engine without; all others of the engine share the one with them. The rest goes
by files. (The groups of pytest-xdist itself have no effect with pytest 9.2, which has other node
ids.)
"""

import os

from xdist.scheduler import LoadScopeScheduling

_ON_AN_ENGINE = ("tests/e2e/", "tests/examples/", "tests/runtime/", "tests/systemd/")
_NEED_NO_FIREWALL = (
    *("autoscaling", "containers_fail", "daemon_dies", "gpus", "observation", "rollouts_"),
    *("strategies", "traffic"),
)
_PLAIN, _FIREWALL = "an engine without firewall", "the engine with the firewall"
_ORDER = (_PLAIN, _FIREWALL)


class Places(LoadScopeScheduling):
    """Gives each process one place after another, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        return place_of(nodeid)


def place_of(nodeid: str) -> str:
    """Return what a test stays together with."""
    if nodeid.startswith(tuple(f"tests/e2e/test_{name}" for name in _NEED_NO_FIREWALL)):
        return _PLAIN
    if nodeid.startswith(_ON_AN_ENGINE):
        return _FIREWALL
    return nodeid.partition("::")[0]


def order_of(nodeid: str) -> int:
    """Return which tests come before others: the longest ones first."""
    place = place_of(nodeid)
    return _ORDER.index(place) if place in _ORDER else len(_ORDER)


def beside_the_firewall() -> bool:
    """Tell whether the engine of the test that runs is not the one with the firewall."""
    running = os.environ.get("PYTEST_CURRENT_TEST", "")
    return "PYTEST_XDIST_WORKER" in os.environ and place_of(running) == _PLAIN
