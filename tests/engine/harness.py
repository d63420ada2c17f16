"""Whole appliances on a fake engine and a real store, ticked step by step without sleeping.

`World` is what outlives a daemon: the state folder, the engine, the devices, the time and one real
HTTP server that answers for every container. `Life` is one run of the daemon in that world.
"""

import asyncio
import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

from aiohttp import web

from prsmd.api.update_schemas import spec_of
from prsmd.assembly import Appliance, Drivers, connect
from prsmd.core.plan import ObservedContainer, Plan
from prsmd.core.reconcile import reconcile
from prsmd.devices.fake import InMemoryGpus, InMemoryHost
from prsmd.domain.access import ROLES, Principal
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.events import Event
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import Endpoint, Placement, Replica, ReplicaState
from prsmd.domain.rollout import RolloutOptions
from prsmd.domain.spec import Resources, Scaling, Security, Serving, Spec
from prsmd.engine.rows import load_desired
from prsmd.entrance import ensure_organizations
from prsmd.runtime.base import Labels, Launch
from prsmd.runtime.fake import FakeEngine, FakeRuntime
from prsmd.service.caller import Caller
from prsmd.service.updates import UpdateRequest
from prsmd.settings import DaemonSection, EngineSection, NodeSection, Settings
from prsmd.store import audit, deployments, events, meta, replicas
from prsmd.store.db import Database

T = TypeVar("T")
IMAGE = "models/legal:1"
MOST_TICKS = 60


def caller(role: str = "admin", organization: str = "default") -> Caller:
    """A request of a principal of this role."""
    principal = Principal(
        id=f"key:{role}@{organization}",
        organization=organization,
        role=role,
        permissions=ROLES[role],
    )
    return Caller(principal, "req-1")


def spec(*, image: str = IMAGE, gpu_millis: int = 0, **scaling: Any) -> Spec:
    """A small model's spec; keyword arguments go to its scaling."""
    return Spec(
        image=image,
        model_type="text-classification",
        resources=Resources(cpu_millis=500, memory_bytes=GIB // 4, gpu_millis=gpu_millis),
        scaling=Scaling(**{"min_replicas": 1, "max_replicas": 4, **scaling}),
        serving=Serving(startup_timeout_seconds=60.0, request_timeout_seconds=5.0),
    )


class ModelServer:
    """One real HTTP server that all containers share: healthy or not, as told."""

    def __init__(self) -> None:
        self.health = 200
        self.endpoint = Endpoint("127.0.0.1", 0)

    async def start(self) -> None:
        app = web.Application()
        app.router.add_get("/health", self._health)
        app.router.add_post("/infer", self._infer)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.endpoint = Endpoint("127.0.0.1", self._runner.addresses[0][1])

    async def close(self) -> None:
        await self._runner.cleanup()

    async def _health(self, _: web.Request) -> web.Response:
        return web.Response(status=self.health)

    async def _infer(self, request: web.Request) -> web.Response:
        body = await request.json()
        return web.json_response({"outputs": {"echo": body["inputs"]}})


class Fuse:
    """Cuts the power at the n-th time that something crosses into the store or the engine."""

    def __init__(self, holds: int | None = None) -> None:
        self.passed: list[str] = []
        self.blown = asyncio.Event()
        self._holds = holds

    def set(self, holds: int) -> None:
        """Count from here on."""
        self.passed.clear()
        self._holds = holds

    async def cross(self, where: str) -> None:
        """Go on, or never return once the fuse is blown."""
        if not self.blown.is_set():
            self.passed.append(where)
            if len(self.passed) == self._holds:
                self.blown.set()
        if self.blown.is_set():
            await asyncio.get_running_loop().create_future()

    async def around(self, what: str, work: Awaitable[T]) -> T:
        try:
            await self.cross(f"before {what}")
        except BaseException:
            if asyncio.iscoroutine(work):
                work.close()
            raise
        done = await work
        await self.cross(f"after {what}")
        return done


class FusedDatabase(Database):
    """A real store whose writes may be the last thing that happens."""

    fuse: Fuse

    async def write(
        self, transaction: Callable[..., Awaitable[T]], then: Callable[[T], None] | None = None
    ) -> T:
        return await self.fuse.around("write", super().write(transaction, then))


class FusedRuntime(FakeRuntime):
    """A fake runtime whose changes may be the last thing that happens."""

    fuse: Fuse

    async def launch(self, launch: Launch) -> Any:
        return await self.fuse.around("launch", super().launch(launch))

    async def stop(self, container_id: str, grace_seconds: float) -> None:
        await self.fuse.around("stop", super().stop(container_id, grace_seconds))


class World:
    """What outlives a daemon."""

    def __init__(self, folder: Path, *, images: tuple[str, ...] = (IMAGE,)) -> None:
        self.folder = folder
        self.ahead = 0.0
        self.engine = FakeEngine(images=images, clock=self.now)
        self.gpus = InMemoryGpus(clock=self.now)
        self.host = InMemoryHost(clock=self.now)
        self.server = ModelServer()

    def now(self) -> float:
        return time.time() + self.ahead

    async def start(self) -> None:
        await self.server.start()
        await self.gpus.start()
        self.engine.endpoint = lambda _: self.server.endpoint

    @contextlib.asynccontextmanager
    async def life(self, fuse: Fuse | None = None, **engine_settings: Any) -> AsyncIterator["Life"]:
        """Run a daemon. Leaving it is the daemon's death: nothing is told to anyone."""
        settings = Settings(
            daemon=DaemonSection(state_dir=self.folder),
            node=NodeSection(name="rack-7"),
            engine=EngineSection(**engine_settings),
        )
        fuse = fuse or Fuse()
        database = await FusedDatabase.open(self.folder)
        database.fuse = Fuse()
        await ensure_organizations(settings, database)
        async with database.read() as tx:
            instance = await meta.instance_id(tx)
        runtime = FusedRuntime(self.engine, instance)
        runtime.fuse = fuse
        drivers = Drivers(
            database=database,
            runtime=runtime,
            gpus=self.gpus,
            host=self.host,
            instance=instance,
            clock=self.now,
        )
        appliance = await connect(settings, drivers, "http://localhost", retry_seconds=0.0)
        database.fuse = fuse  # what is written at the start itself is no point of a scenario
        await appliance.gateway.start()
        prober = asyncio.create_task(appliance.parts.prober.run(), name="prober")
        lessor = asyncio.create_task(appliance.sharing.lessor.run(), name="lessor")
        try:
            yield Life(self, appliance, fuse)
        finally:
            prober.cancel()
            lessor.cancel()
            await asyncio.wait([prober, lessor])
            await appliance.parts.executor.close()
            await appliance.gateway.close()
            await database.close()

    async def put_foreign_container(self) -> str:
        """Let another daemon have a container on the same engine; return its replica id."""
        other = FakeRuntime(self.engine, "another-instance")
        image = await other.images.resolve(IMAGE)
        assert image is not None
        labels = Labels(
            instance="another-instance",
            organization="x",
            deployment="d",
            revision=1,
            slot=0,
            replica="foreign-r1-s0-x",
            spec_hash="h",
        )
        await other.launch(
            Launch(
                labels=labels,
                image_digest=image.digest,
                placement=Placement(node="rack-7", cpu_millis=1, memory_bytes=1),
                port=8080,
                environment={},
                security=Security(),
            )
        )
        return labels.replica


@dataclasses.dataclass(frozen=True)
class Life:
    """One run of the daemon; every step is taken by the test."""

    world: World
    appliance: Appliance
    fuse: Fuse

    @property
    def services(self) -> Any:
        return self.appliance.services

    @property
    def database(self) -> Database:
        return self.appliance.database

    async def tick(self) -> bool:
        return await self.appliance.reconciler.tick(self.appliance.parts)

    async def settle(self) -> None:
        """Tick until nothing is in progress, each time as soon as something calls for it."""
        woken = self.appliance.reconciler._woken
        async with asyncio.timeout(20):
            for _ in range(MOST_TICKS):
                woken.clear()
                if not await self.tick():
                    return
                await woken.wait()
        raise AssertionError(f"no fixed point: {await self.plan()}")

    async def until(self, condition: Callable[[], Awaitable[bool]]) -> None:
        """Tick, each time as soon as something calls for it, until `condition` holds."""
        woken = self.appliance.reconciler._woken
        async with asyncio.timeout(20):
            woken.clear()
            await self.tick()
            while not await condition():
                await asyncio.sleep(0)  # a pull that begins, say, has no event of its own
                if woken.is_set():
                    woken.clear()
                    await self.tick()

    async def plan(self) -> Plan:
        """What the daemon would do now, without doing it."""
        observed = await self.appliance.parts.observer.snapshot()
        async with self.database.read() as tx:
            desired = await load_desired(tx)
        policy = self.appliance.reconciler._policy
        return reconcile(desired, observed, self.world.now(), policy)

    async def deploy(self, name: str = "legal", given: Spec | None = None, **scaling: Any) -> str:
        """Deploy as an administrator; return the deployment's id."""
        deployed = await self.services.deployments.deploy(caller(), name, given or spec(**scaling))
        return str(deployed.deployment.id)

    async def scale(self, count: int, name: str = "legal") -> None:
        await self.services.deployments.scale(caller(), name, count, ScalingStrategy.IMMEDIATE)

    async def update(self, environment: dict[str, str], name: str = "legal", **how: Any) -> None:
        """Ask for a revision with another environment; it counts as soon as it is ready."""
        request = UpdateRequest(
            patch={"deployment_config": {"environment": environment}},
            read=spec_of,
            options=RolloutOptions(**{"min_ready_seconds": 0.0, **how}),
        )
        await self.services.revisions.update(caller(), name, request)

    async def delete(self, name: str = "legal") -> None:
        await self.services.deployments.delete(caller(), name)

    async def replicas(self, *states: ReplicaState) -> list[Replica]:
        """All replicas' rows, or those in these states."""
        async with self.database.read() as tx:
            rows = await replicas.list_current(tx, 100)
        return [row for row in rows if not states or row.state in states]

    async def active(self) -> list[Replica]:
        return [row for row in await self.replicas() if row.active]

    async def events(self, deployment: str) -> list[Event]:
        async with self.database.read() as tx:
            return await events.latest(tx, deployment, 1000)

    async def reasons(self, deployment: str) -> list[str]:
        return [event.reason for event in await self.events(deployment)]

    async def audit(self) -> list[tuple[str, str]]:
        async with self.database.read() as tx:
            changes, _ = await audit.page(tx, None, 100, 0)
            denials, _ = await audit.page(tx, None, 100, 0, "denials")
        records = sorted([*changes, *denials], key=lambda each: each.at, reverse=True)
        return [
            (record.action, record.outcome)
            for record in reversed(records)
            if record.action != "organizations.create"
        ]

    async def deployments(self) -> list[Any]:
        async with self.database.read() as tx:
            return await deployments.list_all(tx)

    async def containers(self) -> dict[str, ObservedContainer]:
        observed = await self.appliance.parts.observer.snapshot()
        return {container.replica_id: container for container in observed.containers or ()}


async def assert_consistent(life: Life) -> None:
    """Invariant 3 and 8: rows and containers agree, one replica to a slot, nothing left to do.

    A replica that was not probed yet since the start may still turn out to be good.
    """

    async def at_rest() -> bool:
        return (await life.plan()).actions == ()

    await life.until(at_rest)
    active = await life.active()
    assert set(await life.containers()) == {row.id for row in active}
    slots = [(row.deployment_id, row.revision, row.slot) for row in active]
    assert len(slots) == len(set(slots)), "two replicas in one slot"


async def finished(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks and wait for their end."""
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
