"""A line of a container's output."""

import dataclasses


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class LogLine:
    """`at` is seconds since the epoch; `stream` is `stdout` or `stderr`."""

    at: float
    stream: str
    text: str
