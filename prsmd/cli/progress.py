"""Waiting for a deployment, with what it does meanwhile on stderr."""

import sys
import time

from prsm_sdk import calls
from prsm_sdk.errors import ClientTimeoutError
from prsm_sdk.models import DeploymentStatus
from prsm_sdk.waiting import POLL_SECONDS, is_up, raise_if_failed

from .output import printable
from .session import Session

WAIT_SECONDS = 600.0
_PAUSE = 0.5  # between two looks, where the server does not hold the request


def wait_until_up(session: Session, deployment_id: str) -> DeploymentStatus:
    """Return the status of a deployment once it runs, or idles scaled to zero.

    Raises:
        DeploymentFailedError: It failed; the message says why.
        ClientTimeoutError: It does not run yet when the time is over.
    """
    seconds = session.timeout or WAIT_SECONDS
    deadline = time.monotonic() + seconds
    line = ProgressLine()
    try:
        while True:
            status = session.client.send(calls.deployment_status(deployment_id, POLL_SECONDS))
            raise_if_failed(status)
            line.show(headline(status))
            if is_up(status):
                return status
            if time.monotonic() + _PAUSE > deadline:
                raise ClientTimeoutError(f"{deployment_id} does not run after {seconds:g} s")
            time.sleep(_PAUSE)
    finally:
        line.end()


def headline(status: DeploymentStatus) -> str:
    """Return in one line what a deployment does now."""
    doing = [r.message for r in status.replica_details if r.message and not r.ready]
    why = doing[0] if doing else status.message
    ready = f"{status.replicas.ready}/{status.replicas.desired} ready"
    return f"{status.status}, {ready}" + (f": {why}" if why else "")


class ProgressLine:
    """One line that changes on a terminal; elsewhere a line for each change."""

    def __init__(self) -> None:
        self._changes_in_place = sys.stderr.isatty()
        self._last = ""

    def show(self, text: str) -> None:
        """Show `text` unless it is there already."""
        text = printable(text)
        if text == self._last:
            return
        self._last = text
        if self._changes_in_place:
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)
        else:
            print(text, file=sys.stderr, flush=True)

    def clear(self) -> None:
        """Make room on a terminal for a line of output."""
        if self._changes_in_place and self._last:
            print("\r\x1b[2K", end="", file=sys.stderr, flush=True)
            self._last = ""

    def end(self) -> None:
        """Leave the line as it is and go to the next."""
        if self._changes_in_place and self._last:
            print(file=sys.stderr)
