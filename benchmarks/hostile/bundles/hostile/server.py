"""A tenant's own model that answers as badly as `inputs.do` says; anything else it answers well.

One thread for each connection; it runs at the lowest priority, because a real one would run on
other processors than the daemon. An answer without an end stops after `_MOST_BYTES`.
"""

import json
import os
import pathlib
import socket
import sys
import threading
from typing import BinaryIO

_BLOCK = 64 * 1024
_MOST_BYTES = 256 * 1024**2
_JSON_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
_CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n"
_LARGE = 60 * 1024**2
_INSIDE = {
    "large": lambda: b'"' + b"x" * _LARGE + b'"',
    "values": lambda: b"[" + b"0," * (_LARGE // 2) + b"0]",
    "deep": lambda: b"[" * 500_000 + b"]" * 500_000,
    "numbers": lambda: b"[" + b"9" * 4_000_000 + b"]",
    "names": lambda: json.dumps({f"n{n}": n for n in range(500_000)}).encode(),
}
_ENDLESS = {
    "interim": (b"", b"HTTP/1.1 102 Processing\r\n\r\n"),
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-Header: value\r\n"),
    "chunks": (_CHUNKED % b"application/json", b"1\r\n \r\n"),
    "events": (_CHUNKED % b"text/event-stream", b"d\r\ndata: 12345\n\n\r\n"),
}
_made: dict[str, bytes] = {}
_making = threading.Lock()


def main() -> None:
    """Serve until killed."""
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(19)
    listener = socket.create_server(("127.0.0.1", int(os.environ["PORT"])), backlog=1024)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=_serve, args=(connection,), daemon=True).start()


def _serve(connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as file:
        try:
            while _serve_one(connection, file):
                pass
        except (OSError, ValueError):
            return


def _serve_one(connection: socket.socket, file: BinaryIO) -> bool:
    line = file.readline()
    length = 0
    while (header := file.readline()) not in {b"\r\n", b""}:
        name, _, value = header.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    if not line:
        return False
    body = json.loads(file.read(length)) if length else {}
    inputs = body.get("inputs")
    wanted = inputs.get("do") if isinstance(inputs, dict) else None
    if wanted in _ENDLESS:
        _send_without_end(connection, *_ENDLESS[wanted])
        return False
    if wanted == "log":
        _log()
    content = _whole(wanted) if wanted in _INSIDE else b'{"outputs": 1}'
    connection.sendall(_JSON_HEAD % len(content))
    connection.sendall(content)
    return True


def _send_without_end(connection: socket.socket, head: bytes, piece: bytes) -> None:
    connection.sendall(head)
    block = piece * (_BLOCK // len(piece))
    for _ in range(_MOST_BYTES // len(block)):
        connection.sendall(block)


def _whole(wanted: str) -> bytes:
    with _making:
        if wanted not in _made:
            _made.clear()
            _made[wanted] = b'{"outputs":' + _INSIDE[wanted]() + b"}"
        return _made[wanted]


def _log() -> None:
    for _ in range(200):
        sys.stdout.write(("y" * 99 + "\n") * 500)


if __name__ == "__main__":
    pathlib.Path("/proc/self/comm").write_text("hostile-model")
    main()
