"""A small real analyzer of legal texts: finds parties and says what kind of text it is."""

import http.server
import json
import os
import re
import sys

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
        self.answer({"outputs": analyze(body["inputs"], body["parameters"])})

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
