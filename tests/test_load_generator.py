"""The load generator counts what happened: every kind of trouble is told apart, none is dropped."""

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator

from tests.support.load import constant_load


class Troubled(http.server.BaseHTTPRequestHandler):
    """Answers by the number in the request: rightly, or with the trouble of its last digit."""

    protocol_version = "HTTP/1.1"
    seen: set[int]

    def do_POST(self):
        inputs = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["inputs"]
        number = int(inputs["text"].split()[-1])
        again = number in self.seen
        self.seen.add(number)
        if number % 10 == 3:
            self.answer(500, {"error": "told to fail"})
        elif number % 10 == 5:
            self.answer(200, {"outputs": {"inputs": {"text": f"request {number + 1}"}}})
        elif number % 10 == 7 and not again:
            self.close_connection = True  # read, and never answered
        elif number % 10 == 8:
            self.answer(200, self.right(inputs), "close")
        elif number == 9:
            self.server.patience.wait(30)
        else:
            self.answer(200, self.right(inputs))

    def right(self, inputs):
        return {"outputs": {"inputs": inputs, "tag": "right"}}

    def answer(self, status, value, connection="keep-alive"):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", connection)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        """Stay quiet."""


@contextlib.contextmanager
def troubled_server(listener: socket.socket) -> Iterator[None]:
    handler = type("Handler", (Troubled,), {"seen": set()})
    server = http.server.ThreadingHTTPServer(("", 0), handler, bind_and_activate=False)
    server.socket.close()
    server.socket, server.patience = listener, threading.Event()
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.patience.set()
        server.shutdown()
        thread.join(10)
        server.server_close()


def bound() -> tuple[socket.socket, str]:
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener, f"127.0.0.1:{listener.getsockname()[1]}"


def test_failures_wrong_answers_cuts_and_requests_that_nobody_answers_are_told_apart():
    listener, address = bound()
    listener.listen(16)
    with troubled_server(listener):
        options = {"connections": 4, "requests": 100, "timeout": 2}
        with constant_load(address, "model", **options) as load:
            counted = load.until_ended()

    assert (counted.sent, counted.answered, counted.failed) == (100, 79, 21)
    assert counted.statuses == {"500": 10}
    assert (counted.wrong, counted.lost) == (10, 1)
    assert (counted.cut, counted.refused) == (10, 0)
    assert counted.closed >= 10 - 4, "an orderly end of a connection is no cut"
    assert counted.tags == {"right": 79}
    assert [one.number for one in counted.failures if one.status == 0] == [9]


def test_who_is_refused_waits_for_somebody_to_listen_and_nothing_is_lost():
    listener, address = bound()
    with contextlib.ExitStack() as stack:
        load = stack.enter_context(constant_load(address, "model", connections=2, requests=3))
        load.until(lambda counted: counted.refused >= 4)
        listener.listen(16)
        stack.enter_context(troubled_server(listener))
        counted = load.until_ended()

    assert (counted.sent, counted.answered, counted.failed, counted.cut) == (3, 3, 0, 0)
