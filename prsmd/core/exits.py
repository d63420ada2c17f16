"""Puts the end of a replica into words, once, for status, events and log alike."""

import signal

from prsmd.core.plan import ObservedContainer, Probe
from prsmd.domain.quantity import format_memory
from prsmd.domain.replica import ExitCause, ExitKind, Replica


def exited(replica: Replica, container: ObservedContainer) -> ExitCause:
    """Return why a container that should be running is not."""
    if container.out_of_memory:
        return ExitCause(
            kind=ExitKind.OUT_OF_MEMORY,
            message="needed more than its memory limit of "
            + format_memory(replica.placement.memory_bytes),
            exit_code=container.exit_code,
        )
    return ExitCause(
        kind=ExitKind.EXITED,
        message=_exit_words(container.exit_code),
        exit_code=container.exit_code,
    )


def lost() -> ExitCause:
    """Return the end of a replica that the engine no longer knows."""
    return ExitCause(kind=ExitKind.LOST, message="the engine no longer knows its container")


def startup_timeout(seconds: float, probe: Probe) -> ExitCause:
    """Return the end of a replica that was given `seconds` and never got ready."""
    last = probe.last_error or "it was never reached"
    message = f"not ready within its startup timeout of {seconds:g} s: {last}"
    return ExitCause(kind=ExitKind.STARTUP_TIMEOUT, message=message)


def liveness_failed(probe: Probe) -> ExitCause:
    """Return the end of a replica that stopped answering."""
    last = f": {probe.last_error}" if probe.last_error else ""
    message = f"failed {probe.failures} liveness checks in a row{last}"
    return ExitCause(kind=ExitKind.LIVENESS_FAILED, message=message)


def cause_words(replica: Replica) -> str:
    """Return how an ended replica ended, for use inside a sentence."""
    return "for an unknown reason" if replica.exit is None else replica.exit.message


def _exit_words(code: int | None) -> str:
    if code is None:
        return "exited with an unknown code"
    number = code - 128 if code > 128 else -code  # shells and engines, or Python's convention
    try:
        return f"exited with code {code} (killed by {signal.Signals(number).name})"
    except ValueError:
        hint = ", though it should keep serving" if code == 0 else ""
        return f"exited with code {code}{hint}"
