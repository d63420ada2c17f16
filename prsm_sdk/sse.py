"""Server-sent events, bytes to values, without I/O (the WHATWG HTML standard, section 9.2)."""

import dataclasses
from collections.abc import Iterator

from .errors import UnexpectedAnswerError

MAX_EVENT_BYTES = 4 * 1024 * 1024  # what answers could be anything: it must not fill our memory


@dataclasses.dataclass(frozen=True, slots=True)
class ServerEvent:
    """One event. `id` is the last one the stream has named so far."""

    event: str
    data: str
    id: str


class EventParser:
    """Cuts a byte stream into events. `retry` is the server's wish for reconnecting, in seconds."""

    def __init__(self, last_event_id: str = "") -> None:
        self.last_event_id = last_event_id
        self.retry: float | None = None
        self._rest = b""
        self._event = ""
        self._data: list[str] = []
        self._held = 0

    def feed(self, chunk: bytes) -> Iterator[ServerEvent]:
        """Return the events that `chunk` completes.

        Raises:
            UnexpectedAnswerError: A line or an event is larger than any of this API.
        """
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MAX_EVENT_BYTES:
            raise UnexpectedAnswerError("the server sent an endless line as an event")
        for line in lines:
            event = self._take(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def _take(self, line: str) -> ServerEvent | None:
        if not line:
            return self._dispatch()
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self.last_event_id = value
        elif name == "retry" and value.isascii() and value.isdigit():
            self.retry = int(value) / 1000
        return None

    def _append(self, value: str) -> None:
        self._held += len(value)
        if self._held > MAX_EVENT_BYTES:
            raise UnexpectedAnswerError("the server sent an endless event")
        self._data.append(value)

    def _dispatch(self) -> ServerEvent | None:
        event, data = self._event or "message", self._data
        self._event, self._data, self._held = "", [], 0
        return ServerEvent(event, "\n".join(data), self.last_event_id) if data else None
