"""How the daemon logs: fields for journald, JSON for collectors, plain text for people.

No line has the secret of an API key, wherever a client put it.
"""

import json
import logging
import os
import socket
import sys
from typing import Any

from prsmd.core.apikey import without_secrets

_FIELDS = ("deployment", "organization", "replica", "reason", "request_id")
_PRIORITIES = {"DEBUG": 7, "INFO": 6, "WARNING": 4, "ERROR": 3, "CRITICAL": 2}
_JOURNAL = "/run/systemd/journal/socket"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(32), *range(127, 160)) if code != 9}


def configure(level: str, form: str) -> None:
    """Send the log of this process to one place. `form` is auto, journal, json or text."""
    if form == "auto":
        form = "journal" if _under_journald() else ("text" if sys.stderr.isatty() else "json")
    handler: logging.Handler
    if form == "journal":
        handler = JournalHandler()
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("asyncio", "aiohttp", "docker", "urllib3", "aiosqlite"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


class TextFormatter(logging.Formatter):
    """One line: time, level, message, then the fields that are known.

    What a caller sent may be in it: control characters are escaped, and no line of a traceback
    begins where a line of the log does.
    """

    def format(self, record: logging.LogRecord) -> str:
        """Return the line, and the traceback below it if there is one."""
        fields = " ".join(f"{name}={value}" for name, value in _known(record).items())
        head = f"{self.formatTime(record)} {record.levelname:<7} {record.getMessage()}"
        line = escaped(f"{head}  {fields}" if fields else head)
        below = [f"  {escaped(each)}" for each in _traceback(self, record).splitlines()[1:]]
        return without_secrets("\n".join((line, *below)))


class JsonFormatter(logging.Formatter):
    """One JSON object on a line, times in epoch seconds."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        body: dict[str, Any] = {
            "at": round(record.created, 3),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "logger": record.name,
            **_known(record),
        }
        if record.exc_info:
            body["traceback"] = self.formatException(record.exc_info)
        return without_secrets(json.dumps(body, ensure_ascii=False))


class JournalHandler(logging.Handler):
    """Speaks journald's native protocol, so that fields can be matched with `journalctl KEY=value`.

    Protocol: https://systemd.io/JOURNAL_NATIVE_PROTOCOL/
    A journald that does not read costs entries (`dropped` counts them), never the event loop.
    """

    def __init__(self, address: str = _JOURNAL) -> None:
        super().__init__()
        self._address = address
        self.dropped = 0
        kind = socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._channel = socket.socket(socket.AF_UNIX, kind)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one entry; what journald does not take goes to stderr."""
        try:
            fields = self._fields(record)
        except Exception:  # noqa: BLE001 - logging's contract: a bad record never fails its writer
            self.handleError(record)
            return
        message = b"".join(_field(name, value) for name, value in fields.items())
        try:
            self._channel.sendto(message, self._address)
        except BlockingIOError:
            self.dropped += 1
        except OSError:
            sys.stderr.write(escaped(fields["MESSAGE"]) + "\n")

    def close(self) -> None:
        """Close the channel too."""
        self._channel.close()
        super().close()

    def _fields(self, record: logging.LogRecord) -> dict[str, str]:
        fields = {
            "MESSAGE": record.getMessage() + _traceback(logging.Formatter(), record),
            "PRIORITY": str(_PRIORITIES.get(record.levelname, 6)),
            "SYSLOG_IDENTIFIER": "prsmd",
            "LOGGER": record.name,
            **{f"PRSMD_{name.upper()}": str(value) for name, value in _known(record).items()},
        }
        return {name: without_secrets(value) for name, value in fields.items()}


def _field(name: str, value: str) -> bytes:
    data = value.encode("utf-8", "replace")
    if b"\n" not in data:
        return name.encode() + b"=" + data + b"\n"
    return name.encode() + b"\n" + len(data).to_bytes(8, "little") + data + b"\n"


def escaped(text: str) -> str:
    """Return text as one line, which steers no terminal."""
    return text.translate(_CONTROLS)


def _known(record: logging.LogRecord) -> dict[str, Any]:
    found = {name: getattr(record, name, None) for name in _FIELDS}
    return {name: value for name, value in found.items() if value}


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""


def _under_journald() -> bool:
    """Tell whether stderr is the journal (systemd says so by device and inode)."""
    expected = os.environ.get("JOURNAL_STREAM")
    if not expected:
        return False
    found = os.fstat(sys.stderr.fileno())
    return expected == f"{found.st_dev}:{found.st_ino}"
