"""Makes the counter of connections and streams, with the bounds of the settings and the process."""

import resource

from prsmd.core.connection_limits import (
    CONNECTIONS,
    CONNECTIONS_OF_ORGANIZATION,
    CONNECTIONS_OF_PRINCIPAL,
    NETWORK_CONNECTIONS,
    OPERATOR_RESERVE,
    STREAMS_OF_PRINCIPAL,
    UNIDENTIFIED,
    UNIDENTIFIED_OF_ADDRESS,
    Bound,
    BoundOf,
    ConnectionLimits,
    DescriptorPlan,
    Scope,
    plan_descriptors,
)
from prsmd.core.write_progress import WriteLimits
from prsmd.domain.quantity import parse_memory
from prsmd.domain.resource_quota import Dimension
from prsmd.service.published_limits import PublishedLimits
from prsmd.settings import LimitsSection


def connection_limits_of(section: LimitsSection, published: PublishedLimits) -> ConnectionLimits:
    """Return the counter of connections and streams, with the bounds of settings and quotas."""
    limits = ConnectionLimits()
    apply_bounds(limits, section)

    def of_organization(name: str) -> Bound | None:
        hard = published.hard(name, Dimension.CONNECTIONS)
        return None if hard is None else Bound(hard, f"the quota of {name}")

    limits.bound(CONNECTIONS_OF_ORGANIZATION, of_organization)
    published.open_connections = lambda name: limits.count(Scope(CONNECTIONS_OF_ORGANIZATION, name))
    return limits


def apply_bounds(limits: ConnectionLimits, section: LimitsSection) -> None:
    """Bound connections and streams by the settings from now on; what is open stays."""
    plan = descriptor_plan(section)
    for kind, limit, setting in (
        (CONNECTIONS, plan.connections, "limits.connections"),
        (NETWORK_CONNECTIONS, plan.network, "limits.connections"),
        (OPERATOR_RESERVE, plan.operators, "limits.connections"),
        (UNIDENTIFIED, section.connections_unidentified, "limits.connections_unidentified"),
        (
            UNIDENTIFIED_OF_ADDRESS,
            section.connections_unidentified_per_address,
            "limits.connections_unidentified_per_address",
        ),
        (
            CONNECTIONS_OF_PRINCIPAL,
            section.connections_per_principal,
            "limits.connections_per_principal",
        ),
        (STREAMS_OF_PRINCIPAL, section.streams_per_principal, "limits.streams_per_principal"),
    ):
        limits.bound(kind, _always(Bound(limit, setting)))


def write_limits_of(section: LimitsSection) -> WriteLimits:
    """Return how fast a client has to take its answer."""
    return WriteLimits(section.write_timeout_seconds, parse_memory(section.write_rate))


def descriptor_plan(section: LimitsSection) -> DescriptorPlan:
    """Return how many connections this process can have, of those that are wanted."""
    descriptors, _most = resource.getrlimit(resource.RLIMIT_NOFILE)
    return plan_descriptors(section.connections, descriptors)


def _always(bound: Bound) -> BoundOf:
    return lambda _of: bound
