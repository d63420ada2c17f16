"""How an inference that was not answered is told so, and under which outcome it is recorded."""

import asyncio

from prsmd.core.admission import QUEUE_FULL, Refuse
from prsmd.core.memory_budget import Holding
from prsmd.core.stalls import Unknown
from prsmd.domain.errors import (
    InferenceTimeoutError,
    InvalidInputError,
    ProviderError,
    PrsmdError,
    QueueFullError,
    QuotaExceededError,
    RateLimitedError,
    ResourceUnavailableError,
)

from .ledger import Outcome

RETRY_SECONDS = 5
RETRY_MEMORY_SECONDS = 1
MEMORY = "memory"


class StalledError(InferenceTimeoutError):
    """A deadline was missed while the daemon could not hear: it says nothing about the model."""


class BrokenOffError(ProviderError):
    """An exchange broke off: the replica may be about to end."""


class UnheardError(ProviderError):
    """An exchange broke off while the daemon could not hear: it says nothing about the model."""


class ExhaustedError(ResourceUnavailableError):
    """This process has no descriptor or port to connect with: it says nothing about the model."""


_OUTCOMES: tuple[tuple[type[BaseException], Outcome], ...] = (
    (StalledError, Outcome.STALLED),
    (UnheardError, Outcome.STALLED),
    (ProviderError, Outcome.PROVIDER_ERROR),
    (InferenceTimeoutError, Outcome.TIMEOUT),
    (QueueFullError, Outcome.QUEUE_FULL),
    (QuotaExceededError, Outcome.LIMITED),
    (RateLimitedError, Outcome.LIMITED),
    (InvalidInputError, Outcome.INVALID),
    (asyncio.CancelledError, Outcome.CANCELLED),
)


def outcome_of(error: BaseException) -> Outcome:
    """Return how an inference ended that ended with this error."""
    return next((to for kind, to in _OUTCOMES if isinstance(error, kind)), Outcome.UNAVAILABLE)


def refused(refusal: Refuse, now: float) -> PrsmdError:
    """Return the error that tells a client it was refused, and when trying again makes sense."""
    retry = refusal.retry_after_seconds
    if refusal.code == QUEUE_FULL:
        return QueueFullError(
            refusal.reason,
            limit_type="queue_depth",
            limit=refusal.limit,
            reset_time=int(now) + retry,
            retry_after_seconds=retry,
        )
    return unavailable(refusal.reason, refusal.reason, retry)


def unavailable(message: str, reason: str, retry: int = RETRY_SECONDS) -> ResourceUnavailableError:
    """Return the error for an inference that no replica can take."""
    return ResourceUnavailableError(
        message, resource_type="replica", reason=reason, retry_after_seconds=retry
    )


def exhausted(why: str) -> ExhaustedError:
    """Return the error for an inference that cannot be sent to any replica now."""
    return ExhaustedError(
        f"The daemon cannot connect to a replica now: {why}.",
        resource_type="connection",
        reason=why,
        retry_after_seconds=RETRY_SECONDS,
    )


def hold(holding: Holding | None, size: int) -> None:
    """Count bytes that are about to be held for a caller; None: it is bounded otherwise.

    Raises:
        ResourceUnavailableError: they are more than may be held now.
    """
    shortage = None if holding is None else holding.grow(size)
    if shortage is not None:
        raise ResourceUnavailableError(
            f"No memory can be had for this now: {shortage.reason}.",
            resource_type=MEMORY,
            reason=shortage.reason,
            limit_bytes=shortage.limit,
            retry_after_seconds=RETRY_MEMORY_SECONDS,
        )


def timed_out(
    message: str, seconds: float, unknown: Unknown | None = None
) -> InferenceTimeoutError:
    """Return the error for an inference that took too long; `unknown`: it may be nobody's fault."""
    if unknown is not None:
        return StalledError(f"{message}, but {unknown.reason}", timeout_seconds=seconds)
    return InferenceTimeoutError(message, timeout_seconds=seconds)
