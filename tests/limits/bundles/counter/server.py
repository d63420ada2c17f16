"""Answers everything, and notes in the file COUNT_FILE each request that begins `(` and ends `)`.

Each takes 20 ms, and as long as there is a file COUNT_FILE.hold.
"""

import http.server
import json
import os
import pathlib
import time


class Handler(http.server.BaseHTTPRequestHandler):
    """The native container contract."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Print nothing."""

    def do_GET(self):
        """Be healthy."""
        self.answer({"status": "ok"})

    def do_POST(self):
        """Count a request."""
        os.write(COUNTS, b"(")
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(0.02)
        while HOLD.exists():
            time.sleep(0.01)
        os.write(COUNTS, b")")
        self.answer({"outputs": 1})

    def answer(self, body):
        """Send JSON."""
        content = json.dumps(body).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


class Server(http.server.ThreadingHTTPServer):
    """Takes many connections at once."""

    request_queue_size = 256


HOLD = pathlib.Path(os.environ["COUNT_FILE"] + ".hold")
COUNTS = os.open(os.environ["COUNT_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
