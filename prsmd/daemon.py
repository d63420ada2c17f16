"""The daemon: startup, run, shutdown. Its end never stops a model.

Exit codes: 0 after SIGTERM (or SIGINT, SIGQUIT), 1 for a failure, 78 for settings or a state
that cannot be used, which starting again does not mend.
"""

import argparse
import asyncio
import contextlib
import gc
import logging
import os
import resource
import socket
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import uvloop

from prsmd import __version__, http_listening, journal, listeners, strictness, systemd
from prsmd.api.http_server import Runner
from prsmd.assembly import Appliance, assemble
from prsmd.config import ConfigurationError, files_of, load
from prsmd.domain.errors import PrsmdError
from prsmd.engine import janitor
from prsmd.engine.background_loop import restarted
from prsmd.listeners import Certificate
from prsmd.reload import Reloader, ended
from prsmd.reloadable import parts_of
from prsmd.settings import Settings
from prsmd.signals import Received
from prsmd.store import orders
from prsmd.store.db import USAGE, Database, ReadLimits
from prsmd.store.errors import StoreDamagedError, StoreNotItsOwnError, StoreSchemaError
from prsmd.store.recovering import RecoveringDatabase

log = logging.getLogger("prsmd")
EXIT_FAILURE = 1
EXIT_CONFIGURATION = 78
_FIRST_SAMPLE_SECONDS = 1.0
_LAST_USED_SECONDS = 60.0
# How long a thread that computes keeps the loop waiting before each of its callbacks.
_SWITCH_SECONDS = 0.0001
# Looking through everything for cycles holds the loop up for 30 ms: that is done a tenth as often
# as by default. What is young is looked through as often, and no cycle holds what is large.
_GARBAGE_THRESHOLDS = (700, 10, 100)


def main(received: Received, arguments: Sequence[str] | None = None) -> None:
    """Run the daemon from the command line; `received` hears signals already."""
    options = _options(arguments)
    try:
        settings = load(options.config, os.environ, options.set)
        warnings = _strictly(settings, options)
    except ConfigurationError as error:
        sys.exit(_refuse(error))
    if options.new_instance or options.accept_state:
        sys.exit(_order(settings, begin=options.new_instance))
    if options.check:
        sys.stderr.writelines(f"prsmd: warning: {words}\n" for words in warnings)
        sys.stdout.write("configuration is valid\n")
        return
    journal.configure(settings.daemon.log_level, settings.daemon.log_format)
    for words in warnings:
        log.warning("%s", words)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core has keys and secrets in clear
    sys.setswitchinterval(_SWITCH_SECONDS)
    try:
        uvloop.run(run(settings, received, partial(_read, options)))
    except ConfigurationError as error:
        sys.exit(_refuse(error))
    except (StoreDamagedError, StoreNotItsOwnError, StoreSchemaError) as error:
        log.critical("%s", error.message)
        sys.exit(EXIT_CONFIGURATION)
    except PrsmdError as error:
        log.critical("%s", error.message)
        sys.exit(EXIT_FAILURE)


async def run(settings: Settings, received: Received, read: Callable[[], Settings]) -> None:
    """Start everything, serve until a signal ends it, then stop in order."""
    received.listen()
    async with contextlib.AsyncExitStack() as stack:
        async with received.until_end():
            certificate = Certificate(settings.tcp)
            appliance, runner = await _start(settings, stack, certificate)
            parts = parts_of(appliance, runner.patience, certificate)
            reloader = Reloader(settings, read, parts, appliance.database)
            received.reload_with(reloader.ask)
            stack.push_async_callback(ended, asyncio.create_task(reloader.run(), name="reloader"))
        if not received.end.is_set():
            await _until_stopped(appliance, settings, runner, received)


async def _start(
    settings: Settings, stack: contextlib.AsyncExitStack, certificate: Certificate
) -> tuple[Appliance, Runner]:
    passed = systemd.passed_sockets()
    sockets = passed or _open_sockets(settings)
    for listener in sockets:
        stack.callback(listener.close)
    reads = _read_limits(settings)
    database = await Database.open(settings.daemon.state_dir, reads=reads)
    stack.push_async_callback(database.close)
    usage = await RecoveringDatabase.open(settings.daemon.state_dir, file=USAGE, reads=reads)
    stack.push_async_callback(usage.close)
    appliance = await assemble(settings, database, _public_url(settings, sockets), usage)
    stack.push_async_callback(appliance.auditing.settle)
    stack.push_async_callback(appliance.sharing.settle)
    stack.push_async_callback(appliance.runtime.close)
    await appliance.gpus.start()
    stack.push_async_callback(appliance.gpus.close)
    await appliance.gateway.start()
    stack.push_async_callback(appliance.gateway.close)
    stack.push_async_callback(appliance.parts.executor.close)
    await appliance.auditing.begin()
    await _first_tick(appliance)
    runner = await http_listening.serve(
        appliance.application, settings, sockets, certificate.context, owned=not passed
    )
    stack.push_async_callback(runner.cleanup)
    _keep_what_is_here()
    return appliance, runner


def _read_limits(settings: Settings) -> ReadLimits:
    limits = settings.limits
    return ReadLimits(
        readers=limits.readers, waiting=limits.reads_waiting, seconds=limits.query_seconds
    )


def _keep_what_is_here() -> None:
    # What was made so far stays: looking through it for garbage would hold the loop up for 50 ms.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_GARBAGE_THRESHOLDS)


async def _first_tick(appliance: Appliance) -> None:
    """Adopt what runs before the first request, so that a restart is not seen as an outage.

    The GPUs are waited for, but not long: a hung driver must not keep the models from serving.
    """
    waited_until = time.monotonic() + _FIRST_SAMPLE_SECONDS
    while _not_sampled(appliance) and time.monotonic() < waited_until:  # noqa: ASYNC110 - once
        await asyncio.sleep(0.02)
    try:
        await appliance.reconciler.tick(appliance.parts)
    except StoreDamagedError:
        raise
    except PrsmdError as error:
        log.warning("first look not finished: %s", error.message)


def _not_sampled(appliance: Appliance) -> bool:
    sample = appliance.gpus.sample()
    return sample.supported and sample.stale_since is not None


async def _until_stopped(
    appliance: Appliance, settings: Settings, runner: Runner, received: Received
) -> None:
    stop = received.end
    appliance.database.fatal.add_done_callback(lambda _: stop.set())
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(work, name=name) for name, work in _loops(appliance, settings)]
        systemd.notify("READY=1")
        log.info("serving on %s", ", ".join(runner.names))
        await stop.wait()
        systemd.notify("STOPPING=1")
        await _finish_requests(appliance, settings, runner)
        for task in tasks:
            task.cancel()
    if appliance.database.fatal.done():
        raise PrsmdError("the store failed; the daemon must not go on without it")


def _loops(appliance: Appliance, settings: Settings) -> list[tuple[str, Coroutine[Any, Any, None]]]:
    """Return the loops, by name. An unforeseen error in a background loop only restarts that one.

    One of the others ends the daemon, for the next one to begin anew: without the reconciler
    nothing is looked after, without loop-lag and prober a model is blamed or spared wrongly, and
    callers with limits wait for the lessor, whose count must be right.
    """
    reconciler, parts = appliance.reconciler, appliance.parts
    loops = [
        ("reconciler", reconciler.run(parts)),
        ("loop-lag", appliance.lag.run()),
        ("prober", parts.prober.run()),
        ("lessor", appliance.sharing.lessor.run()),
        *((name, restarted(name, run)) for name, run in _background(appliance, settings).items()),
    ]
    period = systemd.watchdog_seconds()
    if period is not None:
        loops.append(("watchdog", _watchdog(appliance, period)))
    return loops


def _background(
    appliance: Appliance, settings: Settings
) -> dict[str, Callable[[], Coroutine[Any, Any, None]]]:
    auditing, interval = appliance.auditing, settings.autoscale.interval_seconds
    return {
        "autoscaler": partial(appliance.autoscaler.run, interval),
        "hints": partial(janitor.hear_hints, appliance.runtime, appliance.reconciler.wake),
        "janitor": partial(janitor.forget_old, appliance.database),
        "last-used": partial(appliance.services.keys.run, _LAST_USED_SECONDS),
        "flusher": auditing.flusher.run,
        "usage": appliance.sharing.flusher.run,
        "notary": auditing.notary.run,
        "retention": auditing.retention.run,
        "state-watch": appliance.watch.run,
    }


async def _watchdog(appliance: Appliance, period_seconds: float) -> None:
    """Tell systemd that we live, but only while the loop, the writer and the reconciler do."""
    while True:
        await asyncio.sleep(period_seconds / 3)
        try:
            async with asyncio.timeout(period_seconds / 3):
                await appliance.database.ping()
        except (TimeoutError, PrsmdError):
            log.error("the store's writer does not answer; giving no sign of life")  # noqa: TRY400
            continue
        since = appliance.lag.on_time_since(appliance.reconciler.last_tick)
        if since < max(period_seconds, 60.0):
            systemd.notify("WATCHDOG=1")
        else:
            log.error("the reconciler has not finished a tick; giving no sign of life")


async def _finish_requests(appliance: Appliance, settings: Settings, runner: Runner) -> None:
    """Answer what was accepted, and what arrives on open connections until each can be closed.

    Who connects meanwhile waits in the listening socket for the next daemon, where it is not ours.
    """
    seconds = settings.daemon.stop_timeout_seconds
    unanswered = await runner.drain(seconds)
    if unanswered:
        log.warning("%d connections were not finished in time", unanswered)
        await runner.cut(f"the daemon is stopping, and its stop timeout of {seconds:g} s is over")
    await appliance.gateway.drain(0.0)
    log.info("stopping; the models keep running")


def _open_sockets(settings: Settings) -> list[socket.socket]:
    sockets = [listeners.open_unix(settings.unix)]
    if settings.tcp.enabled:
        sockets.append(listeners.open_tcp(settings.tcp))
    return sockets


def _public_url(settings: Settings, sockets: Sequence[socket.socket]) -> str:
    """Return the address that clients on the network reach the API at."""
    if settings.tcp.public_url is not None:
        return settings.tcp.public_url
    scheme = "http" if settings.tcp.cert is None else "https"
    for listener in sockets:
        if listener.family in {socket.AF_INET, socket.AF_INET6}:
            host, port = listener.getsockname()[:2]
            return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"
    return "http://localhost"


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="prsmd", description="The model-serving daemon.")
    parser.add_argument("--config", type=Path, help="settings file (/etc/prsmd/prsmd.toml)")
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one"
    )
    parser.add_argument("--check", action="store_true", help="check the settings and exit")
    parser.add_argument(
        "--new-instance", action="store_true", help="move the state aside, for a new one to begin"
    )
    parser.add_argument(
        "--accept-state", action="store_true", help="take an older or other control.db as it is"
    )
    parser.add_argument("--version", action="version", version=f"prsmd {__version__}")
    return parser.parse_args(arguments)


def _read(options: argparse.Namespace) -> Settings:
    settings = load(options.config, os.environ, options.set)
    _strictly(settings, options)
    return settings


def _strictly(settings: Settings, options: argparse.Namespace) -> list[str]:
    """Return what to warn of; ConfigurationError where others can write what must be trusted."""
    found = strictness.findings(settings, files_of(options.config))
    refused = [each.words for each in found if each.refused]
    if refused:
        raise ConfigurationError(refused)
    return [each.words for each in found]


def _order(settings: Settings, *, begin: bool) -> int:
    """Prepare the state folder for the next start, as was asked; return the exit code."""
    folder = settings.daemon.state_dir
    try:
        sys.stdout.write(orders.begin_anew(folder) if begin else orders.accept(folder))
    except PrsmdError as error:
        sys.stderr.write(f"prsmd: {error.message}\n")
        return EXIT_FAILURE
    return 0


def _refuse(error: ConfigurationError) -> int:
    for problem in error.problems:
        sys.stderr.write(f"prsmd: {problem}\n")
    return EXIT_CONFIGURATION
