"""What was brought, and logins whose passwords nobody reads from the database."""

import contextlib
import dataclasses
import sqlite3

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.image import Brought, ImageOrigin, Login
from prsmd.store import images, registries
from prsmd.store.registries import StoredLogin
from prsmd.store.sealing import SealBrokenError, Sealer
from tests.store.store_samples import bare_schema, times, words

KEY = b"k" * 32
BROUGHT = Brought(
    id="sha256:1",
    reference="legal:1",
    digest="legal@sha256:2",
    organization="acme",
    origin=ImageOrigin.PULLED,
    private=True,
    by="key:a",
    at=1.0,
)
LOGIN = StoredLogin(
    organization="acme",
    server="registry.example:5000",
    username="robot",
    created_at=1.0,
    updated_at=2.0,
    updated_by="key:a",
)
PASSWORD = "correct horse battery staple"

brought = st.builds(
    Brought,
    id=words,
    reference=words,
    digest=words,
    organization=words,
    origin=st.sampled_from(ImageOrigin),
    private=st.booleans(),
    by=words,
    at=times,
)


@given(brought)
async def test_what_was_brought_comes_back_as_it_was(one):
    async with bare_schema() as tx:
        await images.note(tx, one)
        assert await images.list_all(tx) == [one]
        assert await images.of_content(tx, one.id) == [one]


async def test_the_last_time_counts_but_what_was_open_to_all_stays_so():
    again = dataclasses.replace(BROUGHT, private=False, by="key:b", at=2.0)
    third = dataclasses.replace(BROUGHT, at=3.0, origin=ImageOrigin.LOADED)
    async with bare_schema() as tx:
        for one in (BROUGHT, again, third):
            await images.note(tx, one)
        assert await images.list_all(tx) == [dataclasses.replace(third, private=False)]


async def test_each_organization_and_name_has_its_own_record():
    others = [
        dataclasses.replace(BROUGHT, organization="rival", at=2.0),
        dataclasses.replace(BROUGHT, reference="legal:2", at=3.0),
    ]
    async with bare_schema() as tx:
        for one in (BROUGHT, *others):
            await images.note(tx, one)
        assert await images.of_content(tx, BROUGHT.id) == [BROUGHT, *others]


async def test_a_pull_under_way_is_settled_or_dropped():
    pending = dataclasses.replace(BROUGHT, id="", digest="")
    theirs = dataclasses.replace(pending, organization="rival")
    async with bare_schema() as tx:
        await images.note(tx, pending)
        await images.note(tx, theirs)
        await images.settle(tx, pending, BROUGHT)
        assert await images.of_content(tx, BROUGHT.id) == [BROUGHT]
        assert await images.of_content(tx, "") == [theirs]
        await images.settle(tx, theirs, None)
        assert await images.list_all(tx) == [BROUGHT]


async def test_what_is_gone_is_forgotten():
    other = dataclasses.replace(BROUGHT, id="sha256:9")
    async with bare_schema() as tx:
        await images.note(tx, BROUGHT)
        await images.note(tx, other)
        assert await images.forget(tx, {BROUGHT.id, "unknown"}) == 1
        assert await images.list_all(tx) == [other]


async def test_a_login_comes_back_with_its_password_only_to_who_has_the_key():
    async with bare_schema() as tx:
        assert await registries.save(tx, LOGIN, PASSWORD, Sealer(KEY))
        found = await registries.login(tx, LOGIN.organization, LOGIN.server, Sealer(KEY))
        assert found == Login(server=LOGIN.server, username="robot", password=PASSWORD)
        assert await registries.list_for(tx, None) == [LOGIN]
        with pytest.raises(SealBrokenError, match="another envelope key"):
            await registries.login(tx, LOGIN.organization, LOGIN.server, Sealer(b"x" * 32))
    assert PASSWORD not in repr(found)


async def test_a_second_login_for_a_server_takes_the_place_of_the_first():
    later = dataclasses.replace(LOGIN, username="other", updated_at=9.0)
    async with bare_schema() as tx:
        await registries.save(tx, LOGIN, PASSWORD, Sealer(KEY))
        assert not await registries.save(tx, later, "new", Sealer(KEY))
        assert await registries.list_for(tx, "acme") == [later]
        found = await registries.login(tx, "acme", LOGIN.server, Sealer(KEY))
        assert (found.username, found.password) == ("other", "new")


async def test_logins_are_each_organizations_own():
    theirs = dataclasses.replace(LOGIN, organization="rival")
    async with bare_schema() as tx:
        await registries.save(tx, LOGIN, PASSWORD, Sealer(KEY))
        assert await registries.login(tx, "rival", LOGIN.server, Sealer(KEY)) is None
        await registries.save(tx, theirs, "theirs", Sealer(KEY))
        assert await registries.list_for(tx, "rival") == [theirs]
        assert await registries.remove(tx, "rival", LOGIN.server)
        assert not await registries.remove(tx, "rival", LOGIN.server)
        assert await registries.list_for(tx, None) == [LOGIN]


async def test_a_password_that_was_copied_to_another_organization_does_not_open_there():
    async with bare_schema() as tx:
        await registries.save(tx, LOGIN, PASSWORD, Sealer(KEY))
        await tx.execute_fetchall("UPDATE registries SET organization = 'rival'")
        with pytest.raises(SealBrokenError, match="changed or damaged"):
            await registries.login(tx, "rival", LOGIN.server, Sealer(KEY))


async def test_no_file_of_the_database_holds_the_password(database):
    def nothing(content):
        return PASSWORD.encode() not in content

    await database.write(lambda tx: registries.save(tx, LOGIN, PASSWORD, Sealer(KEY)))
    folder = database.path.parent
    files = [path for path in folder.iterdir() if path.is_file()]
    assert any(b"robot" in path.read_bytes() for path in files)
    assert all(nothing(path.read_bytes()) for path in files)
    with contextlib.closing(sqlite3.connect(database.path)) as plain:
        assert all(nothing(line.encode()) for line in plain.iterdump())


# The seal


@given(st.binary(max_size=100), words)
def test_what_is_sealed_opens_where_it_belongs_and_nowhere_else(content, place):
    sealer = Sealer(KEY)
    sealed = sealer.seal(content, place)
    assert sealer.open(sealed, place) == content
    with pytest.raises(SealBrokenError):
        sealer.open(sealed, place + "x")


def test_the_same_content_never_looks_the_same():
    sealer = Sealer(KEY)
    assert len({sealer.seal(b"x", "p") for _ in range(100)}) == 100


@pytest.mark.parametrize("position", range(0, 40, 3))
def test_every_changed_byte_is_noticed(position):
    sealed = bytearray(Sealer(KEY).seal(b"0123456789", "p"))
    sealed[position % len(sealed)] ^= 1
    with pytest.raises(SealBrokenError):
        Sealer(KEY).open(bytes(sealed), "p")


@pytest.mark.parametrize("length", [0, 1, 5, 17, 30])
def test_what_is_too_short_is_no_seal(length):
    with pytest.raises(SealBrokenError):
        Sealer(KEY).open(Sealer(KEY).seal(b"x", "p")[:length], "p")


def test_a_short_envelope_key_is_refused():
    with pytest.raises(ValueError, match="at least 32 bytes"):
        Sealer(b"k" * 31)
