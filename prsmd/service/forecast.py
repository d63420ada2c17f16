"""What will happen if a request is accepted: can it be placed, where, and how long will it take."""

import dataclasses
from collections.abc import Sequence

from prsmd.core.capacity import capacity_of
from prsmd.core.place import place
from prsmd.core.plan import Capacity, Observed, Unplaceable
from prsmd.domain.errors import ResourceUnavailableError
from prsmd.domain.quantity import format_gpu
from prsmd.domain.replica import Placement, Replica
from prsmd.domain.spec import Resources
from prsmd.engine.observer import Observer
from prsmd.store import history
from prsmd.store.db import Tx

_MINUTE = 60.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Where the next replicas would go now, and why not all of them fit (None: they do)."""

    placements: tuple[Placement, ...]
    refused: Unplaceable | None


class Forecaster:
    """Answers from the last observation; nothing is reserved by asking."""

    def __init__(self, observer: Observer) -> None:
        self._observer = observer

    def refuse_impossible(self, resources: Resources) -> None:
        """Raise ResourceUnavailableError for what would not fit even on the empty appliance.

        Nothing is concluded from GPUs that do not answer now or are unfit only now.
        """
        capacity = _empty_appliance(self._observer.latest())
        if capacity.gpus_unknown is not None:
            resources = dataclasses.replace(resources, gpu_millis=0)
        verdict = place(resources, capacity)
        if isinstance(verdict, Unplaceable):
            raise ResourceUnavailableError(
                f"This appliance can never place it: {'; '.join(verdict.reasons)}."
                " Ask for less, or for other hardware.",
                resource_type="gpu" if resources.gpu_millis else "node",
                reasons=list(verdict.reasons),
                permanent=True,
            )

    def replicas(
        self,
        resources: Resources,
        count: int,
        active: Sequence[Replica],
        asker: str | None = None,
    ) -> Forecast:
        """Return how `count` further replicas would be placed beside the active ones.

        A refusal's words are for the organization `asker`; None: for administrators.
        """
        capacity = capacity_of(self._observer.latest(), active)
        placements: list[Placement] = []
        for _ in range(count):
            verdict = place(resources, capacity, asker)
            if isinstance(verdict, Unplaceable):
                return Forecast(placements=tuple(placements), refused=verdict)
            placements.append(verdict)
            taken = (*capacity.reservations, verdict)
            capacity = dataclasses.replace(capacity, reservations=taken)
        return Forecast(placements=tuple(placements), refused=None)

    def gpu_text(self, resources: Resources, placements: Sequence[Placement]) -> str:
        """Return `"1 x NVIDIA T4"` with the name NVML gives; `"0"` without a GPU."""
        if resources.gpu_millis == 0:
            return "0"
        names = {gpu.uuid: gpu.name for gpu in self._observer.latest().node.gpus.gpus}
        placed = [names[uuid] for p in placements[:1] for uuid in p.gpu_uuids if uuid in names]
        candidates = placed or sorted(set(names.values()))
        count = format_gpu(resources.gpu_millis)
        return f"{count} x {' or '.join(dict.fromkeys(candidates)) or 'GPU'}"


def _empty_appliance(observed: Observed) -> Capacity:
    capacity = capacity_of(dataclasses.replace(observed, strangers={}), [])
    sample = observed.node.gpus
    return dataclasses.replace(
        capacity,
        gpus=tuple(dataclasses.replace(gpu, unhealthy=None) for gpu in capacity.gpus),
        gpus_unknown=capacity.gpus_unknown if sample.supported else None,
    )


async def expected_seconds(tx: Tx, organization: str, image: str) -> float | None:
    """Return how long pull and start typically take: of this image, else of any image here.

    An image that the organization has started before is taken to need no pull. None: nothing was
    deployed yet.
    """
    start = await history.typical(tx, organization, image, "start")
    if start is not None:
        return start
    pull = await history.typical_any(tx, "pull") or 0.0
    start = await history.typical_any(tx, "start")
    return None if start is None else pull + start


def duration_text(seconds: float | None) -> str:
    """Return a range around an expectation in words: `"5-10 minutes"`, `"10-20 seconds"`."""
    if seconds is None:
        return "unknown: nothing was deployed here yet"
    low, high = 0.75 * seconds, 1.5 * seconds
    if high < _MINUTE:
        return f"{max(1, round(low))}-{max(2, round(high) or 1)} seconds"
    return f"{max(1, round(low / _MINUTE))}-{max(2, round(high / _MINUTE))} minutes"
