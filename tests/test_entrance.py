"""Who is a model's container: whoever the engine says, and whoever is on a model's bridge."""

from types import SimpleNamespace
from typing import Any

from prsmd.entrance import Replicas


def test_a_container_is_known_by_its_bridge_before_anyone_looked_for_it() -> None:
    asked: list[str] = []
    ways = {"10.1.0.2": "prsmi-1", "10.2.0.2": "prsmx-2", "192.0.2.7": "eth0"}

    def interface_of(address: str) -> str | None:
        asked.append(address)
        return ways.get(address)

    observer: Any = SimpleNamespace(replica_hosts=frozenset({"172.17.0.2"}))
    replicas = Replicas(observer, interface_of)
    for _ in range(2):
        assert [replicas.has(a) for a in (*ways, "172.17.0.2", "::1")] == [
            *(True, True, False),
            *(True, False),
        ]
    assert asked.count("192.0.2.7") == asked.count("::1") == 1
    assert asked.count("10.1.0.2") == 2  # a network can go, and its addresses with it
