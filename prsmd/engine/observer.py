"""Takes one snapshot of the world for one decision. Concludes nothing.

An engine that does not answer is observed as such; telemetry says itself how old it is.
"""

import asyncio
import dataclasses
from collections.abc import Callable, Mapping, Sequence

from prsmd.core.plan import Observed, ObservedContainer, Probe
from prsmd.core.stalls import OWN
from prsmd.core.strangers import strangers_memory, strangers_pids
from prsmd.core.trial import TrialReading
from prsmd.devices.base import Gpus, Host
from prsmd.domain.errors import EngineError
from prsmd.domain.node import GpuSample, Node
from prsmd.engine.loop_lag import LoopLag
from prsmd.runtime.base import Container, ContainerState, Runtime

# A look at the engine takes milliseconds. What is published must not wait for one that hangs as
# long as its driver would; one that is merely slow is given more time after each look in vain.
_PATIENCE_SECONDS = 2.0
_LONGEST_PATIENCE_SECONDS = 8.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class NodeLimits:
    """This machine's name and what is kept away from models (millicores, bytes)."""

    name: str
    cpu_reserved_millis: int
    memory_reserved_bytes: int


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Feeds:
    """What other components know at the moment of a snapshot, each as a function."""

    probes: Callable[[], Mapping[str, Probe]]
    in_flight: Callable[[], Mapping[str, int]]
    working: Callable[[], frozenset[str]]
    trials: Callable[[], Mapping[str, TrialReading]]
    demand: Callable[[], Mapping[str, float]]


class Observer:
    """Reads the engine, the devices and the feeds.

    `containers` and `engine_error` are what the engine said last; `replica_hosts` are the addresses
    that only our containers have (none where the runtime does not isolate); `lag` tells when nobody
    could look.
    """

    def __init__(
        self,
        *,
        runtime: Runtime,
        gpus: Gpus,
        host: Host,
        limits: NodeLimits,
        feeds: Feeds,
        lag: LoopLag,
    ) -> None:
        self.containers: Mapping[str, Container] = {}
        self.replica_hosts: frozenset[str] = frozenset()
        self.engine_error: str | None = None
        self._runtime = runtime
        self._gpus = gpus
        self._host = host
        self._limits = limits
        self._feeds = feeds
        self.lag = lag
        self._patience_seconds = _PATIENCE_SECONDS
        self._latest: Observed | None = None

    def apply(self, limits: NodeLimits) -> None:
        """Keep this much of the machine from models, from the next look on."""
        self._limits = limits

    async def snapshot(self) -> Observed:
        """Return the world now, at the latest when an engine that hangs has had its time."""
        working = (
            self._feeds.working()
        )  # before the list, so that what ends meanwhile is left alone
        containers = await self._list()
        sample = self._gpus.sample()
        own = self._own_pids(sample)
        self._latest = Observed(
            node=self._node(),
            containers=containers,
            probes=self._feeds.probes(),
            in_flight=self._feeds.in_flight(),
            working=working,
            strangers=strangers_memory(sample.gpus, own),
            stranger_pids=strangers_pids(sample.gpus, own),
            trials=self._feeds.trials(),
            demand=self._feeds.demand(),
            stalls=self.lag.stalls(),
        )
        return self._latest

    def latest(self) -> Observed:
        """Return the last snapshot with the node as it is now; before the first, the node alone."""
        if self._latest is None:
            return Observed(node=self._node(), containers=None)
        return dataclasses.replace(self._latest, node=self._node())

    def _node(self) -> Node:
        """Return this machine as last measured, with what models may reserve of it."""
        host = self._host.sample()
        return Node(
            name=self._limits.name,
            cpu_millis=host.cpu_count * 1000 - self._limits.cpu_reserved_millis,
            memory_bytes=host.memory_total_bytes - self._limits.memory_reserved_bytes,
            gpus=self._gpus.sample(),
            host=host,
        )

    async def _list(self) -> tuple[ObservedContainer, ...] | None:
        """Return what runs; None where the engine does not say.

        A look that this daemon was late for itself says nothing about the engine.
        """
        began, patience = self.lag.now(), self._patience_seconds
        self.lag.look_began()
        answered: bool | None = False
        try:
            async with asyncio.timeout(patience):
                found = await self._runtime.list()
        except TimeoutError:
            if self.lag.unknown(began, OWN) is not None:
                answered = None
                return None
            self.engine_error = f"the container engine did not answer within {patience:g} s"
            self._patience_seconds = min(2 * patience, _LONGEST_PATIENCE_SECONDS)
            return None
        except EngineError as error:
            self.engine_error = error.message
            return None
        else:
            answered = True
        finally:
            self.lag.look_ended(answered=answered)
        self._take(found)
        return tuple(_observed(container) for container in found)

    def _take(self, found: Sequence[Container]) -> None:
        """Remember what the engine said."""
        self.engine_error = None
        self._patience_seconds = _PATIENCE_SECONDS
        self.containers = {container.labels.replica: container for container in found}
        if self._runtime.isolates:
            self.replica_hosts = frozenset(c.endpoint.host for c in found if c.endpoint)

    def _own_pids(self, sample: GpuSample) -> frozenset[int]:
        """Return the processes on the GPUs that are our replicas'."""
        ours = [c.pid for c in self.containers.values() if c.pid is not None]
        pids = {process.pid for gpu in sample.gpus for process in gpu.processes}
        return frozenset(pid for pid in pids if self._host.belongs_to(pid, ours))


def _observed(container: Container) -> ObservedContainer:
    return ObservedContainer(
        id=container.id,
        replica_id=container.labels.replica,
        running=container.state is ContainerState.RUNNING,
        endpoint=container.endpoint,
        exit_code=container.exit_code,
        out_of_memory=container.out_of_memory,
    )
