"""The embedded runtime: models as processes of this machine, for trying prsmd out.

It isolates nothing: a model has the daemon's user, files and network, and no limit on its memory.
A bundle folder stands for an image. What runs belongs to a small supervisor beside each model and
outlives the daemon, so a new one finds everything again. Decides nothing.
"""

import asyncio
import contextlib
import dataclasses
import os
import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from prsmd.core.exhaustion import is_exhausted
from prsmd.domain.errors import (
    ConflictError,
    EngineError,
    EngineNotFoundError,
    EngineUnreachableError,
    ImageUnavailableError,
    PrsmdError,
)
from prsmd.domain.image import Login
from prsmd.domain.quantity import MIB

from .archive import Archive
from .base import Container, ContainerState, Image, Launch, LogLine, LogQuery, PullProgress
from .bundles import Bundle, Bundles
from .environment import container_environment
from .inotify import Watch
from .process_logs import LogReader
from .process_runs import Command, Runs

T = TypeVar("T")
_KILL_SECONDS = 5.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class ProcessSettings:
    """Where bundles and the state of runs are. Times are seconds."""

    instance: str
    state_dir: Path
    bundle_dirs: tuple[Path, ...]
    log_max_bytes: int = 10 * MIB
    timeout_seconds: float = 10.0


class ProcessRuntime:
    """Model processes of one instance on this machine."""

    name = "process"
    isolates = False

    def __init__(self, settings: ProcessSettings) -> None:
        self._settings = settings
        self._runs = Runs(settings.state_dir.absolute(), settings.instance)
        self._bundles = Bundles(settings.bundle_dirs)
        self._disk = _Disk(settings.timeout_seconds)
        self.images = BundleImages(self._bundles, settings.timeout_seconds)

    async def list(self) -> list[Container]:
        """Return this instance's runs."""
        return await self._disk.call("list processes", self._runs.all)

    async def launch(self, launch: Launch) -> Container:
        """Start the replica's process, or return the one that was started."""
        what = f"launch {launch.labels.replica}"
        run = await self._disk.call(what, lambda: self._runs.look(launch.labels.replica))
        if run is not None and run.state is not ContainerState.CREATED:
            return _same(run, launch)
        bundle = await self.images.with_digest(launch.image_digest)
        return await self._disk.call(what, lambda: self._launch(launch, bundle))

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        """End the process and everything it started, and forget it."""
        what = f"stop {container_id}"
        if await self._disk.call(what, lambda: self._runs.ours(container_id)) is None:
            return
        supervisor = await self._disk.call(what, lambda: self._runs.open_supervisor(container_id))
        if supervisor is not None:
            try:
                await _end(supervisor, what, grace_seconds)
            finally:
                os.close(supervisor)
        await self._disk.call(what, lambda: self._runs.remove(container_id))

    async def logs(self, container_id: str, query: LogQuery) -> AsyncGenerator[LogLine, None]:
        """Yield the process's lines; see `Runtime.logs`."""
        what = f"logs of {container_id}"
        if await self._disk.call(what, lambda: self._runs.ours(container_id)) is None:
            raise EngineNotFoundError(f"{what}: there is no such container")
        folder = self._runs.path(container_id)
        reader = LogReader(folder)
        watch = _watched(folder) if query.follow else contextlib.nullcontext()
        with contextlib.closing(reader), watch as changes:
            ended = not await self._alive(what, container_id)
            for line in await self._disk.call(what, lambda: reader.first(query)):
                yield line
            while changes is not None and not ended:
                await changes.changed()
                ended = not await self._alive(what, container_id)
                for line in await self._disk.call(what, lambda: (*reader.more(),)):
                    yield line

    async def events(self) -> AsyncGenerator[None, None]:
        """Yield once when watching, then whenever a run came, ended or went."""
        await self._disk.call("events", self._runs.prepare)
        with _watched(self._settings.state_dir) as changes:
            while True:
                yield None
                await changes.changed()

    async def close(self) -> None:
        """Release the thread. Processes go on running."""
        self._disk.close()
        self.images.close()

    async def _alive(self, what: str, container_id: str) -> bool:
        run = await self._disk.call(what, lambda: self._runs.look(container_id))
        return run is not None and run.state is ContainerState.RUNNING

    def _launch(self, launch: Launch, bundle: Bundle) -> Container:
        self._runs.prepare()
        run_id = launch.labels.replica
        with self._runs.claim(launch.labels) as lock:
            known = self._runs.look(run_id)
            if known is not None:
                _same(known, launch)
            if lock is not None:
                port = self._runs.free_port()
                self._runs.record(launch.labels, port)
                self._runs.keep_secrets(run_id, launch.secrets)
                command = self._command(launch, bundle, port)
                self._runs.start(run_id, lock, command, self._settings.timeout_seconds)
        return _same(self._runs.look(run_id), launch)

    def _command(self, launch: Launch, bundle: Bundle, port: int) -> Command:
        path = self._runs.path(launch.labels.replica)
        scratch, secrets = str(path / "scratch"), str(path / "secrets")
        environment = {
            "PATH": os.environ.get("PATH", os.defpath),
            "LANG": "C.UTF-8",
            "HOME": scratch,
            "TMPDIR": scratch,
            "PYTHONDONTWRITEBYTECODE": "1",
            **bundle.environment,
            **container_environment(launch, host="127.0.0.1", port=port, secrets=secrets),
            # Without a container only CUDA's own variable hides devices.
            "CUDA_VISIBLE_DEVICES": ",".join(launch.placement.gpu_uuids),
        }
        return Command(
            arguments=(*(launch.command or bundle.command), *launch.args),
            folder=bundle.folder,
            environment=environment,
            log_bytes=self._settings.log_max_bytes,
        )


class BundleImages:
    """Bundles as images. Reading them has a thread of its own: they can be large."""

    loads = False

    def __init__(self, bundles: Bundles, timeout_seconds: float) -> None:
        self._bundles = bundles
        self._disk = _Disk(60 * timeout_seconds)

    async def resolve(self, reference: str) -> Image | None:
        """Return the bundle that answers to `reference`."""
        bundle = await self._disk.call("look for a bundle", lambda: self._bundles.find(reference))
        return bundle.image(reference) if bundle else None

    async def pull(
        self,
        reference: str,
        on_progress: Callable[[PullProgress], None],
        login: Login | None = None,  # noqa: ARG002 - there is no registry
    ) -> Image:
        """Return the bundle; it is here or nowhere."""
        image = await self.resolve(reference)
        if image is None:
            raise await self._disk.call(
                "look for a bundle", lambda: self._bundles.missing(reference)
            )
        size = image.size_bytes
        on_progress(PullProgress(status="here already", done_bytes=size, total_bytes=size))
        return image

    async def load(
        self,
        archive: Archive,  # noqa: ARG002 - refused
        on_progress: Callable[[PullProgress], None],  # noqa: ARG002 - refused
    ) -> list[Image]:
        """Refuse: bundles are folders."""
        raise ConflictError("The embedded runtime loads no image archives, only bundles.")

    async def remove(self, image_id: str) -> None:
        """Refuse to remove a bundle, which someone put here; one that is gone is gone."""
        bundles = await self._disk.call("list bundles", lambda: (*self._bundles.all(),))
        if any(bundle.digest == image_id for bundle in bundles):
            raise EngineError(f"bundle {image_id[:19]} is not prsmd's to remove: delete its folder")

    async def remote_digest(
        self,
        reference: str,  # noqa: ARG002 - there is no registry
        login: Login | None = None,  # noqa: ARG002 - as above
    ) -> str | None:
        """Return None: there is no registry."""
        return None

    async def free_bytes(self) -> int | None:
        """Return None: nothing is ever brought here."""
        return None

    async def list(self) -> list[Image]:
        """Return every bundle under each of its references."""
        bundles = await self._disk.call("list bundles", lambda: (*self._bundles.all(),))
        return [bundle.image(name) for bundle in bundles for name in bundle.references]

    async def with_digest(self, digest: str) -> Bundle:
        """Return the bundle with this content. ImageUnavailableError if it was changed."""
        return await self._disk.call("look for a bundle", lambda: self._bundles.by_digest(digest))

    def close(self) -> None:
        """Release the thread."""
        self._disk.close()


class _Disk:
    """One thread for blocking work, which so happens one at a time, bounded in time."""

    def __init__(self, limit_seconds: float) -> None:
        self._limit_seconds = limit_seconds
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="process-runtime")

    async def call(self, what: str, work: Callable[[], T]) -> T:
        loop = asyncio.get_running_loop()
        with _translated(what):
            async with asyncio.timeout(2 * self._limit_seconds):
                return await loop.run_in_executor(self._thread, work)

    def close(self) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)


def _same(run: Container | None, launch: Launch) -> Container:
    if run is None or run.labels != launch.labels:
        name = launch.labels.replica
        raise EngineError(f"a container named {name} exists and is not this replica's")
    return run


async def _end(supervisor: int, what: str, grace_seconds: float) -> None:
    for number, patience in ((signal.SIGTERM, grace_seconds), (signal.SIGUSR1, _KILL_SECONDS)):
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(supervisor, number)
        if await _ended(supervisor, patience):
            return
    raise EngineError(f"{what}: it is still there {_KILL_SECONDS:g} s after being killed")


async def _ended(process: int, seconds: float) -> bool:
    """Wait for the process of a pidfd to end, at most `seconds`."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(process, ended.set)
    try:
        async with asyncio.timeout(seconds):
            await ended.wait()
    except TimeoutError:
        return False
    finally:
        loop.remove_reader(process)
    return True


@contextlib.contextmanager
def _watched(folder: Path) -> Iterator[Watch]:
    with _translated(f"watch {folder.name}"):
        watch = Watch(folder)
    with contextlib.closing(watch):
        yield watch


@contextlib.contextmanager
def _translated(what: str) -> Iterator[None]:
    try:
        yield
    except PrsmdError:
        raise
    except TimeoutError as error:
        raise EngineUnreachableError(f"{what}: the disk does not answer") from error
    except FileNotFoundError as error:
        raise ImageUnavailableError(f"{what}: {error}") from error
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        # Without a descriptor nothing is learned of a run, as of an engine that is gone.
        kind = EngineUnreachableError if is_exhausted(error) else EngineError
        raise kind(f"{what}: {error}") from error
