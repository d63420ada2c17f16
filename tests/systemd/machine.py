"""A Debian with a real systemd and prsmd installed, booted in a container of its own.

The root is made once by debootstrap and kept in PRSMD_TEST_CACHE (~/.cache/prsmd-tests). It has no
network but its own loopback, and runs models by the embedded runtime.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("PRSMD_TEST_CACHE", Path.home() / ".cache" / "prsmd-tests"))
SUITE = "bookworm"
PYTHON = "3.11"  # what the suite has
PACKAGES = "systemd-sysv,dbus,python3"
_PROGRAMS = ("debootstrap", "systemd-nspawn", "nsenter", "tar")
_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_BOOT_SECONDS = 90

LAUNCHER = """#!/usr/bin/python3
import sys
from {module} import main
sys.exit(main())
"""


def obstacle() -> str | None:
    """Return why no systemd can be booted here, or None."""
    missing = [program for program in _PROGRAMS if shutil.which(program, path=_PATH) is None]
    if missing:
        return f"programs are missing: {', '.join(missing)}"
    return None if os.geteuid() == 0 else "booting a systemd needs root"


class Machine:
    """One booted container. `run` is a command inside."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="prsmd-systemd-"))
        self.root = self.folder / "root"
        self._container: subprocess.Popen[bytes] | None = None
        self._leader = 0

    def install(self) -> None:
        """Make the root, with prsmd, its units and the example bundle as a package has them."""
        self.root.mkdir()
        _call("tar", "-C", self.root, "-xf", _system())
        library = self.root / "usr/lib/prsmd"
        shutil.copytree(_packages("prsmd", ROOT / "requirements/runtime.lock"), library)
        for package in ("prsmd", "prsm_sdk"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / package, library / package, ignore=ignored)
        self.write("usr/lib/python3/dist-packages/prsmd.pth", "/usr/lib/prsmd\n")
        self.write("usr/bin/prsmd", LAUNCHER.format(module="prsmd.__main__"), mode=0o755)
        self.write("usr/bin/prsmctl", LAUNCHER.format(module="prsmd.cli.main"), mode=0o755)
        example, bundle = ROOT / "examples/language-id", self.root / "usr/share/prsmd/bundles/demo"
        shutil.copytree(_packages("language-id", example / "requirements.txt"), bundle / "vendor")
        for name in ("server.py", "bundle.toml"):
            shutil.copy(example / name, bundle)
        self._install_units()

    def _install_units(self) -> None:
        for name, place in (
            ("prsmd.service", "systemd/system/prsmd.service"),
            ("prsmd.socket", "systemd/system/prsmd.socket"),
            ("prsmd.sysusers.conf", "sysusers.d/prsmd.conf"),
            ("prsmd.tmpfiles.conf", "tmpfiles.d/prsmd.conf"),
        ):
            self.write(f"usr/lib/{place}", (ROOT / "systemd" / name).read_text())
        _call("systemd-sysusers", f"--root={self.root}")
        configuration = (ROOT / "configs/prsmd.toml").read_text()
        self.write("etc/prsmd/prsmd.toml", configuration)
        self.write("etc/prsmd/conf.d/test.toml", '[runtime]\nname = "process"\n')
        # The shipped watchdog is 30 s; the test need not wait that long.
        self.write("etc/systemd/system/prsmd.service.d/test.conf", "[Service]\nWatchdogSec=5\n")
        _call("systemctl", f"--root={self.root}", "enable", "prsmd.socket", "prsmd.service")

    def write(self, place: str, text: str, mode: int = 0o644) -> None:
        """Write a file of the root."""
        path = self.root / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        path.chmod(mode)

    def boot(self) -> None:
        """Start it and return when its systemd has started everything."""
        command = ["systemd-nspawn", "--quiet", "-D", self.root, "--register=no", "--keep-unit"]
        with (self.folder / "console").open("wb") as console:
            self._container = subprocess.Popen(
                [*command, "--private-network", "--boot"],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=console,
                start_new_session=True,
            )
        deadline = time.monotonic() + _BOOT_SECONDS
        while self._state() not in {"running", "degraded"}:
            if self._container.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"systemd did not boot:\n{self.console}")
            time.sleep(0.2)

    @property
    def console(self) -> str:
        """The last of what the container's systemd printed."""
        return (self.folder / "console").read_text(errors="replace")[-4000:]

    def run(self, *command: str, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Run a command inside."""
        inside = ["nsenter", "--target", str(self._leader), "--all", "--", *command]
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"}
        done = subprocess.run(
            inside, env=environment, check=False, capture_output=True, text=True, timeout=110
        )
        if check and done.returncode:
            raise AssertionError(f"{command} exited {done.returncode}: {done.stdout}{done.stderr}")
        return done

    def close(self) -> None:
        """Power it off and remove it."""
        if self._container is not None and self._container.poll() is None:
            self._container.terminate()
            try:
                self._container.wait(20)
            except subprocess.TimeoutExpired:
                self._container.kill()
                self._container.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _state(self) -> str:
        if self._container is None:
            raise RuntimeError("it was never started")
        children = Path(f"/proc/{self._container.pid}/task/{self._container.pid}/children")
        first = children.read_text().split()[:1] if children.exists() else []
        if not first:
            return "starting"
        self._leader = int(first[0])
        return self.run("systemctl", "is-system-running", check=False).stdout.strip()


def _system() -> Path:
    """Return the archive of a Debian with systemd and Python."""
    archive = CACHE / f"systemd-{SUITE}-{hashlib.sha256(PACKAGES.encode()).hexdigest()[:8]}.tar"
    if archive.exists():
        return archive
    CACHE.mkdir(parents=True, exist_ok=True)
    targets = ("--format", "$(REPO_URI)", "Created-By: Packages", f"Codename: {SUITE}")
    mirror = _call("apt-get", "indextargets", *targets, "Component: main").split()[:1]
    with tempfile.TemporaryDirectory(dir=CACHE) as work:
        tree = Path(work, "tree")
        _call(
            *("debootstrap", "--variant=minbase", f"--include={PACKAGES}", SUITE, tree, *mirror),
        )
        shutil.rmtree(tree / "var/cache/apt", ignore_errors=True)
        _call("tar", "--numeric-owner", "-C", tree, "-cf", Path(work, "tar"), ".")
        Path(work, "tar").rename(archive)
    return archive


def _packages(name: str, lock: Path) -> Path:
    """Return a folder with the locked packages for the machine's Python."""
    digest = hashlib.sha256(lock.read_bytes()).hexdigest()[:16]
    folder = CACHE / f"packages-{name}-{digest}"
    if not folder.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        platforms = [f"--platform=manylinux_2_{n}_{os.uname().machine}" for n in (34, 28, 17)]
        with tempfile.TemporaryDirectory(dir=CACHE) as work:
            _call(
                *(sys.executable, "-m", "pip", "install", "-qq", "--no-compile"),
                *("--target", Path(work, "tree"), "--only-binary=:all:", "--require-hashes"),
                *(f"--python-version={PYTHON}", *platforms, "-r", lock),
            )
            Path(work, "tree").rename(folder)
    return folder


def _call(*command: str | Path) -> str:
    environment = {**os.environ, "PATH": _PATH}
    done = subprocess.run(
        [str(word) for word in command],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed: {(done.stdout + done.stderr)[-2000:]}")
    return done.stdout
