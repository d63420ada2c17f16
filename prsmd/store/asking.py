"""For whom the running task reads and writes: nobody where it is one of the daemon's own loops."""

import contextlib
import contextvars
from collections.abc import Iterator

from prsmd.core.fair_queue import Asker

_asker: contextvars.ContextVar[Asker | None] = contextvars.ContextVar("asker", default=None)


def asker() -> Asker | None:
    """Return for whom the running task reads and writes; None: for the daemon itself."""
    return _asker.get()


@contextlib.contextmanager
def asking_for(who: Asker) -> Iterator[None]:
    """Read and write for a caller, in its turn and its bounds; so do tasks that begin inside."""
    token = _asker.set(who)
    try:
        yield
    finally:
        _asker.reset(token)


def for_nobody() -> contextvars.Context:
    """Return the context for a task that a caller's request begins, and that is everybody's."""
    context = contextvars.copy_context()
    context.run(_asker.set, None)
    return context
