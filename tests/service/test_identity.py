"""Organizations, roles, members and keys: who may change them, and that nobody rises thereby."""

import asyncio
import time

import pytest

from prsmd.domain.access import ROLES, Permission, SubjectKind
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import (
    ConflictError,
    InvalidApiKeyError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
    StorageFullError,
)
from prsmd.service.keys import KeyRequest
from prsmd.service.members import BindingWish, MemberWish
from prsmd.service.organizations import OrganizationChange, ensure
from prsmd.service.roles import RoleWish
from prsmd.store import audit, deployments
from prsmd.store.db import Database
from tests.service.identity import Office, caller, with_key

P = Permission
STRANGER = "54321"
NOT_ADMIN = [role for role in ROLES if role != "admin"]


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    yield await Office.open(database)
    await database.close()


async def model(office, organization="company", name="plans"):
    made = Deployment(
        id=f"deploy_{organization}_{name}",
        organization=organization,
        model_id=f"custom_{name}",
        model_name=name,
        revision=1,
        asked_replicas=0,
        created_at=1.0,
        updated_at=1.0,
    )
    await office.database.write(lambda tx: deployments.add(tx, made))
    return made


def member(subject=STRANGER, *bindings, kind="uid", organization=None):
    return MemberWish(
        kind=kind, subject=subject, bindings=bindings or [BindingWish("viewer")],
        organization=organization,
    )  # fmt: skip


async def refused(work, error=PermissionDeniedError):
    with pytest.raises(error) as refusal:
        await work
    return refusal.value


# Organizations


@pytest.mark.parametrize("role", NOT_ADMIN)
async def test_only_administrators_make_change_or_remove_organizations(office, role):
    for work in (
        office.organizations.create(caller(role), "lab", "Lab"),
        office.organizations.change(caller(role), "company", OrganizationChange(disabled=True)),
        office.organizations.remove(caller(role), "company"),
    ):
        await refused(work)
    assert office.directory.organization("lab") is None
    assert [outcome for _, _, outcome in await office.recorded()] == ["denied"] * 3


async def test_an_organization_that_was_made_can_have_keys_at_once(office):
    made = await office.organizations.create(caller(), "lab", "The Lab")
    key, _ = await office.keys.create(
        caller(), KeyRequest(name="k", role="owner", organization="lab")
    )

    assert (made.id, made.display_name, key.organization) == ("lab", "The Lab", "lab")
    assert ("organizations.create", "organization:lab", "allowed") in await office.recorded()


async def test_a_key_of_an_organization_that_is_not_there_is_refused(office):
    wish = KeyRequest(name="k", role="owner", organization="nowhere")
    assert "organization" in (await refused(office.keys.create(caller(), wish), InvalidInputError)
    ).message  # fmt: skip


async def test_an_organization_with_models_is_not_removed(office):
    await model(office, "rival")

    refusal = await refused(office.organizations.remove(caller(), "rival"), ConflictError)
    assert "while it has models: custom_plans" in refusal.message
    assert refusal.details["total"] == 1
    assert office.directory.organization("rival") is not None


async def test_nobody_disables_or_removes_the_organization_that_they_act_for(office):
    for work in (
        office.organizations.remove(caller(), "company"),
        office.organizations.change(caller(), "company", OrganizationChange(disabled=True)),
    ):
        await refused(work, ConflictError)
    assert office.directory.organization("company").disabled_at is None


async def test_who_acts_for_a_disabled_organization_is_refused_until_it_is_enabled(office):
    await model(office, "rival")
    wish = KeyRequest(name="k", role="owner", organization="rival")
    _, text = await office.keys.create(caller(), wish)

    await office.organizations.change(caller(), "rival", OrganizationChange(disabled=True))
    with pytest.raises(InvalidApiKeyError, match="disabled"):
        office.ring.identify(text)
    await office.organizations.change(caller(), "rival", OrganizationChange(disabled=False))

    assert office.ring.identify(text).principal.organization == "rival"


async def test_a_removed_organization_leaves_no_way_in_and_its_name_is_not_given_again(office):
    wish = KeyRequest(name="k", role="owner", organization="rival")
    _, text = await office.keys.create(caller(), wish)
    await office.members.add(caller(), member(organization="rival"))

    await office.organizations.remove(caller(), "rival")

    for directory in (office.directory, await office.reloaded()):
        assert directory.organization("rival") is None
        assert directory.member(SubjectKind.UID, STRANGER, "company") is None
    with pytest.raises(InvalidApiKeyError):
        office.ring.identify(text)
    refusal = await refused(office.organizations.create(caller(), "rival", ""), ConflictError)
    assert "not given again" in refusal.message
    found, total = await office.organizations.page(caller(), 20, 0)
    assert ([each.id for each in found], total) == (["company"], 1)


async def test_an_owner_sees_their_own_organization_and_no_other(office):
    owner = caller("owner", "rival")
    found, total = await office.organizations.page(owner, 20, 0)
    assert ([each.id for each in found], total) == (["rival"], 1)
    assert (await office.organizations.get(owner, "rival")).id == "rival"
    words = [
        (await refused(office.organizations.get(owner, name), NotFoundError)).message
        for name in ("company", "nowhere")
    ]
    assert words[0].replace("company", "X") == words[1].replace("nowhere", "X")


# Roles


async def test_an_own_role_counts_at_once_when_it_is_made_changed_and_taken(office):
    owner = caller("owner")
    await office.roles.create(owner, RoleWish(name="reader", permissions=frozenset({P.LOGS_READ})))
    _, text = await office.keys.create(owner, KeyRequest(name="k", role="reader"))
    assert office.ring.identify(text).principal.permissions == {P.LOGS_READ}

    changed = RoleWish(name="reader", permissions=frozenset({P.MODELS_READ}))
    await office.roles.change(owner, changed)

    assert office.ring.identify(text).principal.permissions == {P.MODELS_READ}
    assert (await office.reloaded()).own_roles("company") == {"reader": {P.MODELS_READ}}


@pytest.mark.parametrize("maker", ["owner", "admin"])
async def test_no_own_role_allows_what_an_owner_may_not(office, maker):
    wish = RoleWish(name="up", permissions=frozenset({P.MODELS_READ, P.NODE_MANAGE}))
    refusal = await refused(office.roles.create(caller(maker), wish), InvalidInputError)
    assert "node.manage" in refusal.message


@pytest.mark.parametrize("name", [*ROLES, "", "Upper", "a/b", "x" * 64])
async def test_a_built_in_name_or_none_at_all_is_no_name_for_an_own_role(office, name):
    await refused(office.roles.create(caller("owner"), RoleWish(name=name)), InvalidInputError)


async def test_nobody_changes_a_role_above_their_own_not_even_downwards(office):
    owner = caller("owner")
    every = ROLES["owner"]
    hr = frozenset({P.MEMBERS_MANAGE, P.KEYS_MANAGE})
    for name, granted in (("boss", every), ("hr", hr)):
        await office.roles.create(owner, RoleWish(name=name, permissions=granted))
    clerk = office.own("hr")

    for work in (
        office.roles.create(clerk, RoleWish(name="new", permissions=frozenset({P.MODELS_READ}))),
        office.roles.change(clerk, RoleWish(name="hr", permissions=every)),
        office.roles.change(clerk, RoleWish(name="boss", permissions=frozenset())),
        office.roles.remove(clerk, "boss", None),
    ):
        await refused(work)
    assert office.directory.own_roles("company") == {"boss": every, "hr": hr}
    await office.roles.change(clerk, RoleWish(name="hr", permissions=frozenset({P.KEYS_MANAGE})))


async def test_a_role_that_somebody_has_is_not_removed(office):
    owner = caller("owner")
    await office.roles.create(owner, RoleWish(name="reader"))
    key, _ = await office.keys.create(owner, KeyRequest(name="k", role="reader"))
    added = await office.members.add(owner, member(STRANGER, BindingWish("reader")))

    refusal = await refused(office.roles.remove(owner, "reader", None), ConflictError)
    assert refusal.details["holders"] == [f"key {key.id}", f"member {added.member.id}"]
    await office.keys.revoke(owner, key.id)
    await office.members.remove(owner, added.member.id)
    await office.roles.remove(owner, "reader", None)

    assert office.directory.own_roles("company") == {}


async def test_roles_of_others_are_not_there(office):
    await office.roles.create(caller("owner", "rival"), RoleWish(name="secret"))

    assert await office.roles.page(caller("owner"), 20, 0) == ([], 0)
    await refused(office.roles.remove(caller("owner"), "secret", None), NotFoundError)
    await refused(office.roles.remove(caller("owner"), "secret", "rival"), PermissionDeniedError)
    wish = KeyRequest(name="k", role="secret")
    await refused(office.keys.create(caller("owner"), wish), InvalidInputError)


# Members


async def test_a_member_has_its_roles_in_the_organization_and_on_models(office):
    plans = await model(office)
    wish = member(STRANGER, BindingWish("viewer"), BindingWish("operator", "plans"))

    report = await office.members.add(caller("owner"), wish)

    assert report.models == {plans.id: "custom_plans"}
    for directory in (office.directory, await office.reloaded()):
        found = directory.member(SubjectKind.UID, STRANGER, "company")
        principal = directory.principal("uid:1", found.organization, found.bindings)
        assert principal.permissions == ROLES["viewer"]
        assert P.MODELS_SCALE in principal.on_models[plans.id]


@pytest.mark.parametrize(
    "wish",
    [
        member("0"),
        member("no-number"),
        member("01"),
        member(str(2**32)),
        member("nobody-of-that-name", kind="user"),
        member("nobody-of-that-name", kind="group"),
        member("0123456789", kind="key"),
        member(STRANGER, BindingWish("no-role")),
        member(STRANGER, BindingWish("viewer", "no-model")),
        member(STRANGER, BindingWish("admin", "plans")),
    ],
    ids=lambda wish: f"{wish.kind}:{wish.subject}:{wish.bindings[0].role}",
)
async def test_a_member_that_cannot_be_is_refused(office, wish):
    await model(office)
    await refused(office.members.add(caller(), wish), InvalidInputError)


async def test_names_of_this_machine_become_numbers(office):
    report = await office.members.add(caller(), member("daemon", kind="user"))
    assert report.member.kind is SubjectKind.UID
    assert report.member.subject.isdigit()
    assert report.member.name == "daemon"


async def test_a_model_of_others_cannot_be_bound_and_is_not_revealed(office):
    await model(office, "rival", "secret")
    words = [
        (
            await refused(
                office.members.add(caller("owner"), member(STRANGER, BindingWish("viewer", name))),
                InvalidInputError,
            )
        ).message
        for name in ("secret", "nothing")
    ]
    assert words[0] == words[1]


async def test_a_subject_is_a_member_of_an_organization_once_and_elsewhere_is_not_told(office):
    await office.members.add(caller("owner", "rival"), member())
    await office.members.add(caller("owner"), member())
    await refused(office.members.add(caller("owner"), member()), ConflictError)


@pytest.mark.parametrize("role", ["admin", "owner"])
async def test_nobody_binds_a_role_above_their_own(office, role):
    hr = frozenset({P.MEMBERS_MANAGE, P.MODELS_READ})
    await office.roles.create(caller(), RoleWish(name="hr", permissions=hr))
    clerk = office.own("hr")
    boss = await office.members.add(caller(), member("1234", BindingWish(role)))

    for work in (
        office.members.add(clerk, member(STRANGER, BindingWish(role))),
        office.members.change(clerk, boss.member.id, {"bindings": [BindingWish("hr")]}),
        office.members.remove(clerk, boss.member.id),
    ):
        await refused(work)
    assert office.directory.member(SubjectKind.UID, "1234", "company") == boss.member
    assert office.directory.member(SubjectKind.UID, STRANGER, "company") is None


async def test_an_owner_makes_no_administrator_of_the_appliance(office):
    owner = caller("owner")
    await refused(office.members.add(owner, member(STRANGER, BindingWish("admin"))))
    await refused(office.keys.create(owner, KeyRequest(name="k", role="admin")))
    key, _ = await office.keys.create(owner, KeyRequest(name="k", role="viewer"))
    await refused(office.keys.change(owner, key.id, {"role": "admin"}))
    wish = member(key.id, BindingWish("admin"), kind="key")
    await refused(office.members.add(owner, wish))
    assert office.directory.key(key.id).role == "viewer"


async def test_changed_roles_of_a_member_take_the_place_of_those_it_had(office):
    report = await office.members.add(caller("owner"), member())
    bindings = [BindingWish("invoker"), BindingWish("auditor"), BindingWish("invoker")]

    changed = await office.members.change(
        caller("owner"), report.member.id, {"name": "Ann", "bindings": bindings}
    )

    assert [binding.role for binding in changed.member.bindings] == ["invoker", "auditor"]
    assert office.directory.member(SubjectKind.UID, STRANGER, "company").name == "Ann"
    assert (await office.reloaded()).member(SubjectKind.UID, STRANGER, "company") == changed.member


async def test_members_of_others_are_not_there(office):
    theirs = await office.members.add(caller("owner", "rival"), member())
    owner = caller("owner")

    assert await office.members.page(owner, 20, 0) == ([], 0)
    for member_id in (theirs.member.id, "member_nobody"):
        await refused(office.members.remove(owner, member_id), NotFoundError)
        await refused(office.members.change(owner, member_id, {"name": "x"}), NotFoundError)


# Keys


async def key_caller(office, **wish):
    """Return a caller who is a new key, and its row."""
    request = KeyRequest(**{"name": "k", "role": "owner", **wish})
    key, text = await office.keys.create(caller(), request)
    return with_key(office.ring.identify(text, "10.0.0.1").principal), key


async def test_a_rotated_key_has_two_secrets_until_the_overlap_ends(office):
    key, old = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))

    rotated, new = await office.keys.rotate(caller(), key.id, 60.0)

    assert office.ring.identify(new).until is None
    assert office.ring.identify(old).until == rotated.previous_until
    assert old.split("_")[1] == new.split("_")[1]
    assert (await office.reloaded()).key(key.id) == rotated


async def test_a_rotation_without_overlap_ends_the_old_secret_at_once(office):
    key, old = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))

    _, new = await office.keys.rotate(caller(), key.id, 0.0)

    office.ring.identify(new)
    with pytest.raises(InvalidApiKeyError, match="not valid"):
        office.ring.identify(old)


async def test_nobody_gets_the_secret_of_a_key_that_may_more_than_they(office):
    hr = frozenset({P.KEYS_MANAGE})
    await office.roles.create(caller(), RoleWish(name="hr", permissions=hr))
    admin, _ = await office.keys.create(caller(), KeyRequest(name="a", role="admin"))
    owners, _ = await office.keys.create(caller(), KeyRequest(name="o", role="owner"))

    for who, key in ((caller("owner"), admin), (office.own("hr"), owners)):
        for work in (
            office.keys.rotate(who, key.id, 0.0),
            office.keys.change(who, key.id, {"name": "mine"}),
            office.keys.revoke(who, key.id),
        ):
            await refused(work)
        assert office.directory.key(key.id) == key


async def test_what_is_changed_of_a_key_counts_at_once(office):
    key, text = await office.keys.create(caller(), KeyRequest(name="k", role="owner"))

    changes = {"role": "viewer", "networks": ("10.0.0.0/8",), "models": ("custom_plans",)}
    await office.keys.change(caller(), key.id, changes)

    with pytest.raises(InvalidApiKeyError, match="address"):
        office.ring.identify(text, "192.0.2.1")
    principal = office.ring.identify(text, "10.1.1.1").principal
    assert (principal.role, principal.only_models) == ("viewer", {"custom_plans"})
    assert (await office.reloaded()).key(key.id) == office.directory.key(key.id)


async def test_a_key_is_expired_from_the_moment_that_its_time_is_shortened(office):
    key, text = await office.keys.create(caller(), KeyRequest(name="k", role="owner"))
    await office.keys.change(caller(), key.id, {"expires_at": time.time() - 1})
    with pytest.raises(InvalidApiKeyError, match="expired"):
        office.ring.identify(text)


@pytest.mark.parametrize("verb", ["change", "rotate"])
async def test_a_revoked_key_stays_so(office, verb):
    key, _ = await office.keys.create(caller(), KeyRequest(name="k", role="owner"))
    await office.keys.revoke(caller(), key.id)
    work = {
        "change": lambda: office.keys.change(caller(), key.id, {"name": "x"}),
        "rotate": lambda: office.keys.rotate(caller(), key.id, 60.0),
    }[verb]
    await refused(work(), ConflictError)


@pytest.mark.parametrize(
    ("held", "wish"),
    [
        ({"expires_in_seconds": 60.0}, {"expires_in_seconds": 600.0}),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("0.0.0.0/0",)}),
        ({"requests_per_minute": 1000}, {"requests_per_minute": 1001}),
        ({"requests_per_day": 1000}, {"requests_per_day": 1001}),
    ],
    ids=lambda value: next(iter(value)),
)
async def test_a_key_makes_none_that_is_held_to_less(office, held, wish):
    maker, own = await key_caller(office, **held)

    await refused(office.keys.create(maker, KeyRequest(name="n", role="viewer", **wish)))
    key, _ = await office.keys.create(maker, KeyRequest(name="n", role="viewer"))

    name = {"expires_in_seconds": "expires_at"}.get(next(iter(held)), next(iter(held)))
    assert getattr(key, name) == getattr(own, name)
    await refused(office.keys.change(maker, own.id, {name: None}))
    free, _ = await office.keys.create(caller(), KeyRequest(name="free", role="viewer"))
    await refused(office.keys.rotate(maker, free.id, 0.0))


async def test_a_key_that_is_held_to_models_makes_no_keys_at_all(office):
    maker, _ = await key_caller(office, models=("custom_plans",))
    await refused(office.keys.create(maker, KeyRequest(name="n", role="viewer")))


async def test_when_keys_were_used_is_shown_at_once_and_stored_when_flushed(office):
    key, text = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))
    office.ring.identify(text)

    shown = (await office.keys.get(caller(), key.id)).last_used_at
    assert shown is not None
    assert (await office.reloaded()).key(key.id).last_used_at is None
    await office.keys.flush_used()

    assert (await office.reloaded()).key(key.id).last_used_at == shown


async def test_a_revocation_counts_even_if_who_asked_for_it_is_gone(office):
    key, text = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))
    told = asyncio.Event()
    office.directory.on_change.append(told.set)

    asking = asyncio.create_task(office.keys.revoke(caller(), key.id))
    while not office.directory._under_way:  # noqa: ASYNC110 - until the write is handed over
        await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await told.wait()

    with pytest.raises(InvalidApiKeyError, match="revoked"):
        office.ring.identify(text)


async def test_organizations_that_are_there_need_no_write(office, monkeypatch):
    await ensure(office.database, ["company", "lab"])

    async def full(_):
        raise StorageFullError("The disk is full.")

    monkeypatch.setattr(office.database, "write", full)
    await ensure(office.database, ["company", "lab"])
    with pytest.raises(StorageFullError):
        await ensure(office.database, ["another"])


async def test_organizations_that_the_configuration_names_are_on_record_when_they_are_made(office):
    await ensure(office.database, ["company", "lab"])
    await ensure(office.database, ["company", "lab"])
    async with office.database.read() as tx:
        found = await audit.after(tx, 0, 100)
    made = [(r.principal, r.organization, r.subject) for r in found]
    assert made == [("prsmd", name, f"organization:{name}") for name in ("company", "rival", "lab")]
    assert {(r.action, r.outcome) for r in found} == {("organizations.create", "allowed")}
