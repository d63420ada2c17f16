"""How many connections and streams are open for whom, and whether one more may be.

A counter, no more: a claim counts in each of its scopes or in none, and is given back exactly once.
What a scope may hold at most is asked anew for every claim, so a changed bound holds at once.
"""

import dataclasses
from collections.abc import Callable, Iterable

CONNECTIONS = "connections"
NETWORK_CONNECTIONS = "network connections"
UNIDENTIFIED = "connections without an identity"
UNIDENTIFIED_OF_ADDRESS = "connections without an identity of one address"
OPERATOR_RESERVE = "connections of operators beyond all others"
CONNECTIONS_OF_PRINCIPAL = "connections of one principal"
CONNECTIONS_OF_ORGANIZATION = "connections of one organization"  # no bound but by a quota
STREAMS_OF_PRINCIPAL = "streams of one principal"


@dataclasses.dataclass(frozen=True, slots=True)
class Scope:
    """What is counted together: `kind` says what, `of` whose ("": of all)."""

    kind: str
    of: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Bound:
    """How many a scope may hold, and the setting or quota that says so."""

    limit: int
    setting: str


@dataclasses.dataclass(frozen=True, slots=True)
class Exceeded:
    """The scope that holds all it may."""

    scope: Scope
    bound: Bound


BoundOf = Callable[[str], Bound | None]  # of whom; None: there is none


class Claim:
    """What one connection or stream counts in, until it is released."""

    __slots__ = ("_counter", "_scopes")

    def __init__(self, counter: "ConnectionLimits", scopes: tuple[Scope, ...]) -> None:
        self._counter = counter
        self._scopes = scopes

    def release(self) -> None:
        """Give it back; only the first call counts."""
        scopes, self._scopes = self._scopes, ()
        self._counter.give_back(scopes)


class ConnectionLimits:
    """Counts what is open. A kind without a bound is counted and never refused."""

    def __init__(self) -> None:
        self._counts: dict[Scope, int] = {}
        self._bounds: dict[str, BoundOf] = {}

    def bound(self, kind: str, bound_of: BoundOf) -> None:
        """Say what the scopes of a kind may hold."""
        self._bounds[kind] = bound_of

    def claim(self, *scopes: Scope) -> Claim | Exceeded:
        """Count one more in every scope; in none where one of them holds all it may."""
        for scope in scopes:
            bound = self.bound_of(scope)
            if bound is not None and self.count(scope) >= bound.limit:
                return Exceeded(scope, bound)
        for scope in scopes:
            self._counts[scope] = self.count(scope) + 1
        return Claim(self, scopes)

    def bound_of(self, scope: Scope) -> Bound | None:
        """Return what a scope may hold; None: anything."""
        asked = self._bounds.get(scope.kind)
        return None if asked is None else asked(scope.of)

    def count(self, scope: Scope) -> int:
        """Return how many are open."""
        return self._counts.get(scope, 0)

    def counts(self) -> dict[Scope, int]:
        """Return what is open in every scope that holds something."""
        return dict(self._counts)

    def give_back(self, scopes: Iterable[Scope]) -> None:
        """Count one less in every scope. For claims only."""
        for scope in scopes:
            left = self._counts[scope] - 1
            if left:
                self._counts[scope] = left
            else:
                del self._counts[scope]


@dataclasses.dataclass(frozen=True, slots=True)
class DescriptorPlan:
    """How a process's descriptors are shared out: `connections` in all, `network` of them by TCP.

    The others are for containers, files and the engine; `operators` may open so many beyond all.
    """

    connections: int
    network: int
    operators: int


def plan_descriptors(wanted: int, descriptors: int) -> DescriptorPlan:
    """Return how many connections there may be of `wanted`, with so many descriptors in all.

    An inference needs two (the client's and the container's), so clients get less than half.
    """
    for_clients = max(2, (descriptors - min(256, descriptors // 2)) // 2)
    operators = max(1, min(32, for_clients // 8))
    connections = max(1, min(wanted, for_clients - operators))
    return DescriptorPlan(
        connections=connections,
        network=max(1, connections - max(1, min(32, connections // 8))),
        operators=operators,
    )
