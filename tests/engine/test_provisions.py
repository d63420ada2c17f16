"""What a launch is refused for want of: today's rules, a signed list, its secrets."""

import dataclasses
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from prsmd.core.guard import ContainerRules
from prsmd.core.manifest import Listed, write
from prsmd.core.signing import Signer
from prsmd.domain.errors import EngineError, EngineUnreachableError, ImageUnavailableError
from prsmd.domain.spec import SecretUse, Security
from prsmd.engine.provisions import Provisions, SignedImages, is_textual
from prsmd.store import secrets
from prsmd.store.db import Database
from prsmd.store.sealing import Sealer
from prsmd.store.secrets import StoredSecret
from tests.engine.harness import spec
from tests.support.exhausted import no_descriptors

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
SIGNER = Signer(b"s" * 32)
SEALER = Sealer(b"k" * 32)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    opened = await Database.open(tmp_path / "state")
    yield opened
    await opened.close()


async def keep(database: Database, name: str, value: bytes, sealer: Sealer = SEALER) -> None:
    stored = StoredSecret(
        organization="acme", name=name, version=1, size_bytes=len(value), textual=True,
        created_at=1.0, updated_at=1.0, updated_by="x",
    )  # fmt: skip
    await database.write(lambda tx: secrets.save(tx, stored, value, sealer))


def provisions(database: Database, rules: ContainerRules | None = None) -> Provisions:
    return Provisions(database, SEALER, rules or ContainerRules(), SignedImages())


async def test_values_come_by_the_variables_that_ask_for_them(database: Database) -> None:
    await keep(database, "token", b"\x00\xff")
    given = dataclasses.replace(spec(), secrets={"A": SecretUse("token"), "B": SecretUse("token")})
    found = await provisions(database).secrets("acme", given)
    assert found == {"A": b"\x00\xff", "B": b"\x00\xff"}


async def test_what_is_gone_broken_or_does_not_fit_is_told_by_name(database: Database) -> None:
    await keep(database, "binary", b"\x00\xff")
    await keep(database, "sealed-elsewhere", b"x", Sealer(b"z" * 32))
    for use, words in (
        (SecretUse("no-such"), "acme has no secret no-such: set it with"),
        (SecretUse("binary", in_environment=True), "secret binary is binary or too long"),
        (SecretUse("sealed-elsewhere"), "secret sealed-elsewhere: .*another envelope key"),
    ):
        given = dataclasses.replace(spec(), secrets={"A": use})
        with pytest.raises(EngineError, match=words):
            await provisions(database).secrets("acme", given)
    with pytest.raises(EngineError, match="rival has no secret binary"):
        await provisions(database).secrets(
            "rival", dataclasses.replace(spec(), secrets={"A": SecretUse("binary")})
        )


async def test_a_rule_that_became_stricter_holds_at_the_next_launch(database: Database) -> None:
    given = dataclasses.replace(spec(), security=Security(egress=True))
    allowed = ContainerRules(egress=frozenset({"acme"}))
    provisions(database, allowed).refuse_broken_rules("acme", given)
    with pytest.raises(EngineError, match=r"egress: .*\[security\] allow_egress"):
        provisions(database).refuse_broken_rules("acme", given)


def test_without_keys_every_image_may_run() -> None:
    assert SignedImages().refusal({A}) is None


@pytest.fixture
def signed(tmp_path: Path) -> SignedImages:
    key = tmp_path / "key.pem"
    key.write_bytes(SIGNER.public_pem)
    (tmp_path / "one").write_bytes(write([Listed(A)], SIGNER, 0.0, None))
    return SignedImages((key,), (tmp_path / "missing", tmp_path / "one"))


def test_an_image_runs_by_its_id_or_any_registrys_digest(signed: SignedImages) -> None:
    assert signed.refusal({A}) is None
    assert signed.refusal({f"r.example/a/b@{A}", B}) is None
    refusal = signed.refusal({B})
    assert refusal is not None
    assert f"no list of [images] signed_lists names {B}" in refusal
    assert "missing" in refusal


def test_for_want_of_descriptors_a_list_says_nothing_of_an_image(signed: SignedImages) -> None:
    with no_descriptors(), pytest.raises(EngineUnreachableError, match="Too many open files"):
        signed.refusal({A})
    assert signed.refusal({A}) is None


def test_a_new_list_holds_at_once_and_a_broken_one_allows_nothing(
    signed: SignedImages, tmp_path: Path
) -> None:
    (tmp_path / "one").write_bytes(write([Listed(B)], SIGNER, 0.0, None))
    assert signed.refusal({B}) is None
    assert signed.refusal({A}) is not None
    (tmp_path / "one").write_bytes(write([Listed(B)], Signer(b"o" * 32), 0.0, None))
    assert signed.refusal({B}) is not None


@pytest.mark.parametrize("latest", [0.0, 3000.0], ids=["in this life", "in an earlier one"])
def test_a_clock_that_was_set_back_makes_no_list_good_again(tmp_path: Path, latest: float) -> None:
    key, lines = tmp_path / "key.pem", tmp_path / "list"
    key.write_bytes(SIGNER.public_pem)
    lines.write_bytes(write([Listed(A)], SIGNER, 1000.0, 2000.0))
    times = iter([3000.0, 1500.0])
    if latest:
        next(times)
    signed = SignedImages((key,), (lines,), latest=latest, clock=lambda: next(times))
    for _ in range(1 if latest else 2):
        assert "expired at 2000" in str(signed.refusal({A}))


async def test_an_unsigned_image_is_unavailable_and_says_why(
    database: Database, signed: SignedImages
) -> None:
    strict = Provisions(database, SEALER, ContainerRules(), signed)
    strict.refuse_unsigned("a:1", {A, B})
    with pytest.raises(ImageUnavailableError, match="a:1 may not run here: no list of"):
        strict.refuse_unsigned("a:1", {B})


@pytest.mark.parametrize(
    ("value", "textual"),
    [(b"x", True), ("grüße\n".encode(), True), (b"\xff", False), (b"a\0b", False),
     (b"x" * 32768, True), (b"x" * 32769, False)],
)  # fmt: skip
def test_what_can_stand_in_a_variable(value: bytes, textual: bool) -> None:
    assert is_textual(value) == textual
