"""Tries prsmd out: a daemon in a temporary folder, a real model, every step shown with its JSON.

Started by scripts/quickstart. Uses only what a user has: prsmd, prsmctl and the configuration.
"""

import argparse
import contextlib
import dataclasses
import grp
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
EXAMPLE = "language-id"
IMAGE = "company/legal-analyzer:v2.1"
MODEL = "custom_legal_analyzer_v2"
NETWORKS = "prsmd-quickstart"
START_SECONDS = 60
END_SECONDS = 60
NOT_FOUND = 4  # prsmctl's exit code

# The request of the published API document, with what one replica needs of a small machine.
REQUEST: dict[str, Any] = {
    "model_name": "company-legal-analyzer-v2",
    "model_type": "text-classification",
    "deployment_config": {
        "container_image": IMAGE,
        "resource_requirements": {"cpu": "250m", "memory": "512Mi", "gpu": "0"},
        "scaling": {"min_replicas": 1, "max_replicas": 10, "target_utilization": 0.7},
    },
    "model_metadata": {
        "description": "Legal document analysis model",
        "version": "2.1.0",
        "capabilities": ["classification", "entity-extraction"],
        "domains": ["legal", "compliance"],
    },
}
QUESTION = {
    "inputs": {"text": "This is a legal document for review", "document_type": "contract"},
    "parameters": {"confidence_threshold": 0.8, "return_entities": True},
}


class QuickstartError(Exception):
    """A step did not work; the message says which and why."""


def main() -> int:
    """Run every step; return the exit code."""
    parser = argparse.ArgumentParser(prog="scripts/quickstart", description=__doc__)
    parser.add_argument("--once", action="store_true", help="remove everything at the end")
    parser.add_argument("--runtime", choices=["docker", "process"], help="default: what is there")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    started = time.monotonic()
    try:
        with contextlib.ExitStack() as made:
            runtime = prepare(chosen.runtime, made)
            folder = Path(
                made.enter_context(tempfile.TemporaryDirectory(prefix="prsmd-quickstart-"))
            )
            appliance = Appliance(folder, runtime, free_port())
            with appliance.running():
                show(appliance)
                print(f"\nAll of it worked in {time.monotonic() - started:.0f} s.")
                if not chosen.once:
                    stay(appliance)
    except QuickstartError as error:
        print(f"\nquickstart: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nStopped; what it made is removed.")
        return 0 if not chosen.once else 130
    print("Everything it made is removed.")
    return 0


def show(appliance: "Appliance") -> None:
    """Deploy, ask on both listeners, scale."""
    node = appliance.ctl("What this machine has", "node")
    if node["gpu_count"] >= 2:  # one for each replica
        REQUEST["deployment_config"]["resource_requirements"]["gpu"] = "1"
    request = appliance.write("request.json", REQUEST)
    question = appliance.write("question.json", QUESTION)
    print("\n# request.json, as in the published document\n" + json.dumps(REQUEST, indent=2))
    appliance.ctl("Deploy it, and wait until it runs", "deploy", "--file", request)
    appliance.ctl("Ask it over the Unix socket", "infer", MODEL, "--file", question)
    appliance.make_key()
    appliance.ctl("Ask it over TCP, with the key", "infer", MODEL, "--file", question, tcp=True)
    appliance.ctl("Scale it to two", "scale", MODEL, "2")
    appliance.ctl("See both replicas", "status", MODEL, "--wait")


def stay(appliance: "Appliance") -> None:
    """Say what to try next; return when the user has enough."""
    ctl = f"{BIN}/prsmctl --socket {appliance.socket}"
    key = appliance.key_file
    print(f"""
prsmd stays up until Ctrl-C. To try next:
  {ctl} status {MODEL}
  {ctl} logs {MODEL}
  {ctl} events {MODEL}
  {ctl} infer {MODEL} --text 'Der Vertrag ist geschlossen.'
  curl -H "Authorization: Bearer $(cat {key})" {appliance.url}/v1/models
  curl -H "Authorization: Bearer $(cat {key})" {appliance.url}/metrics
The daemon's log: {appliance.log}""")
    signal.pause()


@dataclasses.dataclass(frozen=True, slots=True)
class Appliance:
    """One daemon with everything it owns in one folder."""

    folder: Path
    runtime: str
    port: int

    @property
    def socket(self) -> Path:
        """The local listener."""
        return self.folder / "prsmd.sock"

    @property
    def url(self) -> str:
        """The network listener."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def key_file(self) -> Path:
        """The key for the network listener."""
        return self.folder / "key"

    @property
    def log(self) -> Path:
        """What the daemon writes."""
        return self.folder / "prsmd.log"

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the daemon; at the end delete the model and stop the daemon, whatever happened."""
        configuration = self.folder / "prsmd.toml"
        configuration.write_text(self.configuration())
        with self.log.open("ab") as log:
            command = [str(BIN / "prsmd"), "--config", str(configuration)]
            daemon = subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)
        try:
            self.wait_for(daemon)
            yield
        except QuickstartError:
            print(f"\n# the end of {self.log}", file=sys.stderr)
            print("\n".join(self.log.read_text().splitlines()[-30:]), file=sys.stderr)
            raise
        finally:
            self.end(daemon)

    def configuration(self) -> str:
        """Return the daemon's configuration."""
        return f"""\
[daemon]
state_dir = "{self.folder}/state"
log_format = "text"
[unix]
path = "{self.socket}"
group = "{grp.getgrgid(os.getgid()).gr_name}"
[tcp]
port = {self.port}
[access]
organization = "company"
[runtime]
name = "{self.runtime}"
docker_url = "{docker_url()}"
network_prefix = "{NETWORKS}"
bundle_dirs = ["{ROOT}/examples"]
[engine]
tick_seconds = 1.0
probe_seconds = 1.0
"""

    def wait_for(self, daemon: "subprocess.Popen[bytes]") -> None:
        """Return when the daemon answers."""
        deadline = time.monotonic() + START_SECONDS
        while self.call("node").returncode:
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise QuickstartError("the daemon did not start")
            time.sleep(0.1)

    def ctl(self, title: str, *arguments: str, tcp: bool = False) -> Any:
        """Run prsmctl and show what it says; return its JSON."""
        shown = [Path(word).name if word.startswith("/") else word for word in arguments]
        where = f"--url {self.url} --api-key-file key" if tcp else "--socket prsmd.sock"
        print(f"\n── {title}\n$ prsmctl {where} -o json {shlex.join(shown)}", flush=True)
        done = self.call(*arguments, tcp=tcp)
        if done.returncode:
            raise QuickstartError(f"prsmctl {arguments[0]} failed: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        print(json.dumps(answer, indent=2), flush=True)
        return answer

    def call(self, *arguments: str, tcp: bool = False) -> "subprocess.CompletedProcess[str]":
        """Run prsmctl quietly."""
        where = ["--socket", str(self.socket)]
        if tcp:
            where = ["--url", self.url, "--api-key-file", str(self.key_file)]
        command = [str(BIN / "prsmctl"), *where, "-o", "json", *arguments]
        return subprocess.run(command, check=False, capture_output=True, text=True)

    def make_key(self) -> None:
        """Make the first key over the socket; it is shown once and not by us."""
        print(
            "\n── Make a key for the network\n$ prsmctl --socket prsmd.sock key create quickstart"
        )
        done = self.call("key", "create", "quickstart", "--role", "invoker")
        if done.returncode:
            raise QuickstartError(f"prsmctl key create failed: {done.stderr.strip()}")
        answer = json.loads(done.stdout)
        self.write("key", answer["key"])
        print(json.dumps({**answer, "key": answer["key"][:14] + "…"}, indent=2, ensure_ascii=False))

    def write(self, name: str, content: Any) -> str:
        """Write a file only we can read; return its path."""
        path = self.folder / name
        path.touch(mode=0o600)
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=2))
        return str(path)

    def end(self, daemon: "subprocess.Popen[bytes]") -> None:
        """Delete the model, wait until its replicas are gone, and stop the daemon."""
        if daemon.poll() is None:
            print("\n── Clean up\n$ prsmctl delete " + MODEL, flush=True)
            self.delete()
            daemon.terminate()
        try:
            daemon.wait(timeout=60)
        except subprocess.TimeoutExpired:
            daemon.kill()
            daemon.wait()

    def delete(self) -> None:
        """Delete the model and wait until nothing of it runs: the daemon's end stops no model."""
        deadline = time.monotonic() + END_SECONDS
        done = self.call("delete", MODEL, "--yes")
        while done.returncode == 0 and time.monotonic() < deadline:
            time.sleep(0.2)
            done = self.call("status", MODEL)
        if done.returncode != NOT_FOUND:
            print(f"quickstart: {MODEL} may still run: {done.stderr.strip()}", file=sys.stderr)


def prepare(wanted: str | None, made: contextlib.ExitStack) -> str:
    """Return the runtime to use, with the example ready for it."""
    obstacle = "" if wanted == "process" else docker_obstacle()
    if wanted == "docker" and obstacle:
        raise QuickstartError(f"no Docker engine: {obstacle}")
    if wanted != "process" and not obstacle:
        made.callback(remove_from_engine, images())
        built = subprocess.run([ROOT / "scripts/example-image", EXAMPLE, IMAGE], check=False)
        if built.returncode == 0:
            return "docker"
        if wanted == "docker":
            raise QuickstartError("the example's image cannot be built on this engine")
        obstacle = "the example's image cannot be built"
    if obstacle:
        print(f"No Docker engine ({obstacle}): using the embedded runtime, which isolates nothing.")
    subprocess.run([ROOT / "scripts/example-bundle", EXAMPLE], check=True)
    return "process"


def docker_url() -> str:
    """Return where the engine is looked for."""
    return os.environ.get("DOCKER_HOST", "unix:///var/run/docker.sock")


def docker_obstacle() -> str:
    """Return why Docker cannot be used, or nothing."""
    if not shutil.which("docker"):
        return "there is no docker command"
    try:
        docker("version", "--format", "{{.Server.Version}}")
    except (subprocess.SubprocessError, OSError):
        return f"nothing answers at {docker_url()}"
    return ""


def docker(*arguments: str) -> list[str]:
    """Run docker; return the lines it prints."""
    environment = {**os.environ, "DOCKER_HOST": docker_url()}
    done = subprocess.run(
        ["docker", *arguments],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
    )
    return done.stdout.split()


def images() -> set[str]:
    """Return the tagged images there are, and the build stages of the examples."""
    stages = docker("image", "ls", "--quiet", "--filter", "label=prsmd.example.stage=packages")
    return {*docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}"), *stages}


def remove_from_engine(before: set[str]) -> None:
    """Remove what the quickstart made on the engine, as far as the engine lets it."""
    with contextlib.suppress(subprocess.SubprocessError):
        remove_images(before)
        for network in docker("network", "ls", "--quiet", "--filter", f"name=^{NETWORKS}"):
            docker("network", "rm", network)


def remove_images(before: set[str]) -> None:
    """Remove the images that were not there before and can only be ours."""
    ours = ("prsmd/", IMAGE, "python:3.11-slim")
    for image in sorted(images() - before, reverse=True):
        if image.startswith(ours) or ":" not in image:
            with contextlib.suppress(subprocess.SubprocessError):
                docker("image", "rm", image)


def free_port() -> int:
    """Return a TCP port that nobody uses now."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


if __name__ == "__main__":
    sys.exit(main())
