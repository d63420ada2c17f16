"""Reads the settings again while the daemon runs, and gives each part what changed of its own.

A file that is invalid changes nothing. A part that cannot take its new values keeps those it has.
What only a restart changes is named each time, until there is one.
"""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prsmd import systemd
from prsmd.config import ConfigurationError
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import own_record
from prsmd.reloadable import RELOADED, Part
from prsmd.settings import Settings
from prsmd.store import audit
from prsmd.store.db import Database

log = logging.getLogger("prsmd")


class Reloader:
    """Reloads when it is asked to. `read` gives the settings by now, or ConfigurationError."""

    def __init__(
        self,
        settings: Settings,
        read: Callable[[], Settings],
        parts: Sequence[Part],
        database: Database,
    ) -> None:
        self._running = flat(settings)
        self._organization = settings.access.organization
        self._read = read
        self._parts = parts
        self._database = database
        self._asked = asyncio.Event()

    def ask(self) -> None:
        """Have it done soon; asking twice before it is done is asking once."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever it is asked for; for ever."""
        while True:
            await self._asked.wait()
            self._asked.clear()
            # systemd: https://www.freedesktop.org/software/systemd/man/sd_notify.html
            systemd.notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                await self.reload()
            except Exception:  # a defect here must not end what serves
                log.exception("the settings were not reloaded")
            finally:
                systemd.notify("READY=1")

    async def reload(self) -> None:
        """Read the settings and let every part take its own."""
        try:
            settings = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            for problem in error.problems:
                log.error("settings not reloaded: %s", problem)  # noqa: TRY400
            await self._record({"problems": list(error.problems)}, "failed")
            return
        wanted = flat(settings)
        changed = [name for name in wanted if wanted[name] != self._running.get(name)]
        done, failed = await self._apply(settings, wanted, changed)
        restart = [name for name in changed if name not in RELOADED]
        for name in restart:
            log.warning("%s needs a restart", told(name, self._running.get(name), wanted[name]))
        log.info(
            "settings reloaded: %d changed, %d failed, %d need a restart",
            *(len(done), len(failed), len(restart)),
        )
        details = {"changed": done, "failed": failed, "restart": restart}
        await self._record(details, "failed" if failed else "allowed")

    async def _apply(
        self, settings: Settings, wanted: Mapping[str, Any], changed: Sequence[str]
    ) -> tuple[list[str], list[str]]:
        """Let the parts take what changed; return what did, and the names that could not."""
        done, failed = list[str](), list[str]()
        for part in self._parts:
            own = [name for name in changed if name in part.names]
            if not own and not part.reads_files:
                continue
            try:
                read = await part.apply(settings)
            except (ConfigurationError, PrsmdError) as error:
                failed += own or part.names[:1]
                for problem in _problems(error):
                    log.error("%s: what was there stays", problem)  # noqa: TRY400
                continue
            except Exception:
                failed += own or part.names[:1]
                log.exception("%s: failed to take what changed", ", ".join(own) or "a file")
                continue
            lines = [told(name, self._running.get(name), wanted[name]) for name in own]
            lines += [f"{name}: reloaded" for name in read if name not in own]
            for line in lines:
                log.info("%s", line)
            done += lines
            self._running.update({name: wanted[name] for name in own})
        return done, failed

    async def _record(self, details: Mapping[str, Any], outcome: str) -> None:
        record = own_record(
            time.time(),
            self._organization,
            "settings.reload",
            "settings",
            {"by": "SIGHUP", **details},
            outcome,
        )
        try:
            await self._database.write(lambda tx: audit.append(tx, record))
        except PrsmdError as error:
            log.error("the reload is not on record: %s", error.message)  # noqa: TRY400


async def ended(task: asyncio.Task[None]) -> None:
    """End a task that runs for ever."""
    task.cancel()
    await asyncio.wait([task])


def flat(settings: Settings) -> dict[str, Any]:
    """Return every setting by its name, `section.key`, as JSON has it."""
    return {
        f"{section}.{key}": value
        for section, values in settings.model_dump(mode="json").items()
        for key, value in values.items()
    }


def _problems(error: ConfigurationError | PrsmdError) -> Sequence[str]:
    return error.problems if isinstance(error, ConfigurationError) else (error.message,)


def told(name: str, before: object, after: object) -> str:
    """Return a change as a line of the log has it."""
    return f"{name}: {_plain(before)} -> {_plain(after)}"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
