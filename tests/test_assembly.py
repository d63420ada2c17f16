"""The composition root: everything is connected, nothing runs, secrets are kept privately."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.assembly import Appliance, assemble
from prsmd.config import ConfigurationError
from prsmd.domain.errors import EngineError
from prsmd.engines import choose_runtime
from prsmd.service.keys import KeyRequest
from prsmd.settings import AccessSection, DaemonSection, RuntimeSection, Settings
from prsmd.store import audit
from prsmd.store.db import Database
from tests.service.identity import caller


def settings(folder: Path, **sections: object) -> Settings:
    return Settings(
        daemon=DaemonSection(state_dir=folder),
        **{"runtime": RuntimeSection(name="process"), **sections},
    )


@contextlib.asynccontextmanager
async def assembled(given: Settings) -> AsyncIterator[Appliance]:
    database = await Database.open(given.daemon.state_dir)
    try:
        appliance = await assemble(given, database, "http://localhost")
        yield appliance
        await appliance.runtime.close()
    finally:
        await database.close()


async def test_an_assembled_appliance_runs_nothing_yet(tmp_path: Path) -> None:
    async with assembled(settings(tmp_path)) as appliance:
        names = {task.get_name().partition(":")[0] for task in asyncio.all_tasks()}

        assert not names & {"prober", "reconciler", "autoscaler", "nvml-sampler", "launch"}
        assert appliance.runtime.name == "process"
        assert not appliance.services.health.ready()


async def test_another_pepper_than_the_keys_were_made_with_is_told_and_on_record(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with assembled(settings(tmp_path)) as appliance:
        await appliance.services.keys.create(
            caller(), KeyRequest(name="k", role="viewer", organization="default")
        )
    (tmp_path / "pepper").write_bytes(b"another one" * 3)
    told = []
    for _ in range(2):
        caplog.clear()
        async with assembled(settings(tmp_path)) as appliance:
            told.append("pepper is another one than at the last start" in caplog.text)
            async with appliance.database.read() as tx:
                records, _ = await audit.page(tx, None, 100, 0)

    assert told == [True, False]
    assert [each.action for each in records].count("access.pepper") == 1


async def test_another_pepper_before_there_is_any_key_is_nobody_s_loss(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with assembled(settings(tmp_path)):
        pass
    (tmp_path / "pepper").write_bytes(b"another one" * 3)
    async with assembled(settings(tmp_path)):
        pass

    assert "pepper" not in caplog.text


@pytest.mark.parametrize("name", ["pepper", "envelope-key"])
async def test_a_secret_is_made_once_and_only_its_owner_can_read_it(
    tmp_path: Path, name: str
) -> None:
    async with assembled(settings(tmp_path)):
        first = (tmp_path / name).read_bytes()
    async with assembled(settings(tmp_path)):
        second = (tmp_path / name).read_bytes()

    assert first == second
    assert len(first) >= 32
    assert (tmp_path / name).stat().st_mode & 0o777 == 0o600


async def test_each_secret_is_its_own(tmp_path: Path) -> None:
    async with assembled(settings(tmp_path)):
        pass
    assert (tmp_path / "pepper").read_bytes() != (tmp_path / "envelope-key").read_bytes()


@pytest.mark.parametrize("content", [None, b"short"])
@pytest.mark.parametrize("setting", ["pepper_file", "envelope_key_file"])
async def test_a_configured_secret_that_cannot_be_used_is_a_configuration_error(
    tmp_path: Path, content: bytes | None, setting: str
) -> None:
    secret = tmp_path / "given"
    if content is not None:
        secret.write_bytes(content)
    given = settings(tmp_path, access=AccessSection(**{setting: secret}))
    with pytest.raises(ConfigurationError) as refused:
        async with assembled(given):
            pass

    assert f"access.{setting}" in refused.value.problems[0]


async def test_a_credential_of_systemd_wins_over_the_file_made_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    credentials = tmp_path / "credentials"
    credentials.mkdir()
    (credentials / "prsmd-envelope-key").write_bytes(b"e" * 32)
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(credentials))
    async with assembled(settings(tmp_path / "state")):
        pass
    assert not (tmp_path / "state" / "envelope-key").exists()
    assert (tmp_path / "state" / "pepper").exists()


async def test_without_an_engine_auto_falls_back_to_processes_and_warns(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    section = RuntimeSection(name="auto", docker_url=f"unix://{tmp_path}/no.sock")
    runtime = await choose_runtime(settings(tmp_path, runtime=section), "instance_x")

    assert runtime.name == "process"
    assert "the embedded runtime isolates nothing" in caplog.text
    await runtime.close()


async def test_docker_that_was_asked_for_is_never_replaced_by_processes(tmp_path: Path) -> None:
    section = RuntimeSection(name="docker", docker_url=f"unix://{tmp_path}/no.sock")
    runtime = await choose_runtime(settings(tmp_path, runtime=section), "instance_x")

    assert runtime.name == "docker"
    with pytest.raises(EngineError):
        await runtime.list()
    await runtime.close()


async def test_what_is_under_way_is_looked_at_again_when_the_clock_is_set(tmp_path: Path) -> None:
    async with assembled(settings(tmp_path)) as appliance:
        assert appliance.lag.on_clock_set == [appliance.entrance.underway.look_again]
