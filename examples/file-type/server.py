"""Tells the type of a file from its content: magika (ONNX) behind prsmd's native contract.

inputs:      {"content": "<base64>"} or {"text": "..."}
parameters:  {"confidence_threshold": 0.0}; others are ignored
outputs:     {"classification": "python", "confidence": 0.99, "mime_type", "group",
              "description", "extensions", "is_text"}

`unknown` stands for confidence below the threshold.
"""

import base64
import binascii
import contextlib
import http.server
import json
import os
import signal
import threading
import time
import traceback

from magika import Magika


class Model:
    """The classifier; loaded once, used by every thread."""

    name = "file-type"

    def __init__(self):
        self._magika = Magika()
        self._magika.identify_bytes(b"the first run initializes the session")

    def infer(self, inputs, parameters):
        """Return the type of the content. InvalidInputError."""
        threshold = fraction(parameters, "confidence_threshold", 0.0)
        result = self._magika.identify_bytes(content_of(inputs))
        found = result.output
        return {
            "classification": found.label if result.score >= threshold else "unknown",
            "confidence": round(result.score, 4),
            "mime_type": found.mime_type,
            "group": found.group,
            "description": found.description,
            "extensions": list(found.extensions),
            "is_text": found.is_text,
        }


def content_of(inputs):
    """Return the bytes to look at."""
    if ("content" in inputs) == ("text" in inputs):
        raise InvalidInputError('inputs need either "content" (base64) or "text"')
    given = inputs.get("content", inputs.get("text"))
    if not isinstance(given, str):
        raise InvalidInputError('"content" and "text" must be strings')
    if "text" in inputs:
        return given.encode(errors="surrogatepass")
    try:
        return base64.b64decode(given, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInputError(f'"content" is not base64: {error}') from None


# The native contract over HTTP, the same in every example: copy it with a Model of your own.

MAX_BODY_BYTES = 16 * 1024 * 1024
IDLE_SECONDS = 90  # how long a kept-alive connection may wait for its next request
FINISH_SECONDS = 20  # how long running requests may take after SIGTERM


class InvalidInputError(Exception):
    """The request cannot be answered; the message says what to change."""


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers GET /health and POST /infer."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # head and body leave in one segment
    timeout = IDLE_SECONDS
    server: "ModelServer"

    def handle_one_request(self):
        with contextlib.ExitStack() as self.running:  # until its answer is on its way
            super().handle_one_request()

    def parse_request(self):
        self.running.enter_context(self.server.request_running())
        return super().parse_request()

    def handle_expect_100(self):
        super().handle_expect_100()
        self.wfile.flush()
        return True

    def do_GET(self):
        if self.path != "/health":
            return self.answer(404, {"error": "there are GET /health and POST /infer"})
        return self.answer(200, {"status": "ok", "model": self.server.model.name})

    def do_POST(self):
        if self.path != "/infer":
            self.close_connection = True  # its body is not read
            return self.answer(404, {"error": "there are GET /health and POST /infer"})
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal() or int(length) > MAX_BODY_BYTES:
            self.close_connection = True
            status, what = (413, "is too large") if length.isdecimal() else (411, "is missing")
            return self.answer(status, {"error": f"Content-Length {what}"})
        try:
            inputs, parameters = parse(self.rfile.read(int(length)))
            return self.answer(200, {"outputs": self.server.model.infer(inputs, parameters)})
        except InvalidInputError as error:
            return self.answer(400, {"error": str(error)})
        except Exception:  # noqa: BLE001 - whatever a model raises, its caller gets an answer
            traceback.print_exc()
            return self.answer(500, {"error": "the model failed; its log says why"})

    def answer(self, status, content):
        body = json.dumps(content, ensure_ascii=False).encode()
        if self.server.stopping.is_set():
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(body)

    def log_request(self, code="-", size="-"):
        """Say nothing of what went well: the daemon counts and records every inference."""
        if code != 200:
            super().log_request(code, size)


def parse(body):
    """Return inputs and parameters of a request's body."""
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInputError(f"the body is not JSON: {error}") from None
    if not isinstance(request, dict) or not isinstance(request.get("inputs"), dict):
        raise InvalidInputError('the body must be an object with an object "inputs"')
    parameters = request.get("parameters", {})
    if not isinstance(parameters, dict):
        raise InvalidInputError('"parameters" must be an object')
    return request["inputs"], parameters


def fraction(parameters, name, default):
    """Return the parameter of that name as a number from 0 to 1."""
    value = parameters.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise InvalidInputError(f'"{name}" must be a number from 0 to 1')
    return value


class ModelServer(http.server.ThreadingHTTPServer):
    """A thread for each connection; `stop` lets running requests finish."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address, model):
        super().__init__(address, Handler)
        self.model = model
        self.stopping = threading.Event()
        self._running = 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def request_running(self):
        with self._changed:
            self._running += 1
        try:
            yield
        finally:
            with self._changed:
                self._running -= 1
                self._changed.notify_all()

    def stop(self):
        self.stopping.set()
        self.shutdown()

    def finish(self):
        with self._changed:
            self._changed.wait_for(lambda: self._running == 0, timeout=FINISH_SECONDS)


def main():
    """Load the model, then listen: whoever can connect gets answers."""
    started = time.monotonic()
    model = Model()
    address = os.environ.get("HOST", "0.0.0.0"), int(os.environ.get("PORT", "8080"))
    with ModelServer(address, model) as server:
        # shutdown() waits for serve_forever(), which runs in the thread that gets the signal
        signal.signal(signal.SIGTERM, lambda *_: threading.Thread(target=server.stop).start())
        took = time.monotonic() - started
        print(
            f"{model.name}: listening on port {server.server_port}, loaded in {took:.1f} s",
            flush=True,
        )
        with contextlib.suppress(KeyboardInterrupt):
            server.serve_forever(poll_interval=0.05)
        server.finish()
    print(f"{model.name}: stopped", flush=True)


if __name__ == "__main__":
    main()
