"""A daemon with one tenant who does harm and two who do not, and what can be read off it.

The models are processes of the embedded runtime. `neighbor` infers all the time, `bystander` only
has a model that is probed. The hostile tenant has a key of every role and many audit records.
"""

import asyncio
import contextlib
import dataclasses
import datetime as dt
import functools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.x509.oid import NameOID

from benchmarks.hostile.payloads import request
from benchmarks.hostile.watch import Watch, over_tcp, over_unix
from prsmd.domain.events import AuditRecord
from prsmd.store import audit
from prsmd.store.db import USAGE, Database, Tx
from tests.support import fastmodel
from tests.support.daemon import Answer, Daemon, running_daemon

_BUNDLES = Path(__file__).parent / "bundles"
_HEALTHY = {"neighbor": 2, "bystander": 1}
_ROLES = ("viewer", "invoker", "operator", "deployer", "auditor", "owner")
_AT_ONCE = 5000
_QUIET_SECONDS = 1.0
_QUIET_GAP_MS = 250.0
_QUESTION = b'{"inputs":{"text":"hello"}}'


@dataclasses.dataclass(frozen=True, slots=True)
class Site:
    """The daemon, the keys of the hostile tenant by role, and the two watches."""

    daemon: Daemon
    keys: dict[str, str]
    deployments: dict[str, str]
    health: Watch
    inference: Watch

    @property
    def process_id(self) -> int:
        """The daemon's."""
        assert self.daemon.process is not None
        return self.daemon.process.pid

    @property
    def alive(self) -> bool:
        """Tell whether the daemon runs."""
        return self.daemon.process is not None and self.daemon.process.poll() is None

    def replicas(self) -> frozenset[str]:
        """Return the ids of the ready replicas of those who do no harm."""
        found: set[str] = set()
        for tenant in _HEALTHY:
            for replica in self.daemon.status(self.deployments[tenant])["replica_details"]:
                if replica["ready"]:
                    found.add(replica["replica_id"])
        return frozenset(found)

    def resident_mb(self, name: str = "VmRSS") -> float:
        """Return the daemon's resident memory; `VmHWM`: its peak since `forget_peak`."""
        status = Path(f"/proc/{self.process_id}/status").read_text()
        [line] = [row for row in status.splitlines() if row.startswith(f"{name}:")]
        return round(int(line.split()[1]) * 1024 / 1e6, 1)

    def forget_peak(self) -> None:
        """Let the peak begin with what is resident now."""
        Path(f"/proc/{self.process_id}/clear_refs").write_text("5")

    def mark(self) -> None:
        """Let both watches and the peak begin anew."""
        self.health.mark()
        self.inference.mark()
        self.forget_peak()

    def settle(self, seconds: float) -> bool:
        """Return when both watches get answers as if nothing were; False: not within `seconds`."""
        end = time.monotonic() + seconds
        quiet_since = time.monotonic()
        while time.monotonic() < end:
            time.sleep(0.05)
            silent = max(self.health.silent_seconds, self.inference.silent_seconds)
            if 1000 * silent > _QUIET_GAP_MS:
                quiet_since = time.monotonic()
            elif time.monotonic() - quiet_since > _QUIET_SECONDS:
                return True
        return False

    def change(self, method: str, path: str, body: Any) -> Any:
        """Have the hostile tenant's owner change something; return the answer's body."""
        answer = call(self.daemon, method, path, body, self.keys["owner"])
        assert answer.status in {200, 201, 202}, answer
        return answer.json

    def until_on_trial(self) -> None:
        """Return when the hostile model has a revision on trial."""
        self.daemon.until_event(self.deployments["hostile"], "TrialStep", 60)

    def tidy(self) -> None:
        """Delete what the hostile tenant made besides its own model, and end its trial."""
        daemon = self.daemon
        abort = "/v1/custom-models/hostile/rollout/abort"
        call(daemon, "POST", abort, None, self.keys["owner"])  # mostly there is none

        def tidied() -> bool:
            path = "/v1/custom-models?limit=100"
            found = call(daemon, "GET", path, None, self.keys["owner"]).json["custom_models"]
            names = [m["model_id"] for m in found if m["model_name"] != "hostile"]
            for name in names:
                gone = f"/v1/custom-models/{name}"
                call(daemon, "DELETE", gone, None, self.keys["owner"])
            return not names

        daemon.until("no model more than there was", tidied, 120)


@contextlib.contextmanager
def running_site(folder: Path, records: int, *, tls: bool = False) -> Iterator[Site]:
    """Give the site, with so many audit records of the hostile tenant.

    With `tls` the network listener has a certificate, and the watches use the Unix socket.
    """
    (bundle := folder / "bundles" / "steady").mkdir(parents=True)
    (bundle / "bundle.toml").write_text(
        f'references = ["steady/model:1"]\ncommand = ["{fastmodel.program()}"]\n'
    )
    settings = {
        "runtime.name": '"process"',
        "runtime.bundle_dirs": f'["{bundle.parent}", "{_BUNDLES}"]',
        "runtime.stop_grace_seconds": "2",
        **(_certificate(folder) if tls else {}),
    }
    with running_daemon(folder, settings) as daemon:
        daemon.stop()
        asyncio.run(_populate(folder / "state", records))
        daemon.start()
        keys = {role: daemon.key(role, "hostile") for role in _ROLES}
        keys["limited"] = _limited_key(daemon)
        neighbor = daemon.key("invoker", "neighbor")
        deployments = {
            "hostile": _deploy(daemon, "hostile", keys["owner"], 1),
            **{
                name: _deploy(daemon, name, daemon.key("owner", name), count)
                for name, count in _HEALTHY.items()
            },
        }
        connect = over_unix(str(daemon.socket)) if tls else over_tcp(daemon.tcp_port)
        infer = request("POST /v1/models/neighbor/infer", neighbor, _QUESTION)
        with (
            contextlib.closing(Watch(connect, b"".join(request("GET /healthz", None)))) as health,
            contextlib.closing(Watch(connect, b"".join(infer))) as inference,
        ):
            yield Site(daemon, keys, deployments, health, inference)


def call(daemon: Daemon, method: str, path: str, body: Any, key: str) -> Answer:
    """Make a request with a key over the Unix socket, where hostile clients are not."""
    return daemon.call(method, path, body, headers={"Authorization": f"Bearer {key}"})


def model_body(name: str, image: str, replicas: int = 1, **config: Any) -> dict[str, Any]:
    """Return the body that deploys a small model."""
    return {
        "model_name": name,
        "deployment_config": {
            "container_image": image,
            "resource_requirements": {"cpu": "50m", "memory": "64Mi"},
            "scaling": {"min_replicas": replicas, "max_replicas": replicas},
            **config,
        },
    }


def _deploy(daemon: Daemon, tenant: str, key: str, replicas: int) -> str:
    image = "hostile/model:1" if tenant == "hostile" else "steady/model:1"
    config = {"serving": {"queue_depth": 500}}
    body = model_body(tenant, image, replicas, **config)
    answer = call(daemon, "POST", "/v1/custom-models/deploy", body, key)
    assert answer.status == 202, answer
    made = str(answer.json["deployment_id"])
    daemon.until_ready(made, replicas)
    return made


def _limited_key(daemon: Daemon) -> str:
    body = {"name": "limited", "role": "invoker", "organization": "hostile"}
    answer = daemon.call("POST", "/v1/api-keys", {**body, "requests_per_minute": 1})
    assert answer.status == 201, answer
    return str(answer.json["key"])


def _certificate(folder: Path) -> dict[str, str]:
    """Make a certificate for `localhost`; return the settings that name it."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = dt.datetime.now(dt.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.crt").write_bytes(made.public_bytes(pem))
    (folder / "tls.key").touch(0o600)
    (folder / "tls.key").write_bytes(private)
    return {"tcp.cert": f'"{folder}/tls.crt"', "tcp.key": f'"{folder}/tls.key"'}


async def _populate(folder: Path, records: int) -> None:
    """Write the records as the daemon would, into both logs."""
    async with contextlib.AsyncExitStack() as stack:
        control = await Database.open(folder)
        stack.push_async_callback(control.close)
        usage = await Database.open(folder, file=USAGE)
        stack.push_async_callback(usage.close)
        for database in (control, usage):
            for start in range(0, records, _AT_ONCE):
                made = [_record(n) for n in range(start, min(start + _AT_ONCE, records))]
                await database.write(functools.partial(_append, made))


async def _append(made: list[AuditRecord], tx: Tx) -> None:
    await audit.append_all(tx, made)


def _record(number: int) -> AuditRecord:
    return AuditRecord(
        at=time.time() - 86400 + number / 10,
        principal=f"key:{number % 97:010d}",
        organization="hostile" if number % 4 else "neighbor",
        action="models.scale",
        subject=f"deploy_{number % 1009:012d}",
        outcome="allowed",
        request_id=f"req_{number:016x}",
        details={"target_replicas": number % 9, "note": "x" * 40},
    )
