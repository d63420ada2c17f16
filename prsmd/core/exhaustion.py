"""Tells an error of this process or machine from one of whom it asked.

Who has no descriptor, port or memory left hears nothing, whatever the other side would have said.
"""

import errno

from prsmd.core.stalls import Unknown

OUT_OF_RESOURCES = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)


def is_exhausted(error: BaseException) -> bool:
    """Tell whether `error` says that this process or machine ran out of something."""
    return isinstance(error, OSError) and error.errno in OUT_OF_RESOURCES


def unknown_by(error: BaseException) -> Unknown | None:
    """Return why `error` says nothing about who was asked; None: it does."""
    if not (isinstance(error, OSError) and is_exhausted(error)):
        return None
    return Unknown(0.0, f"this daemon could not ask: {error.strerror}")
