"""When a failed call is tried again, and after how long. Decides; waits for nothing."""

from typing import Any

from .calls import Call
from .errors import ConnectionCutError, DaemonUnreachableError, NotFoundError, PRSMError

MAX_ATTEMPTS = 3
PATIENCE = 5.0  # seconds; a longer wait is the caller's decision
MAX_FAILURES = 10  # of a followed stream, one after the other
_REFUSALS = {429, 503}
_AFTER_CUT = 0.1


def delay_before_retry(
    call: Call[Any], failure: PRSMError, attempt: int, patience: float = PATIENCE
) -> float | None:
    """Return the seconds to wait before the next attempt, or None when the failure stands.

    A cut connection is bridged only for calls that can be repeated without harm. A refusal is
    tried again only when the server said when, and when that is soon. A daemon that is not there
    is reported at once.

    Args:
        call: What failed.
        failure: How.
        attempt: How many attempts were made, 1 or more.
        patience: The longest wait, in seconds, that the server may ask for.
    """
    if attempt >= MAX_ATTEMPTS:
        return None
    if isinstance(failure, ConnectionCutError):
        return _AFTER_CUT * 2 ** (attempt - 1) if call.repeatable else None
    after = failure.retry_after
    refused = failure.status in _REFUSALS and (call.repeatable or call.unserved_on_refusal)
    if not refused or after is None or after > patience:
        return None
    return after


class Resumption:
    """Whether a followed stream that ended is opened again, and after how long.

    A stream that ends properly is opened again for ever: a daemon that restarts ends it too. One
    that fails is given up when it failed several times in a row without an event between.
    """

    def __init__(self, *, resumable: bool) -> None:
        self.retry_seconds = 1.0
        self._resumable = resumable
        self._failures = 0
        self._served = False

    def saw_event(self) -> None:
        """Note that the stream works."""
        self._served = True
        self._failures = 0

    def delay_after_end(self) -> float | None:
        """Return the seconds until the stream is opened again, None when it is over."""
        self._served = True
        return self.retry_seconds if self._resumable else None

    def delay_after(self, failure: PRSMError) -> float | None:
        """Return the seconds until the next attempt, or None when the failure stands.

        A stream that never worked fails at once, so that a wrong id or address is told plainly.
        """
        self._failures += 1
        temporary = isinstance(failure, DaemonUnreachableError) or failure.status in _REFUSALS
        if not (self._resumable and self._served and temporary):
            return None
        return self.retry_seconds if self._failures <= MAX_FAILURES else None

    def is_end(self, failure: PRSMError) -> bool:
        """Return True when what was followed has gone, which ends the stream and is no failure."""
        return self._resumable and self._served and isinstance(failure, NotFoundError)
