"""Answers everything, and notes each request in the file COUNT_FILE before it does."""

import http.server
import json
import os


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
        os.write(COUNTS, b".")
        self.rfile.read(int(self.headers["Content-Length"]))
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


COUNTS = os.open(os.environ["COUNT_FILE"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
Server(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
