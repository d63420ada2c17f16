"""Makes every component from its own section of the settings and connects them. Starts nothing."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

from aiohttp import web

from prsmd import sections
from prsmd.api.app import build
from prsmd.api.identity import Door
from prsmd.api.operations import Services
from prsmd.auditing import Auditing, Books, auditing_of
from prsmd.devices.base import Gpus, Host
from prsmd.devices.host import PsutilHost
from prsmd.devices.nvml import NvmlGpus, NvmlSettings
from prsmd.engine.autoscaler import Autoscaler
from prsmd.engine.capture import LogCapture
from prsmd.engine.executor import Executor, Workshop
from prsmd.engine.launcher import Launcher
from prsmd.engine.loop_lag import LoopLag
from prsmd.engine.observer import Feeds, Observer
from prsmd.engine.prober import Prober
from prsmd.engine.provisions import Provisions
from prsmd.engine.reconciler import Parts, Reconciler
from prsmd.engine.recorder import Recorder
from prsmd.engine.state_watch import StateWatch
from prsmd.engine.stock import Stock
from prsmd.engine.usage import UsageMeter
from prsmd.engines import choose_runtime
from prsmd.entrance import Entrance, door_of, ensure_organizations, entrance_of
from prsmd.gateway.infer import Gateway, GatewaySettings
from prsmd.runtime.base import Runtime
from prsmd.service.answers import Answers
from prsmd.service.audit import Audit
from prsmd.service.authorization import Authorization
from prsmd.service.deployments import Deployments
from prsmd.service.events import Events
from prsmd.service.forecast import Forecaster
from prsmd.service.health import Health, Recorded
from prsmd.service.images import Images
from prsmd.service.inference import Inferences
from prsmd.service.keys import Keys
from prsmd.service.logs import Logs
from prsmd.service.members import Members
from prsmd.service.node import Nodes
from prsmd.service.organizations import Organizations
from prsmd.service.registrar import Registrar
from prsmd.service.registries import Registries
from prsmd.service.rehearsals import Rehearsals
from prsmd.service.resource_quotas import ResourceQuotas, ensure_defaults
from prsmd.service.revisions import Revisions
from prsmd.service.roles import Roles
from prsmd.service.rollouts import Rollouts
from prsmd.service.secrets import Secrets
from prsmd.service.status import Sources, Status
from prsmd.service.versions import Versions
from prsmd.settings import Settings
from prsmd.sharing import Sharing, sharing_of
from prsmd.store import meta, replicas
from prsmd.store.beside import Beside, Files
from prsmd.store.db import Database, Tx
from prsmd.store.logs import LogArchive
from prsmd.store.sealing import Sealer
from prsmd.vault import Vault, vault_of

_RUNTIME_KEY = "runtime"


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Appliance:
    """All components, connected."""

    database: Database
    runtime: Runtime
    gpus: Gpus
    gateway: Gateway
    reconciler: Reconciler
    parts: Parts
    autoscaler: Autoscaler
    services: Services
    application: web.Application
    auditing: Auditing
    sharing: Sharing
    door: Door
    entrance: Entrance
    provisions: Provisions
    lag: LoopLag
    watch: StateWatch


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Drivers:
    """What an appliance is built on.

    `instance` labels its containers; `clock` gives seconds since the epoch. `usage` is the second
    file of the state (None: inferences are not recorded).
    """

    database: Database
    runtime: Runtime
    gpus: Gpus
    host: Host
    instance: str
    clock: Callable[[], float] = time.time
    usage: Database | None = None
    lag: LoopLag = dataclasses.field(default_factory=LoopLag)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class _Locks:
    """What guards: who is let in, what keeps secrets and gives leave, what records it, where."""

    entrance: Entrance
    vault: Vault
    audit: Audit
    sharing: Sharing
    files: Files


async def assemble(
    settings: Settings, database: Database, public_url: str, usage: Database | None = None
) -> Appliance:
    """Return the appliance on this machine. Its runtime has answered; nothing runs yet."""
    await ensure_organizations(settings, database)
    await ensure_defaults(database, settings.quota.hard, time.time())
    async with database.read() as tx:
        instance = await meta.instance_id(tx)
        in_use, last = await _runtime_in_use(tx), await meta.get(tx, _RUNTIME_KEY)
    first = last is None and not database.ordered_anew
    runtime = await choose_runtime(settings, instance, in_use, first=first)
    if runtime.name != last:
        await database.write(lambda tx: meta.set(tx, _RUNTIME_KEY, runtime.name))
    lag = LoopLag()
    gpus = NvmlGpus(
        NvmlSettings(
            sample_seconds=settings.gpus.sample_seconds,
            deadline_seconds=settings.gpus.deadline_seconds,
        ),
        judge=lag,
    )
    drivers = Drivers(
        database=database,
        usage=usage,
        runtime=runtime,
        gpus=gpus,
        host=PsutilHost(),
        instance=instance,
        lag=lag,
    )
    return await connect(settings, drivers, public_url)


async def connect(
    settings: Settings, drivers: Drivers, public_url: str, *, retry_seconds: float = 1.0
) -> Appliance:
    """Return an appliance on these drivers. Nothing runs yet.

    `retry_seconds` is the first pause after a launch or stop that the engine did not carry out.
    """
    database, engine = drivers.database, settings.engine
    limits = GatewaySettings(max_answer_bytes=sections.answer_bytes(settings.limits))
    books = Books(database, drivers.usage, drivers.instance, drivers.clock)
    auditing = auditing_of(settings, books)
    sharing = await sharing_of(database, drivers.usage, auditing.notes, drivers.clock)
    entrance = await entrance_of(settings, database, sharing.lessor.meters, auditing.denials)
    gateway = Gateway(limits, drivers.clock, sharing.notes, drivers.lag)
    reconciler = Reconciler(
        sections.policy(engine),
        engine.tick_seconds,
        drivers.clock,
    )
    vault = await vault_of(settings, database)
    stock = _stock(settings, drivers, vault.sealer, retry_seconds)
    await stock.note_sizes()
    launcher = Launcher(drivers.runtime, stock, vault.provisions, database, drivers.instance)
    parts = _parts(settings, drivers, gateway, reconciler, launcher, sharing)
    autoscaler = _autoscaler(settings, parts, reconciler)
    files = _files(settings, drivers, vault)
    locks = _Locks(
        entrance=entrance, vault=vault, audit=auditing.service, sharing=sharing, files=files
    )
    services = _services(parts, reconciler, autoscaler, drivers.runtime, locks, public_url)
    door = door_of(settings, entrance, parts.observer)
    drivers.lag.on_clock_set.append(entrance.underway.look_again)
    return Appliance(
        database=database,
        runtime=drivers.runtime,
        gpus=drivers.gpus,
        gateway=gateway,
        reconciler=reconciler,
        parts=parts,
        autoscaler=autoscaler,
        services=services,
        application=build(services, door),
        door=door,
        entrance=entrance,
        provisions=vault.provisions,
        auditing=auditing,
        sharing=sharing,
        lag=drivers.lag,
        watch=StateWatch(files, settings.access.organization),
    )


def _files(settings: Settings, drivers: Drivers, vault: Vault) -> Files:
    own = vault.envelope.path.parent == settings.daemon.state_dir
    opens, copy = vault.sealer.has if own else None, settings.audit.checkpoint_copy
    beside = Beside(settings.daemon.state_dir, opens, copy)
    beside.look()
    return Files(drivers.database, drivers.usage, beside)


async def _runtime_in_use(tx: Tx) -> str | None:
    """Return the runtime that replicas were launched on and may still run on; None without any."""
    active = any(replica.active for replica in await replicas.list_current(tx, 0))
    return await meta.get(tx, _RUNTIME_KEY) if active else None


def _parts(
    settings: Settings,
    drivers: Drivers,
    gateway: Gateway,
    reconciler: Reconciler,
    launcher: Launcher,
    sharing: Sharing,
) -> Parts:
    database = drivers.database
    recorder = Recorder(database)
    archive = LogArchive(settings.daemon.state_dir / "logs")
    executor = Executor(
        Workshop(
            runtime=drivers.runtime,
            gpus=drivers.gpus,
            database=database,
            recorder=recorder,
            launcher=launcher,
            capture=LogCapture(drivers.runtime, archive),
            stop_grace_seconds=settings.runtime.stop_grace_seconds,
            retry_seconds=launcher.stock.settings.retry_seconds,
            clock=drivers.clock,
            on_removed=sharing.lendings.drop_model,
            on_stop=gateway.cut_off,
        ),
        reconciler.wake,
    )
    prober = Prober(
        sections.probing(settings.engine), reconciler.wake, gateway.in_flight, drivers.lag
    )
    feeds = Feeds(
        probes=prober.probes,
        in_flight=gateway.in_flight,
        working=executor.working,
        trials=gateway.trial_readings,
        demand=gateway.demand,
    )
    return Parts(
        database=database,
        observer=_observer(settings, drivers, feeds),
        executor=executor,
        prober=prober,
        gateway=gateway,
        recorder=recorder,
        usage=UsageMeter(drivers.host),
        launcher=launcher,
        archive=archive,
    )


def _stock(settings: Settings, drivers: Drivers, sealer: Sealer, retry_seconds: float) -> Stock:
    limits = sections.stock(settings, retry_seconds)
    return Stock(drivers.runtime, drivers.database, sealer, limits, drivers.clock, drivers.lag)


def _observer(settings: Settings, drivers: Drivers, feeds: Feeds) -> Observer:
    return Observer(
        runtime=drivers.runtime,
        gpus=drivers.gpus,
        host=drivers.host,
        limits=sections.node(settings.node),
        feeds=feeds,
        lag=drivers.lag,
    )


def _autoscaler(settings: Settings, parts: Parts, reconciler: Reconciler) -> Autoscaler:
    return Autoscaler(
        database=parts.database,
        recorder=parts.recorder,
        observer=parts.observer,
        gateway=parts.gateway,
        settings=sections.autoscaling(settings.autoscale),
        wake=reconciler.wake,
    )


def _services(
    parts: Parts,
    reconciler: Reconciler,
    autoscaler: Autoscaler,
    runtime: Runtime,
    locks: _Locks,
    public_url: str,
) -> Services:
    database, recorder, wake = parts.database, parts.recorder, reconciler.wake
    stock, forecaster = parts.launcher.stock, Forecaster(parts.observer)
    status = _status(parts, reconciler, autoscaler)
    changes: dict[str, Any] = {
        "database": database,
        "recorder": recorder,
        "forecaster": forecaster,
        "provisions": locks.vault.provisions,
        "wake": wake,
    }
    deployments, revisions = Deployments(**changes), Revisions(**changes)
    return Services(
        answers=Answers(database, locks.entrance.ring.digest),
        authorization=Authorization(database),
        memory=locks.entrance.memory,
        turns=parts.gateway.turns,
        deployments=deployments,
        revisions=revisions,
        rehearsals=_rehearsals(parts, reconciler, deployments, revisions),
        rollouts=Rollouts(database, recorder, wake),
        versions=Versions(database),
        status=status,
        events=Events(database, recorder),
        logs=Logs(database, runtime, parts.archive),
        inferences=Inferences(
            parts.gateway, database, locks.sharing.lendings, locks.entrance.throttle
        ),
        nodes=Nodes(database, parts.observer, runtime),
        **_who_may(database, locks, recorder),
        images=Images(database, stock, recorder),
        registries=Registries(database, locks.vault.sealer),
        secrets=Secrets(database, locks.vault.sealer, locks.vault.envelope),
        audit=locks.audit,
        quotas=ResourceQuotas(database, locks.entrance.directory, locks.entrance.limits),
        shares=locks.sharing.shares(recorder),
        usage=locks.sharing.usage(),
        health=_health(parts, reconciler, status, locks),
        public_url=public_url,
        uploads=stock.settings.folder,
    )


def _health(parts: Parts, reconciler: Reconciler, status: Status, locks: _Locks) -> Health:
    return Health(
        files=locks.files,
        observer=parts.observer,
        reconciler=reconciler,
        gateway=parts.gateway,
        status=status,
        recorded=Recorded(locks.audit, locks.entrance.failures),
    )


def _who_may(database: Database, locks: _Locks, recorder: Recorder) -> dict[str, Any]:
    """Return the use cases on who may do what."""
    registrar = Registrar(database, locks.entrance.directory)
    return {
        "keys": Keys(registrar, locks.entrance.ring),
        "organizations": Organizations(registrar, locks.sharing.lendings, recorder),
        "roles": Roles(registrar, locks.entrance.access.ruled),
        "members": Members(registrar),
    }


def _status(parts: Parts, reconciler: Reconciler, autoscaler: Autoscaler) -> Status:
    return Status(
        Sources(
            database=parts.database,
            observer=parts.observer,
            reconciler=reconciler,
            gateway=parts.gateway,
            launcher=parts.launcher,
            usage=parts.usage,
            recorder=parts.recorder,
            verdict=autoscaler.verdict,
        )
    )


def _rehearsals(
    parts: Parts, reconciler: Reconciler, deployments: Deployments, revisions: Revisions
) -> Rehearsals:
    return Rehearsals(
        database=parts.database,
        observer=parts.observer,
        reconciler=reconciler,
        stock=parts.launcher.stock,
        deployments=deployments,
        revisions=revisions,
    )
