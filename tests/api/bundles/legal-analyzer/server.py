"""A small real analyzer of legal texts: finds parties and says what kind of text it is."""

import contextlib
import http.server
import json
import os
import re
import socket
import sys
import time

PARTY = re.compile(r"(?:[A-Z]\w+ )+(?:Corp|Inc|Ltd|GmbH)\b")
WORDS = re.compile(r"agreement|contract|shall|party|parties|hereby", re.IGNORECASE)


def log(text):
    """Print one line."""
    sys.stdout.write(f"{text}\n")


def analyze(inputs, parameters):
    """Return a classification with its confidence, and the parties if they are asked for."""
    text = inputs["text"]
    found = len(WORDS.findall(text))
    outputs = {
        "classification": "commercial_contract" if found else "other",
        "confidence": round(1 - 0.5 ** (found + 1), 2),
    }
    if parameters.get("return_entities"):
        outputs["entities"] = [
            {"type": "party", "text": m[0], "start": m.start(), "end": m.end()}
            for m in PARTY.finditer(text)
        ]
    return outputs


class Handler(http.server.BaseHTTPRequestHandler):
    """The native container contract."""

    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        """Print only what is inferred."""

    def do_GET(self):
        """Be healthy."""
        self.answer({"status": "ok"})

    def do_POST(self):
        """Infer."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        log(f"analyzing {len(json.dumps(body['inputs']))} characters")
        if "text/event-stream" in self.headers["Accept"]:
            self.stream(body["inputs"]["text"])
            return
        self.answer({"outputs": analyze(body["inputs"], body["parameters"])})

    def stream(self, text):
        """Send an event for each word; at `break-off` fail, at `half` in the middle of an event.

        At `endless` and `flood` go on for as long as somebody listens.
        """
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for word in text.split():
            if word == "break-off":
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
                return
            if word in {"endless", "flood"}:
                self.go_on("more" * 4096 if word == "flood" else "more")
                return
            self.chunk("data: ha" if word == "half" else f"data: {word}\n\n")
        self.chunk("")

    def go_on(self, text):
        """Send more and more until nobody listens."""
        with contextlib.suppress(ConnectionError):
            while True:
                self.chunk(f"data: {text}\n\n")
                time.sleep(0.02 if text == "more" else 0)
        self.close_connection = True

    def chunk(self, text):
        """Send a part of a chunked body."""
        self.wfile.write(f"{len(text):x}\r\n{text}\r\n".encode())

    def answer(self, value):
        """Send a JSON answer."""
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


address = os.environ.get("HOST", "0.0.0.0"), int(os.environ["PORT"])
server = http.server.ThreadingHTTPServer(address, Handler)
server.daemon_threads = True
log("listening")
server.serve_forever()
