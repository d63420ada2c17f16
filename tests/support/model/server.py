"""A model server for tests, with nothing but the standard library, steered by its environment.

    GET  /health   200 when ready, else 503
    POST /infer    {"inputs", "parameters"} -> {"outputs": {"inputs", "parameters", "gpus", ...}}
    POST /log      {"lines": [...], "stream": "stdout" | "stderr"}: prints them
    POST /exit     {"code": n}: ends at once
    POST /eat      {"bytes": n}: takes that much memory and keeps it
    POST /read     {"path"}: {"text"} or {"error"}, and the file's mode
    POST /run      {"source", "seconds"}: runs Python beside it; {"out", "err", "code"}
    POST /connect  {"host", "port"}, POST /resolve {"name"}: {"error": what came in the way}
    GET  /environment, /process, /limits: what a test wants to see from inside

START_DELAY   seconds before it listens            NEVER_READY   /health says 503 for ever
CRASH_AFTER   seconds after which it ends by itself, or `N requests`
EXIT_CODE     what it ends with then (1)           EAT_MEMORY    bytes taken at start
LATENCY       seconds an inference takes           IGNORE_TERM   SIGTERM changes nothing
ERROR         status that every /infer answers     LOG_LINES     lines printed at start
CHILDREN      processes of its own, each ignoring SIGTERM
"""

import contextlib
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.parse

ENV = os.environ
STARTED = time.monotonic()
EATEN = []
REQUESTS = [0]
CHILDREN = []


def log(text, stream="stdout"):
    """Print one line at once: in two writes, its end could be taken for the next line's."""
    os.write(2 if stream == "stderr" else 1, f"{text}\n".encode())


def end(code=None):
    """End the process without asking anyone."""
    os._exit(int(ENV.get("EXIT_CODE", "1")) if code is None else code)


def eat(size):
    """Take `size` bytes for good, touching every page."""
    EATEN.extend(os.urandom(1 << 12) * (1 << 8) for _ in range(0, size, 1 << 20))


def crash_after():
    """Return (seconds, requests), one of them None."""
    amount, _, unit = ENV.get("CRASH_AFTER", "").partition(" ")
    if not amount:
        return None, None
    return (None, int(amount)) if unit.startswith("request") else (float(amount), None)


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, kept alive."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_):
        """Stay quiet: tests count log lines."""

    def do_GET(self):
        """Answer what there is to see."""
        path = urllib.parse.urlsplit(self.path).path
        if path == "/health":
            ready = not ENV.get("NEVER_READY")
            self.answer(200 if ready else 503, {"status": "ok" if ready else "not ready"})
        elif path == "/environment":
            self.answer(200, dict(ENV))
        elif path == "/process":
            self.answer(200, {"pid": os.getpid(), "children": [c.pid for c in CHILDREN]})
        elif path == "/limits":
            self.answer(200, limits())
        else:
            self.answer(404, {"error": "no such path"})

    def do_POST(self):
        """Infer, or do what a test asks."""
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", "0"))) or b"{}")
        if self.path == "/infer":
            self.infer(body)
        elif self.path == "/log":
            for line in body["lines"]:
                log(line, body.get("stream", "stdout"))
            self.answer(200, {})
        elif self.path == "/exit":
            end(body.get("code"))
        elif self.path == "/read":
            self.answer(200, read(body["path"]))
        elif self.path == "/run":
            self.answer(200, run(body["source"], body.get("seconds", 20)))
        elif self.path in {"/connect", "/resolve"}:
            self.answer(200, {"error": way_out(body)})
        elif self.path == "/eat":
            eat(body["bytes"])
            self.answer(200, {})
        else:
            self.answer(404, {"error": "no such path"})

    def infer(self, body):
        """Answer what came in, and who answers."""
        time.sleep(float(ENV.get("LATENCY", "0")))
        REQUESTS[0] += 1
        limit = crash_after()[1]
        if limit is not None and REQUESTS[0] > limit:
            end()
        if ENV.get("ERROR"):
            self.answer(int(ENV["ERROR"]), {"error": "told to fail"})
            return
        outputs = {
            "inputs": body.get("inputs"),
            "parameters": body.get("parameters"),
            "gpus": ENV.get("NVIDIA_VISIBLE_DEVICES"),
            "pid": os.getpid(),
            "requests": REQUESTS[0],
        }
        self.answer(200, {"outputs": outputs})

    def answer(self, status, value):
        """Send a JSON answer."""
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.wfile.write(body)


def limits():
    """Return what the kernel says of this process: capabilities, ids, what can be written."""
    status = pathlib.Path("/proc/self/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in status)
    wanted = ("CapEff", "CapBnd", "NoNewPrivs", "Seccomp", "Uid", "Gid")
    return {
        **{name: fields[name].strip() for name in wanted},
        "mounts": pathlib.Path("/proc/self/mounts").read_text(),
        "routes": pathlib.Path("/proc/net/route").read_text(),
        "writable": [path for path in ("/", "/etc", "/model", "/tmp", "/var") if writable(path)],
        "init": pathlib.Path("/proc/1/comm").read_text().strip(),
    }


def read(path):
    """Return what a file holds, as this process sees it."""
    try:
        mode = pathlib.Path(path).stat().st_mode & 0o777
        return {"text": pathlib.Path(path).read_text(), "mode": f"{mode:o}"}
    except OSError as error:
        return {"error": str(error)}


def run(source, seconds):
    """Run a program in a process of its own; return what it printed and how it ended."""
    command = [sys.executable, "-c", source]
    try:
        done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=seconds)
    except (subprocess.TimeoutExpired, OSError) as error:
        return {"out": "", "err": str(error), "code": None}
    return {"out": done.stdout[-20000:], "err": done.stderr[-2000:], "code": done.returncode}


def way_out(body):
    """Try to reach a host or resolve a name; return what came in the way."""
    try:
        if "name" in body:
            socket.getaddrinfo(body["name"], 80)
        else:
            socket.create_connection((body["host"], body["port"]), timeout=2).close()
    except OSError as error:
        return str(error)
    return None


def writable(folder):
    """Tell whether a file can be made there."""
    probe = pathlib.Path(folder) / "probe"
    try:
        probe.write_text("x")
    except OSError:
        return False
    probe.unlink()
    return True


def main():
    """Start as told and serve."""
    if ENV.get("IGNORE_TERM"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: end(0))
    for _ in range(int(ENV.get("CHILDREN", "0"))):
        ignoring = "import signal; signal.signal(15, signal.SIG_IGN); signal.pause()"
        CHILDREN.append(subprocess.Popen([sys.executable, "-c", ignoring]))
    for number in range(int(ENV.get("LOG_LINES", "0"))):
        log(f"line {number}")
    eat(int(ENV.get("EAT_MEMORY", "0")))
    time.sleep(float(ENV.get("START_DELAY", "0")))
    seconds = crash_after()[0]
    if seconds is not None:
        threading.Timer(seconds, end).start()
    address = ENV.get("HOST", "0.0.0.0"), int(ENV["PORT"])
    server = http.server.ThreadingHTTPServer(address, Handler)
    server.daemon_threads = True
    log("listening")
    server.serve_forever()


if __name__ == "__main__":
    main()
