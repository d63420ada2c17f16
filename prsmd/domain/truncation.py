"""How much is stored of what a container, the engine or a registry says.

It is as long as they like, it is read with every tick, and whoever sees the model is shown it.
"""

from collections.abc import Sequence

MOST_MESSAGE_BYTES = 1024
MOST_TAIL_BYTES = 4096
TAIL_LINES = 20
_MARK = "…"
_LEAST_BYTES = len(_MARK.encode()) + 1


def truncated(text: str, most_bytes: int = MOST_MESSAGE_BYTES) -> str:
    """Return a text of at most so many bytes of UTF-8; one that was longer ends in "…".

    A lone surrogate, for which UTF-8 has no bytes, becomes "?".
    """
    data = text[: most_bytes + 1].encode("utf-8", "replace")
    if len(data) <= most_bytes:
        return data.decode()
    return data[: most_bytes - len(_MARK.encode())].decode("utf-8", "ignore") + _MARK


def truncated_tail(lines: Sequence[str]) -> tuple[str, ...]:
    """Return the last 20 lines, together at most 4 KiB of UTF-8: older ones give way first."""
    room = MOST_TAIL_BYTES
    kept: list[str] = []
    for line in reversed(lines[-TAIL_LINES:]):
        if line and room < _LEAST_BYTES:
            break
        kept.append(truncated(line, room))
        room -= len(kept[-1].encode())
    return tuple(reversed(kept))
