"""Where the envelope key comes from, and how it is exchanged, by the daemon or by an operator."""

import contextlib
import dataclasses
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.config import ConfigurationError
from prsmd.core.guard import ContainerRules
from prsmd.core.manifest import Listed, write
from prsmd.core.signing import Signer
from prsmd.keyfiles import EnvelopeKeys
from prsmd.service.secrets import Secrets
from prsmd.settings import (
    AccessSection,
    DaemonSection,
    ImagesSection,
    RuntimeSection,
    SecuritySection,
    Settings,
)
from prsmd.store import attestations, secrets
from prsmd.store.attestations import Checkpoint
from prsmd.store.db import Database
from prsmd.store.sealing import Sealer
from prsmd.store.secrets import StoredSecret
from prsmd.vault import Vault, rules_of, vault_of
from tests.engine.harness import caller

TOKEN = StoredSecret(
    organization="acme",
    name="token",
    version=1,
    size_bytes=1,
    textual=True,
    created_at=1.0,
    updated_at=1.0,
    updated_by="uid:0",
)


@contextlib.asynccontextmanager
async def opened(folder: Path, **access: Path) -> AsyncIterator[tuple[Database, Vault]]:
    """Give the state of a folder and a vault with these key files."""
    settings = Settings(
        daemon=DaemonSection(state_dir=folder / "state"), access=AccessSection(**access)
    )
    database = await Database.open(folder / "state")
    try:
        yield database, await vault_of(settings, database)
    finally:
        await database.close()


async def value(database: Database, vault: Vault) -> bytes | None:
    async with database.read() as tx:
        return await secrets.value(tx, "acme", "token", vault.sealer)


async def keep(database: Database, vault: Vault) -> None:
    await database.write(lambda tx: secrets.save(tx, TOKEN, b"x", vault.sealer))


def key_file(folder: Path, name: str) -> Path:
    path = folder / name
    path.write_bytes(name.encode().ljust(32, b"."))
    return path


async def test_an_operators_key_is_exchanged_with_the_former_one_beside_it(tmp_path: Path) -> None:
    old, new = key_file(tmp_path, "old"), key_file(tmp_path, "new")
    async with opened(tmp_path, envelope_key_file=old) as (database, vault):
        await keep(database, vault)
    with pytest.raises(ConfigurationError) as refusal:
        async with opened(tmp_path, envelope_key_file=new):
            pass
    assert f"access.envelope_key_file: {new}: opens none of the 1 secrets" in str(refusal.value)
    both = {"envelope_key_file": new, "previous_envelope_key_file": old}
    async with opened(tmp_path, **both) as (database, vault):
        assert await value(database, vault) == b"x"
        done = await Secrets(database, vault.sealer, vault.envelope).rotate_key(caller())
        assert (done.secrets, done.made_here) == (1, False)
        assert await value(database, vault) == b"x"
    async with opened(tmp_path, envelope_key_file=new) as (database, vault):
        assert await value(database, vault) == b"x"
    assert new.read_bytes().startswith(b"new")


async def test_the_daemons_own_key_still_opens_once_an_operator_keeps_one(tmp_path: Path) -> None:
    async with opened(tmp_path) as (database, vault):
        await keep(database, vault)
    new = key_file(tmp_path, "new")
    async with opened(tmp_path, envelope_key_file=new) as (database, vault):
        assert await value(database, vault) == b"x"
        await Secrets(database, vault.sealer, vault.envelope).rotate_key(caller())
    assert not (tmp_path / "state" / "envelope-key").exists()
    async with opened(tmp_path, envelope_key_file=new) as (database, vault):
        assert await value(database, vault) == b"x"


async def test_a_change_that_cannot_be_finished_keeps_both_keys(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as (database, vault):
        await keep(database, vault)
        vault.envelope.prepare()
        broken = dataclasses.replace(TOKEN, name="broken")
        stranger = Sealer(b"z" * 32)
        await database.write(lambda tx: secrets.save(tx, broken, b"x", stranger))
    async with opened(tmp_path) as (database, vault):
        assert await value(database, vault) == b"x"
    assert "the change of the envelope key is not finished" in caplog.text
    assert (tmp_path / "state" / "envelope-key").exists()
    assert (tmp_path / "state" / "envelope-key.next").exists()


async def test_a_value_that_another_key_sealed_keeps_nobody_from_the_others(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with opened(tmp_path) as (database, vault):
        await keep(database, vault)
        lost = dataclasses.replace(TOKEN, name="lost")
        await database.write(lambda tx: secrets.save(tx, lost, b"x", Sealer(b"z" * 32)))
    async with opened(tmp_path) as (database, vault):
        assert await value(database, vault) == b"x"
    assert "1 of 2 secrets and registry passwords cannot be opened" in caplog.text


@pytest.mark.parametrize("kept", [b"", b"z" * 32], ids=["lost", "exchanged"])
async def test_a_state_without_its_own_key_is_refused_by_the_name_of_the_file(
    tmp_path: Path, kept: bytes
) -> None:
    async with opened(tmp_path) as (database, vault):
        await keep(database, vault)
    path = tmp_path / "state" / "envelope-key"
    path.unlink()
    if kept:
        path.write_bytes(kept)
    with pytest.raises(ConfigurationError, match=f"{path}: opens none of the 1 secrets"):
        async with opened(tmp_path):
            pass


def test_preparing_twice_gives_the_same_next_key(tmp_path: Path) -> None:
    keys = EnvelopeKeys(None, None, tmp_path)
    assert keys.prepare() == keys.prepare() != keys.current
    assert (tmp_path / "envelope-key.next").stat().st_mode & 0o777 == 0o600
    again = EnvelopeKeys(None, None, tmp_path)
    assert (again.unfinished, again.earlier) == (True, (keys.current,))


def test_a_former_key_that_is_not_there_or_too_short_is_told_by_its_setting(tmp_path: Path) -> None:
    short = tmp_path / "short"
    short.write_bytes(b"x")
    for path in (short, tmp_path / "missing"):
        with pytest.raises(ConfigurationError, match="previous_envelope_key_file"):
            EnvelopeKeys(None, path, tmp_path)


async def test_keys_of_signed_lists_that_cannot_be_read_are_a_wrong_setting(tmp_path: Path) -> None:
    section = ImagesSection(trusted_keys=(tmp_path / "no.pem",), signed_lists=(tmp_path / "x",))
    settings = Settings(daemon=DaemonSection(state_dir=tmp_path), images=section)
    database = await Database.open(tmp_path)
    with pytest.raises(ConfigurationError, match=r"images\.trusted_keys"):
        await vault_of(settings, database)
    await database.close()


def test_the_rules_are_those_of_the_settings() -> None:
    assert rules_of(Settings()) == ContainerRules()
    settings = Settings(
        security=SecuritySection(allow_egress=("acme",), allow_writable_root=("rival",)),
        runtime=RuntimeSection(classes=("runsc",)),
        images=ImagesSection(allowed_registries=("r.example:5000/a",), require_digest=True),
    )
    assert rules_of(settings) == ContainerRules(
        egress=frozenset({"acme"}),
        writable_root=frozenset({"rival"}),
        registries=("r.example:5000/a",),
        require_digest=True,
        runtime_classes=("runsc",),
    )


async def test_the_time_of_the_last_checkpoint_has_been_whatever_the_clock_says_now(
    tmp_path: Path,
) -> None:
    signer, image = Signer(b"s" * 32), "sha256:" + "a" * 64
    key, lines = tmp_path / "key.pem", tmp_path / "list"
    key.write_bytes(signer.public_pem)
    now = time.time()
    lines.write_bytes(write([Listed(image)], signer, now, now + 1000))
    section = ImagesSection(trusted_keys=(key,), signed_lists=(lines,))
    settings = Settings(daemon=DaemonSection(state_dir=tmp_path), images=section)
    database = await Database.open(tmp_path)
    assert (await vault_of(settings, database)).provisions.signed.refusal({image}) is None
    later = Checkpoint(sequence=1, key="k", hash="h", at=now + 2000, signature="s")
    await database.write(lambda tx: attestations.add_checkpoint(tx, later))
    refusal = (await vault_of(settings, database)).provisions.signed.refusal({image})
    await database.close()
    assert refusal is not None
    assert "expired at" in refusal
