"""The seam to the devices: what is there and how it does, never blocking and never guessing."""

from collections.abc import Sequence
from typing import Protocol

from prsmd.domain.node import GpuSample, HostSample


class Gpus(Protocol):
    """GPU telemetry of one node."""

    async def start(self) -> None:
        """Begin sampling. A machine without a driver is not an error: the sample says so."""
        ...

    def sample(self) -> GpuSample:
        """Return the last sample at once; `stale_since` says since when it is not fresh."""
        ...

    async def close(self) -> None:
        """Stop sampling and end any helper process."""
        ...


class Host(Protocol):
    """Host cpu and memory, and what single processes and cgroups use."""

    def sample(self) -> HostSample:
        """Return cpu and memory of the machine now; cheap enough for every tick."""
        ...

    def replica_usage(self, pid: int, *, own_cgroup: bool) -> tuple[float, int] | None:
        """Return (cpu seconds so far, memory bytes now) of a replica; None once it is gone.

        With `own_cgroup` it is read from the process's cgroup, else summed over its process group.
        """
        ...

    def belongs_to(self, pid: int, replica_pids: Sequence[int]) -> bool:
        """Tell whether `pid` runs in the cgroup or process group of one of the replicas' pids."""
        ...
