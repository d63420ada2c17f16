"""A whole daemon as a process of its own, and a plain HTTP client to talk to it."""

import contextlib
import http.client
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import IO, Any

import psutil

ROOT = Path(__file__).parents[2]
_START_SECONDS = 120


class UnixConnection(http.client.HTTPConnection):
    """An HTTP connection over a Unix socket."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


class Answer:
    """A status, headers and a JSON body."""

    def __init__(self, status: int, headers: Mapping[str, str], raw: bytes) -> None:
        self.status = status
        self.headers = headers
        self.raw = raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    def __repr__(self) -> str:
        return f"<Answer {self.status} {self.raw[:2000]!r}>"


class Daemon:
    """One prsmd with its own state folder. `settings` are `section.key` and TOML values."""

    def __init__(
        self, folder: Path, settings: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        self.folder = folder
        self.socket = folder / "prsmd.sock"
        self.tcp_port = _free_port()
        self._settings = {
            "daemon.state_dir": f'"{folder}/state"',
            "daemon.log_format": '"text"',
            "unix.path": f'"{self.socket}"',
            "tcp.port": str(self.tcp_port),
            "node.memory_reserved": '"1Mi"',
            **settings,
        }
        self._environment = {**os.environ, **environment}
        self.process: subprocess.Popen[bytes] | None = None
        self._noted = 0

    @property
    def log(self) -> str:
        """What the daemon wrote since `begin_log`."""
        return (self.folder / "log").read_text(errors="replace")[self._noted :]

    @property
    def instance(self) -> str:
        """Who the daemon is: what its containers are labelled with."""
        path = self.folder / "state" / "control.db"
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as database:
            query = "SELECT value FROM meta WHERE key = 'instance_id'"
            return str(database.execute(query).fetchone()[0])

    def begin_log(self) -> None:
        """Let `log` begin here."""
        self._noted += len(self.log)

    def start(self) -> None:
        """Start it and return when it answers."""
        flags = [flag for k, v in self._settings.items() for flag in ("--set", f"{k}={v}")]
        with (self.folder / "log").open("ab") as log:
            self.process = self._spawn([sys.executable, "-m", "prsmd", *flags], log)
        deadline = time.monotonic() + _START_SECONDS
        while not self._answers():
            if self.process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the daemon did not start:\n{self.log}")
            time.sleep(0.02)

    def processor_seconds(self) -> float:
        """Return the processor time that it took since it was started last."""
        assert self.process is not None
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    def kill(self) -> None:
        """End it as a power cut would: `kill -9`."""
        self._end(signal.SIGKILL)

    def close(self) -> None:
        """Let go of what it was given; a plain daemon was given nothing."""

    def stop(self) -> int:
        """End it as systemd does, and return its exit code."""
        return self._end(signal.SIGTERM)

    def call(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float = 60,
    ) -> Answer:
        """Make one request: over the Unix socket, or over TCP where a key (or "") is given."""
        connection: http.client.HTTPConnection = (
            UnixConnection(self.socket, timeout)
            if key is None
            else http.client.HTTPConnection("127.0.0.1", self.tcp_port, timeout=timeout)
        )
        sent = {"Authorization": f"Bearer {key}"} if key else {}
        payload = body
        if body is not None and not isinstance(body, bytes):
            payload = json.dumps(body).encode()
        if payload is not None:
            sent["Content-Type"] = "application/json"
        with contextlib.closing(connection):
            connection.request(method, path, payload, {**sent, **(headers or {})})
            answer = connection.getresponse()
            return Answer(answer.status, dict(answer.getheaders()), answer.read())

    def status(self, deployment: str, wait: float = 0) -> Any:
        """Return a deployment's status, after it settles or `wait` seconds."""
        answer = self.call("GET", f"/v1/custom-models/deployments/{deployment}?wait={wait}")
        assert answer.status == 200, answer
        return answer.json

    def until(self, what: str, condition: Any, seconds: float = 30) -> Any:
        """Return the first true value of `condition()`; fail with the daemon's log without one."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError, http.client.HTTPException):
                found = condition()
                if found:
                    return found
            time.sleep(0.05)
        raise AssertionError(f"not within {seconds} s: {what}\n{self.log[-6000:]}")

    def until_ready(self, deployment: str, replicas: int, seconds: float = 30) -> Any:
        """Return the status once exactly that many replicas are ready and wanted."""

        def ready() -> Any:
            status = self.status(deployment)
            counts = status["replicas"]
            return status if counts["ready"] == counts["desired"] == replicas else None

        return self.until(f"{replicas} ready replicas of {deployment}", ready, seconds)

    def until_ready_at_least(self, deployment: str, replicas: int, seconds: float = 30) -> Any:
        """Return the status once at least that many replicas are ready."""
        return self.until(
            f"at least {replicas} ready replicas of {deployment}",
            lambda: (s := self.status(deployment))["replicas"]["ready"] >= replicas and s,
            seconds,
        )

    def deploy(self, body: Any, *, key: str | None = None) -> str:
        """Deploy, and return the deployment's id."""
        answer = self.call("POST", "/v1/custom-models/deploy", body, key=key)
        assert answer.status == 202, answer
        return str(answer.json["deployment_id"])

    def infer(self, model: str = "custom_model", inputs: Any = None, **options: Any) -> Answer:
        """Infer; `options` are those of `call`."""
        body = {"inputs": {"text": "hello"} if inputs is None else inputs}
        return self.call("POST", f"/v1/models/{model}/infer", body, **options)

    def scale(self, target: int, model: str = "custom_model") -> Answer:
        """Ask for that many replicas."""
        answer = self.call("POST", f"/v1/custom-models/{model}/scale", {"target_replicas": target})
        assert answer.status == 202, answer
        return answer

    def events(self, deployment: str, reason: str | None = None) -> list[Any]:
        """Return the deployment's events, oldest first, or those for one reason."""
        answer = self.call("GET", f"/v1/custom-models/deployments/{deployment}/events?limit=1000")
        assert answer.status == 200, answer
        found = answer.json["events"]
        return [event for event in found if reason in {None, event["reason"]}]

    def until_event(self, deployment: str, reason: str, seconds: float = 30) -> Any:
        """Return the last event for a reason, as soon as there is one."""
        found = self.until(reason, lambda: self.events(deployment, reason), seconds)
        return found[-1]

    def ensure_started(self) -> None:
        """Start the daemon if it does not run."""
        if self.process is None or self.process.poll() is not None:
            self.start()

    def remove_models(self) -> None:
        """Delete every model of every organization; return when they are gone."""
        _remove_all(self)

    def key(self, role: str = "admin", organization: str | None = None) -> str:
        """Make an API key over the socket and return its text; its organization too, if need be."""
        body = {"name": "test", "role": role}
        if organization is not None:
            body["organization"] = organization
            made = self.call("POST", "/v1/organizations", {"organization_id": organization})
            assert made.status in {201, 409}, made
        answer = self.call("POST", "/v1/api-keys", body)
        assert answer.status == 201, answer
        return str(answer.json["key"])

    def _spawn(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            command,
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,
        )

    def _answers(self) -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            return self.call("GET", "/healthz", timeout=2).status == 200
        return False

    def _end(self, number: int) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(60)


class ActivatedDaemon(Daemon):
    """A daemon under socket activation: both listeners are this process's and outlive it.

    While no daemon runs, who connects waits, as with systemd's sockets.
    """

    def __init__(
        self, folder: Path, settings: Mapping[str, str], environment: Mapping[str, str]
    ) -> None:
        super().__init__(folder, settings, environment)
        self._listeners = [socket.socket(socket.AF_UNIX), socket.socket(socket.AF_INET)]
        self._listeners[0].bind(str(self.socket))
        self._listeners[1].bind(("127.0.0.1", self.tcp_port))
        for listener in self._listeners:
            listener.listen(1024)

    def close(self) -> None:
        """Let go of the listeners."""
        for listener in self._listeners:
            listener.close()

    def _spawn(self, command: list[str], log: IO[bytes]) -> subprocess.Popen[bytes]:
        numbers = [listener.fileno() for listener in self._listeners]
        return subprocess.Popen(
            [sys.executable, "-c", _ACTIVATE, ",".join(map(str, numbers)), *command],
            stdout=log,
            stderr=log,
            cwd=ROOT,
            env=self._environment,
            start_new_session=True,
            pass_fds=numbers,
        )


# systemd passes listeners as descriptors 3 and on, and says to whom by the process id.
_ACTIVATE = """
import os, sys
given = [os.dup(int(number)) for number in sys.argv[1].split(",")]
high = [os.dup2(number, 100 + place) for place, number in enumerate(given)]
for place, number in enumerate(high):
    os.dup2(number, 3 + place)
os.closerange(3 + len(high), 200)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(high)))
os.execv(sys.argv[2], sys.argv[2:])
"""


@contextlib.contextmanager
def running_daemon(
    folder: Path,
    settings: Mapping[str, str],
    environment: Mapping[str, str] | None = None,
    kind: type[Daemon] = Daemon,
) -> Iterator[Daemon]:
    """Give a started daemon; every model is deleted and the daemon ended afterwards."""
    daemon = kind(folder, settings, environment or {})
    daemon.start()
    try:
        yield daemon
    finally:
        try:
            if daemon.process is not None and daemon.process.poll() is None:
                with contextlib.suppress(OSError, AssertionError):
                    _remove_all(daemon)
        finally:
            if daemon.process is not None and daemon.process.poll() is None:
                daemon.kill()
            daemon.close()
            _end_processes(folder)


def _end_processes(folder: Path) -> None:
    """End the models that go on without a daemon that was stopped before."""
    for process in psutil.process_iter(["cmdline"]):
        supervises = "supervisor.py" in " ".join(process.info["cmdline"] or ())
        if supervises and any(f"{folder}/" in part for part in process.info["cmdline"]):
            with contextlib.suppress(psutil.Error):
                for each in (*process.children(recursive=True), process):
                    each.kill()


def _remove_all(daemon: Daemon) -> None:
    def none_left() -> bool:
        listed = daemon.call("GET", "/v1/custom-models?limit=100", timeout=10)
        if listed.status != 200:
            return False
        found = listed.json
        for model in found["custom_models"]:
            daemon.call("DELETE", f"/v1/custom-models/{model['model_id']}", timeout=10)
        return found["total"] == 0

    daemon.until("no model left", none_left, 20)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
