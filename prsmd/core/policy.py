"""The appliance's own limits for replicas, as `reconcile` receives them."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How patient the daemon is. Times are seconds; `liveness_failures` is probes in a row."""

    drain_timeout_seconds: float = 30.0
    liveness_failures: int = 3
