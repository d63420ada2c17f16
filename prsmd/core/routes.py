"""The routing table: which endpoints get traffic of which model. Published whole, never edited."""

import dataclasses
from collections.abc import Mapping

from prsmd.domain.replica import Endpoint
from prsmd.domain.spec import Serving


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class RouteTarget:
    """One replica that may get traffic."""

    replica_id: str
    endpoint: Endpoint


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """Everything the data path needs to know of one model.

    `targets` may be empty while replicas start or the model is scaled to zero: `waiting_for` then
    says what a request is waiting for, in words, and `hopeless` that waiting cannot help.
    """

    deployment_id: str
    organization: str
    model_id: str
    model_name: str
    model_type: str
    version: str
    revision: int
    serving: Serving
    targets: tuple[RouteTarget, ...]
    waiting_for: str = ""
    hopeless: bool = False


@dataclasses.dataclass(frozen=True, slots=True)
class RoutingTable:
    """All routes by deployment id, as of one tick."""

    routes: Mapping[str, Route]
