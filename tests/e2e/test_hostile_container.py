"""A container that tries everything: each attempt is stopped, and nobody beside it notices.

The attacks are programs that the test runs inside of it, as code in a model would.
"""

import http.client
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support import containers
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import PrivateEngine
from tests.support.engine_fixtures import need_firewall
from tests.support.traffic import Traffic

pytestmark = pytest.mark.engine
MIB = 1024 * 1024
# The worst case: the daemon listens on every address, so on the bridge's gateway too.
SETTINGS = {
    "tcp.host": '"0.0.0.0"',
    "tcp.allow_plaintext": "true",
    "security.allow_egress": '["evil"]',
}

TRY = """
import ctypes, errno, json, os, pathlib, socket, subprocess, sys
libc = ctypes.CDLL(None, use_errno=True)
found = {}
def attempt(name, work):
    try:
        work()
        found[name] = "done"
    except BaseException as error:
        found[name] = type(error).__name__
def call(number, *arguments):
    def work():
        if libc.syscall(number, *arguments) < 0:
            raise OSError(ctypes.get_errno(), "refused")
    return work
def connect(host, port, kind=socket.AF_INET):
    def work():
        with socket.socket(kind) as way:
            way.settimeout(1.5)
            way.connect((host, port))
    return work
def write(path, data="x"):
    def work():
        with open(path, "w") as file:
            file.write(data)
    return work
"""
CALL = """
import http.client, sys, time
gateway = ".".join(str(b) for b in reversed(bytes.fromhex(next(
    line.split()[2] for line in open("/proc/net/route") if line.split()[1] == "00000000"))))
while True:
    way = http.client.HTTPConnection(gateway, int(sys.argv[1]), timeout=5)
    headers = {"Authorization": f"Bearer {sys.argv[2]}", "Host": "localhost"}
    way.request("GET", "/v1/custom-models", headers=headers)
    print(way.getresponse().status, flush=True)
    way.close()
    time.sleep(0.02)
"""
TELL = "\nprint(json.dumps(found))"


class Hostile:
    """The container of a model that is not on our side."""

    def __init__(self, daemon: Daemon, engine: PrivateEngine, deployment: str) -> None:
        status = daemon.until_ready(deployment, 1)
        self.daemon, self.deployment = daemon, deployment
        self.endpoint: str = status["replica_details"][0]["endpoint"]
        self.host = self.endpoint.rsplit(":", 1)[0]
        self.gateway = ".".join([*self.host.split(".")[:3], "1"])
        with engine.client() as client:
            self.id = next(
                one.id
                for one in client.containers.list()
                if one.labels.get("prsmd.deployment") == deployment
            )

    def run(self, source: str, seconds: float = 20) -> Any:
        """Run a program inside; return what it printed and how it ended.

        Its `code` is None where it, or all of its container, was ended by the kernel.
        """
        body = {"source": source, "seconds": seconds}
        try:
            return containers.ask(self.endpoint, "POST", "/run", body)
        except (OSError, http.client.HTTPException, ValueError):
            return {"out": "", "err": "", "code": None}

    def attempts(self, source: str) -> dict[str, str]:
        """Run attempts inside; return what came of each: "done", or the kind of its refusal."""
        told = self.run(TRY + source + TELL)
        assert told["code"] == 0, told
        found: dict[str, str] = json.loads(told["out"])
        return found


@pytest.fixture
def hostile(daemon: Daemon, engine: PrivateEngine) -> Hostile:
    """Give a hostile container of the organization `evil`."""
    key = daemon.key("owner", "evil")
    body = deploy_body("evil-model", memory="192Mi", cpu="200m")
    return Hostile(daemon, engine, daemon.deploy(body, key=key))


@pytest.fixture
def neighbour(
    daemon: Daemon, hostile: Hostile, traffic: Callable[..., Traffic]
) -> Iterator[Traffic]:
    """Give traffic to a model beside the hostile one; afterwards every request was answered."""
    daemon.until_ready(daemon.deploy(deploy_body("company-model", cpu="500m")), 1)
    rss = psutil.Process(daemon.process.pid).memory_info().rss
    steady = traffic("custom_model", threads=2, each=100_000)
    steady.until_answered(20)
    yield steady
    steady.until_answered(20)
    steady.stop()
    assert steady.failed == []
    assert psutil.Process(daemon.process.pid).memory_info().rss - rss < 96 * MIB
    assert daemon.call("GET", "/readyz").status == 200


def size(folder: Path) -> int:
    """Return the bytes of all files under a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if not path.is_dir())


def test_it_reaches_nothing(daemon: Daemon, hostile: Hostile, neighbour: Traffic) -> None:
    other = daemon.deploy(deploy_body("company-other"))
    theirs = daemon.until_ready(other, 1)["replica_details"][0]["endpoint"].rsplit(":", 1)[0]
    source = f"""
attempt("itself", connect("127.0.0.1", 8080))
for port in (22, 53, 80, 111, 2375, 2376, 2377, 5000, 9323):
    attempt(f"gateway {{port}}", connect({hostile.gateway!r}, port))
attempt("another organization", connect({theirs!r}, 8080))
attempt("metadata", connect("169.254.169.254", 80))
attempt("world", connect("192.0.2.1", 443))
attempt("world by IPv6", connect("2001:db8::1", 443, socket.AF_INET6))
attempt("name", lambda: socket.getaddrinfo("example.com", 80))
attempt("name of a neighbour", lambda: socket.getaddrinfo("prsmd-x", 80))
attempt("docker.sock", lambda: pathlib.Path("/var/run/docker.sock").stat())
attempt("raw socket", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, 1))
attempt("packet socket", lambda: socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 3))
"""
    found = hostile.attempts(source)
    assert found.pop("itself") == "done", "the probe itself does not work"
    assert [name for name, outcome in found.items() if outcome == "done"] == []


@pytest.mark.parametrize("egress", [False, True], ids=["inside", "with a way out"])
def test_its_daemon_hears_nothing_of_it_even_with_an_administrators_key(
    daemon: Daemon, engine: PrivateEngine, egress: bool
) -> None:
    body = deploy_body("evil-model", security={"egress": egress})
    deployment = daemon.deploy(body, key=daemon.key("owner", "evil"))
    hostile, key = Hostile(daemon, engine, deployment), daemon.key("admin")
    assert daemon.call("GET", "/v1/custom-models", key=key).status == 200
    told = hostile.run(f"""
import http.client
for path in ("/v1/custom-models", "/healthz", "/metrics", "/v1/models/custom_model/infer"):
    connection = http.client.HTTPConnection({hostile.gateway!r}, {daemon.tcp_port}, timeout=5)
    headers = {{"Authorization": "Bearer {key}", "Host": "localhost"}}
    connection.request("POST" if "infer" in path else "GET", path, "{{}}", headers)
    print(connection.getresponse().status)
""")
    assert told["out"].split() == ["403"] * 4, told


def test_not_even_the_first_thing_that_it_does_is_heard(daemon: Daemon) -> None:
    """Before anyone has looked where the new container is."""
    body = deploy_body("evil-model", security={"egress": True})
    body["deployment_config"]["command"] = ["python3", "-c", CALL]  # type: ignore[index]
    body["deployment_config"]["args"] = [str(daemon.tcp_port), daemon.key("admin")]  # type: ignore[index]
    deployment = daemon.deploy(body, key=daemon.key("owner", "evil"))

    def told() -> list[str]:
        logs = f"/v1/custom-models/deployments/{deployment}/logs?tail=100"
        lines = daemon.call("GET", logs).json["lines"]
        return [line["text"] for line in lines]

    daemon.until("it called", lambda: len(told()) >= 20)
    assert set(told()) == {"403"}


def test_a_way_out_leads_to_no_other_container(daemon: Daemon, engine: PrivateEngine) -> None:
    need_firewall(engine)
    key = daemon.key("owner", "evil")
    out, beside = (
        Hostile(daemon, engine, daemon.deploy(body, key=key))
        for body in (
            deploy_body("evil-model", security={"egress": True}),
            deploy_body("evil-other", security={"egress": True}),
        )
    )
    inside = Hostile(daemon, engine, daemon.deploy(deploy_body("evil-third"), key=key))
    theirs = Hostile(daemon, engine, daemon.deploy(deploy_body()))
    source = "".join(
        f"attempt({name!r}, connect({one.host!r}, 8080))\n"
        for name, one in [("itself", out), ("beside", beside), ("in", inside), ("theirs", theirs)]
    )
    found = out.attempts(source)
    assert [name for name, outcome in found.items() if outcome == "done"] == ["itself"]


def test_its_own_organizations_containers_do_not_hear_it_either(
    daemon: Daemon, engine: PrivateEngine, hostile: Hostile
) -> None:
    need_firewall(engine)
    key = daemon.key("owner", "evil")
    beside = Hostile(daemon, engine, daemon.deploy(deploy_body("evil-other"), key=key))
    found = hostile.attempts(f'attempt("beside", connect({beside.host!r}, 8080))')
    assert found["beside"] != "done"


def test_it_changes_nothing_and_sees_nothing_of_the_host(hostile: Hostile) -> None:
    found = hostile.attempts("""
for place in ("/x", "/etc/passwd", "/model/server.py", "/usr/bin/x", "/run/secrets/x", "/dev/x"):
    attempt(f"write {place}", write(place))
for place in ("kernel/core_pattern", "vm/overcommit_memory", "net/ipv4/ip_forward"):
    attempt(f"sysctl {place}", write(f"/proc/sys/{place}", "1"))
attempt("sysrq", write("/proc/sysrq-trigger", "b"))
attempt("uevent helper", write("/sys/kernel/uevent_helper", "/x"))
attempt("cgroup", write("/sys/fs/cgroup/memory/memory.limit_in_bytes", "-1"))
attempt("cgroup 2", write("/sys/fs/cgroup/memory.max", "max"))
attempt("release agent", write("/sys/fs/cgroup/memory/release_agent", "/x"))
for device in ("mem", "kmem", "kmsg", "sda", "vda", "nvme0n1", "fuse", "kvm", "loop-control"):
    attempt(f"device {device}", lambda: open(f"/dev/{device}", "rb").read(1))
attempt("make a device", lambda: os.mknod("/tmp/disk", 0o60600, os.makedev(8, 0)))
attempt("kernel memory", lambda: 1 / len(open("/proc/kcore", "rb").read(1)))
attempt("root of init", lambda: os.listdir("/proc/1/root/etc") and os.stat("/proc/1/root/x"))
attempt("run from tmp", lambda: (write("/tmp/x", "#!/bin/sh")(), os.chmod("/tmp/x", 0o755),
                                 subprocess.run(["/tmp/x"], check=True)))
""")
    assert [name for name, outcome in found.items() if outcome == "done"] == []


def test_it_gains_no_privilege(hostile: Hostile) -> None:
    found = hostile.attempts("""
attempt("be root", lambda: os.setuid(0))
attempt("be in another group", lambda: os.setgroups([0]))
attempt("give away", lambda: (write("/tmp/y")(), os.chown("/tmp/y", 0, 0)))
attempt("change root", lambda: os.chroot("/tmp"))
attempt("host name", lambda: socket.sethostname("x"))
attempt("mount", call(165, b"none", b"/tmp", b"tmpfs", 0, 0))
attempt("unmount", call(166, b"/proc/sys", 0))
attempt("user namespace", call(272, 0x10000000))
attempt("mount namespace", call(272, 0x00020000))
attempt("another's namespace", call(308, os.open("/proc/1/ns/net", os.O_RDONLY), 0))
attempt("trace another", call(101, 16, 2**22 - 1, 0, 0))
attempt("load a module", call(175, b"x", 1, b""))
attempt("boot another kernel", call(246, 0, 0, 0, 0))
attempt("reboot", call(169, 0xfee1dead, 672274793, 0x1234567, 0))
attempt("set the clock", call(227, 0, ctypes.byref((ctypes.c_long * 2)(1, 1))))
attempt("bpf", call(321, 0, ctypes.byref((ctypes.c_int * 32)(1, 4, 4, 1)), 128))
attempt("keys", call(250, 0, -3, 1))
attempt("watch the processor", call(298, ctypes.byref((ctypes.c_int * 32)(0, 128)), -1, 0, -1, 0))
attempt("be first", lambda: os.nice(-10))
attempt("swap", call(167, b"/tmp/y", 0))
attempt("kill outside", lambda: os.kill(-1, 0) or os.kill(2**22 - 1, 9))
""")
    assert [name for name, outcome in found.items() if outcome == "done"] == []


def test_a_fork_bomb_ends_at_its_limit(hostile: Hostile, neighbour: Traffic) -> None:
    source = """
import os, signal
made = []
try:
    while len(made) < 5000:
        child = os.fork()
        if not child:
            signal.pause()
        made.append(child)
except OSError as error:
    print(error.strerror)
print(len(made))
for child in made:
    os.kill(child, 9)
"""
    told = hostile.run(source, 30)
    neighbour.until_answered(20)
    if told["code"] == 0:  # else its memory ended first
        assert int(told["out"].split()[-1]) < 1024
        assert "temporarily unavailable" in told["out"]


def test_too_much_memory_ends_it_alone(
    daemon: Daemon, engine: PrivateEngine, hostile: Hostile, neighbour: Traffic
) -> None:
    with pytest.raises((OSError, http.client.HTTPException)):  # its answer never comes
        containers.ask(hostile.endpoint, "POST", "/eat", {"bytes": 1024 * MIB})
    event = daemon.until_event(hostile.deployment, "OutOfMemory")
    assert "memory" in event["message"]
    neighbour.until_answered(20)


def test_what_it_writes_is_bounded(
    engine: PrivateEngine, hostile: Hostile, neighbour: Traffic
) -> None:
    source = """
import os
for place in ("/tmp/big", "/dev/shm/big"):
    written = 0
    try:
        with open(place, "wb", buffering=0) as file:
            while written < 1 << 30:
                written += file.write(bytes(1 << 16))
    except OSError as error:
        print(place, written, error.strerror)
    os.unlink(place)
"""
    told = hostile.run(source, 40)
    bound = 192 * MIB  # its memory: both places are in it
    for line in told["out"].splitlines():
        assert int(line.split()[1]) <= bound, told
        assert "No space left" in line
    assert told["out"] or told["code"] != 0  # its memory may end it first
    with engine.client() as client:
        if any(one.id == hostile.id for one in client.containers.list()):
            raw = client.api.get(
                f"{client.api.base_url}/containers/{hostile.id}/json?size=1"
            ).json()
            assert raw["SizeRw"] < MIB


def test_a_flood_of_logs_is_bounded_everywhere(
    daemon: Daemon, engine: PrivateEngine, hostile: Hostile, neighbour: Traffic
) -> None:
    before = size(daemon.folder)
    source = """
import os
with open("/proc/1/fd/1", "wb", buffering=0) as out:
    for _ in range(1600):
        out.write((b"x" * 1023 + b"\\n") * 32)
"""
    told = hostile.run(source, 60)
    if told["code"] != 0:  # init's output is not its to write: its server prints for it
        for _ in range(50):
            lines = {"lines": ["y" * 16000] * 64, "stream": "stdout"}
            containers.ask(hostile.endpoint, "POST", "/log", lines)
    neighbour.until_answered(20)
    folder = engine.folder / "data" / "containers" / hostile.id
    logs = sum(path.stat().st_size for path in folder.glob("*.log*"))
    assert 4 * MIB < logs < 12 * MIB
    logs_of = f"/v1/custom-models/deployments/{hostile.deployment}/logs?tail=100"
    assert len(daemon.call("GET", logs_of).raw) < 8 * MIB
    assert size(daemon.folder) - before < 24 * MIB


def test_a_busy_loop_gets_its_share_and_no_more(hostile: Hostile, neighbour: Traffic) -> None:
    source = """
import os, time
began = time.monotonic()
children = []
for _ in range(8):
    child = os.fork()
    if not child:
        while time.monotonic() - began < 4:
            pass
        os._exit(0)
    children.append(child)
for child in children:
    os.waitpid(child, 0)
used = os.times()
print((used.children_user + used.children_system) / (time.monotonic() - began))
"""
    told = hostile.run(source, 40)
    assert told["code"] == 0, told
    assert float(told["out"]) < 0.3  # of a core; 0.2 is its own
    neighbour.until_answered(20)
