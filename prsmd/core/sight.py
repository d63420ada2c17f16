"""Answers the small questions about one replica in an observation. Decides nothing."""

import dataclasses
from collections.abc import Mapping

from prsmd.core.plan import Observed, ObservedContainer, Probe
from prsmd.core.stalls import lost_on_clock
from prsmd.domain.replica import Endpoint, Replica, ReplicaState

_NEVER_PROBED = Probe(ready=False)


@dataclasses.dataclass(frozen=True, slots=True)
class Sight:
    """An observation, indexed by replica. `containers` is None while the engine is silent."""

    observed: Observed
    containers: Mapping[str, ObservedContainer] | None

    @classmethod
    def of(cls, observed: Observed) -> "Sight":
        """Return the index of an observation."""
        if observed.containers is None:
            return cls(observed, None)
        return cls(observed, {seen.replica_id: seen for seen in observed.containers})

    def container(self, replica: Replica) -> ObservedContainer | None:
        """Return the replica's container; None where there is none or the engine is silent."""
        return self.containers.get(replica.id) if self.containers is not None else None

    def probe(self, replica: Replica) -> Probe:
        """Return what the prober last found; a replica never probed is not ready."""
        return self.observed.probes.get(replica.id, _NEVER_PROBED)

    def probed(self, replica: Replica) -> bool:
        """Tell whether the prober has asked the replica at least once since the daemon started."""
        return replica.id in self.observed.probes

    def may_run(self, replica: Replica) -> bool:
        """Tell whether nothing speaks against the container running: a silent engine does not."""
        if self.containers is None:
            return True
        container = self.container(replica)
        return container is not None and container.running

    def ready(self, replica: Replica) -> bool:
        """Tell whether a replica can serve now: in service, its container up, its probe good."""
        in_service = replica.state is ReplicaState.RUNNING
        return in_service and self.may_run(replica) and self.probe(replica).ready

    def endpoint(self, replica: Replica) -> Endpoint | None:
        """Return where the replica is reached: as the engine says, else as noted in its row."""
        container = self.container(replica)
        if container is not None and container.endpoint is not None:
            return container.endpoint
        return replica.endpoint

    def counted(self, since: float) -> float:
        """Return the seconds since a moment, without those in which nobody could look."""
        at = self.observed.at
        return at - since - lost_on_clock(self.observed.stalls, since, at)

    def in_flight(self, replica: Replica) -> int:
        """Return how many inferences the replica is answering now."""
        return self.observed.in_flight.get(replica.id, 0)

    def worked_on(self, replica: Replica) -> bool:
        """Tell whether the executor has a task in progress on the replica."""
        return replica.id in self.observed.working
