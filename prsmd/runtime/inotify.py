"""Tells that something in a folder changed, through Linux's inotify and without polling."""

import asyncio
import contextlib
import ctypes
import os
from pathlib import Path

_MODIFY, _ATTRIB, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x4, 0x80, 0x100, 0x200
_MASK = _MODIFY | _ATTRIB | _MOVED_TO | _CREATE | _DELETE


class Watch:
    """Watches the entries of one folder. Use on the event loop; close it."""

    def __init__(self, folder: Path) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        added = self._descriptor >= 0 and libc.inotify_add_watch(
            self._descriptor, os.fsencode(folder), _MASK
        )
        if added is False or added < 0:
            error = ctypes.get_errno()
            if self._descriptor >= 0:
                os.close(self._descriptor)
            raise OSError(error, f"cannot watch {folder}: {os.strerror(error)}")
        self._changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._descriptor, self._read)

    async def changed(self) -> None:
        """Wait for a change since the last call (or since the watch began)."""
        await self._changed.wait()
        self._changed.clear()

    def close(self) -> None:
        """Stop watching."""
        asyncio.get_running_loop().remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while os.read(self._descriptor, 65536):
                self._changed.set()
