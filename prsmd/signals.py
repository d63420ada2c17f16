"""What the daemon does at each signal: end in order, read its settings again, or go on.

A signal whose default is the end of the process ends it only where that is meant. The handlers are
functions, not "ignore", which the processes of models would inherit.
"""

import asyncio
import contextlib
import enum
import logging
import signal
import time
from collections.abc import AsyncIterator, Callable, Mapping
from types import FrameType

log = logging.getLogger(__name__)
_QUIET_SECONDS = 10.0  # between two lines about one signal


class Response(enum.StrEnum):
    """What follows a signal."""

    END = "the daemon ends in order: what was accepted is answered, the models go on"
    RELOAD = "the daemon reads its settings again"
    NOTE = "the log says so, and nothing else follows"
    IGNORE = "nothing follows, and nothing is said"
    FAULT = "the process ends at once: its memory cannot be relied on, or somebody asks for that"
    UNCATCHABLE = "the kernel does not ask"
    STOP = "the process waits for SIGCONT, as the terminal asks"


_FAULTS = ("SIGILL", "SIGTRAP", "SIGABRT", "SIGBUS", "SIGFPE", "SIGSEGV", "SIGSYS")
# SIGPIPE, SIGXFSZ: Python ignores both, and the failed write says what is wrong.
_IGNORED = ("SIGPIPE", "SIGXFSZ", "SIGCHLD", "SIGCONT", "SIGURG", "SIGWINCH")
_NAMED: Mapping[str, Response] = {
    "SIGTERM": Response.END,
    "SIGINT": Response.END,
    "SIGQUIT": Response.END,
    "SIGHUP": Response.RELOAD,
    "SIGKILL": Response.UNCATCHABLE,
    "SIGSTOP": Response.UNCATCHABLE,
    **dict.fromkeys(("SIGTSTP", "SIGTTIN", "SIGTTOU"), Response.STOP),
    **dict.fromkeys(_FAULTS, Response.FAULT),
    **dict.fromkeys(_IGNORED, Response.IGNORE),
}
# Whatever is not named is noted: SIGUSR1, SIGALRM, what a later kernel adds, real-time signals.
RESPONSES: Mapping[int, Response] = {
    int(number): _NAMED.get(getattr(number, "name", ""), Response.NOTE)
    for number in sorted(signal.valid_signals())
}


def name_of(number: int) -> str:
    """Return what a signal is called."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}"


class Received:
    """The signals that the daemon heard. Made before anything is started, by the main thread.

    `end` is set when the daemon is to end. `on_reload` is called for each SIGHUP from `listen` on;
    one that came before is not lost.
    """

    def __init__(self) -> None:
        self.end = asyncio.Event()
        self.end_by = ""
        self._early: list[int] = []
        self._noted: dict[int, float] = {}
        self._scope: asyncio.Timeout | None = None
        self._on_reload: Callable[[], None] | None = None
        for number, response in RESPONSES.items():
            if response in {Response.RELOAD, Response.NOTE}:
                signal.signal(number, self._note_early)

    def listen(self) -> None:
        """Hear all signals on the running loop."""
        loop = asyncio.get_running_loop()
        for number, response in RESPONSES.items():
            if response in {Response.END, Response.RELOAD, Response.NOTE}:
                loop.add_signal_handler(number, self._hear, number)
        early, self._early = self._early, []
        for number in early:
            self._hear(number)

    def reload_with(self, on_reload: Callable[[], None]) -> None:
        """Have this called for each SIGHUP, also for those that came while the daemon started."""
        early, self._early = self._early, []
        self._on_reload = on_reload
        if early:
            on_reload()

    @contextlib.asynccontextmanager
    async def until_end(self) -> AsyncIterator[None]:
        """Leave the block, by cancelling what it waits for, when the daemon is to end meanwhile."""
        try:
            async with asyncio.timeout(None) as scope:
                self._scope = scope
                if self.end.is_set():
                    scope.reschedule(asyncio.get_running_loop().time())
                yield
        except TimeoutError:
            if not scope.expired():
                raise
        finally:
            self._scope = None

    def _note_early(self, number: int, _frame: FrameType | None) -> None:
        self._early.append(number)

    def _hear(self, number: int) -> None:
        response = RESPONSES[number]
        if response is Response.END:
            self._end(number)
        elif response is Response.NOTE:
            self._note(number)
        elif self._on_reload is None:
            self._early.append(number)
        else:
            self._on_reload()

    def _end(self, number: int) -> None:
        if self.end.is_set():
            return
        self.end_by = name_of(number)
        log.info("%s: the daemon ends; the models keep running", self.end_by)
        self.end.set()
        if self._scope is not None:
            self._scope.reschedule(asyncio.get_running_loop().time())

    def _note(self, number: int) -> None:
        now = time.monotonic()
        if now - self._noted.get(number, -_QUIET_SECONDS) < _QUIET_SECONDS:
            return
        self._noted[number] = now
        log.warning(
            "%s is ignored: SIGTERM ends the daemon, SIGHUP has it read its settings again",
            name_of(number),
        )
