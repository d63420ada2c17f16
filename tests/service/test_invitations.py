"""Nobody is claimed: whom no administrator places decides for themselves, and says for whom."""

import dataclasses
import os
import time

import pytest

from prsmd.domain.access import Principal, SubjectKind
from prsmd.domain.errors import (
    ConflictError,
    InvalidApiKeyError,
    InvalidInputError,
    NotFoundError,
    PermissionDeniedError,
)
from prsmd.service.access import PeerRule, Peers
from prsmd.service.belonging import ActingFor, AmbiguousOrganizationError, Needs
from prsmd.service.caller import Caller
from prsmd.service.keys import KeyRequest
from prsmd.service.members import BindingWish, MemberWish
from prsmd.service.organizations import OrganizationChange
from prsmd.store import members
from prsmd.store.db import Database
from tests.service.identity import Office, caller

ALICE = 54_321
IDENTITY = ActingFor(None, Needs.IDENTITY)


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    yield await Office.open(database)
    await database.close()


def wish(subject: object = ALICE, kind: str = "uid", role: str = "viewer", **changes) -> MemberWish:
    return MemberWish(kind=kind, subject=str(subject), bindings=[BindingWish(role)], **changes)


def peers(office: Office, *rules: PeerRule) -> Peers:
    return Peers("company", rules, office.directory)


def herself(office: Office, uid: int = ALICE) -> Caller:
    return Caller(peers(office).identify(uid, uid, IDENTITY).principal, "req_1")


async def refused(work, error=PermissionDeniedError):
    with pytest.raises(error) as refusal:
        await work
    return refusal.value


@pytest.mark.parametrize(("kind", "subject"), [("uid", ALICE), ("oidc", "alice@company")])
async def test_an_owner_only_invites_and_that_has_no_effect(office, kind, subject):
    report = await office.members.add(caller("owner"), wish(subject, kind))

    assert report.member.accepted_at is None
    kept = (await office.reloaded()).member(SubjectKind(kind), str(subject), "company")
    assert kept == report.member
    if kind == "uid":
        with pytest.raises(InvalidApiKeyError, match="has no role"):
            peers(office).identify(ALICE, ALICE)


async def test_who_was_invited_accepts_and_nobody_else_does(office):
    report = await office.members.add(caller("owner"), wish(role="operator"))
    member_id = report.member.id
    for other in (
        caller(),
        caller("owner"),
        Caller(Principal(id="key:54321", organization="company", role="x",
                         permissions=frozenset()), "req_1"),
    ):  # fmt: skip
        refusal = await refused(office.members.accept(other, member_id), NotFoundError)
        unknown = await refused(office.members.accept(other, "member_none"), NotFoundError)
        assert refusal.message == unknown.message.replace("member_none", member_id)

    assert (await office.recorded())[0] == ("members.accept", "member:member_none", "denied")
    alice = herself(office)
    assert alice.principal.permissions == frozenset()
    accepted = await office.members.accept(alice, member_id)
    again = await office.members.accept(alice, member_id)

    assert accepted.member.accepted_at is not None
    assert again.member == accepted.member
    found = peers(office).identify(ALICE, ALICE).principal
    assert (found.organization, found.role) == ("company", "operator")
    told = [each for each in await office.recorded() if each[0] == "members.accept"]
    assert told.count(("members.accept", f"member:{member_id}", "allowed")) == 1


async def test_a_group_is_placed_by_administrators_only(office):
    refusal = await refused(office.members.add(caller("owner"), wish(kind="gid")))
    assert "cannot be asked for its consent" in refusal.message
    await office.members.add(caller(), wish(kind="gid", organization="company"))
    assert peers(office).identify(ALICE + 1, ALICE).principal.organization == "company"


@pytest.mark.parametrize("uid", [0, os.geteuid()])
@pytest.mark.parametrize("who", ["owner", "admin"])
async def test_root_and_the_daemons_own_user_are_nobodys(office, uid, who):
    await refused(office.members.add(caller(who), wish(uid)), InvalidInputError)


async def test_keys_are_members_of_their_own_organization_at_once_and_of_no_other(office):
    key, _ = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))
    report = await office.members.add(caller("owner"), wish(key.id, "key"))
    assert report.member.accepted_at is not None
    await refused(office.members.add(caller("owner", "rival"), wish(key.id, "key")),
                  InvalidInputError)  # fmt: skip


async def alice_in_both(office: Office) -> list[str]:
    made = []
    for organization, role in (("company", "operator"), ("rival", "viewer")):
        added = await office.members.add(caller(), wish(role=role, organization=organization))
        made.append(added.member.id)
    return made


async def test_who_belongs_to_several_says_for_which(office):
    await alice_in_both(office)
    with pytest.raises(AmbiguousOrganizationError, match="company, rival") as refusal:
        peers(office).identify(ALICE, ALICE)
    assert refusal.value.details["organizations"] == ["company", "rival"]

    for name, role in (("company", "operator"), ("rival", "viewer")):
        found = peers(office).identify(ALICE, ALICE, ActingFor(name))
        assert (found.principal.organization, found.principal.role) == (name, role)
        assert found.again().principal == found.principal


async def test_an_organization_that_one_does_not_belong_to_cannot_be_named(office):
    await office.members.add(caller(), wish(organization="company"))
    await office.members.add(caller("owner", "rival"), wish())
    for name in ("rival", "nowhere"):
        with pytest.raises(PermissionDeniedError, match="you belong to company"):
            peers(office).identify(ALICE, ALICE, ActingFor(name))


async def test_administrators_act_for_every_organization_and_keys_for_their_own(office):
    found = peers(office).identify(0, 0, ActingFor("rival")).principal
    assert (found.organization, found.appliance_wide) == ("rival", True)
    with pytest.raises(InvalidInputError, match="not an organization here"):
        peers(office).identify(0, 0, ActingFor("nowhere"))
    for role, error in (("owner", PermissionDeniedError), ("admin", None)):
        _, text = await office.keys.create(caller(), KeyRequest(name="k", role=role))
        office.ring.identify(text, None, ActingFor("company"))
        if error is None:
            acting = office.ring.identify(text, None, ActingFor("rival")).principal
            assert acting.organization == "rival"
        else:
            with pytest.raises(error):
                office.ring.identify(text, None, ActingFor("rival"))


async def test_what_others_do_does_not_move_who_acts_somewhere(office):
    first = await office.members.add(caller(), wish(role="operator", organization="company"))
    where = peers(office, PeerRule(organization="lab", role="viewer", uid=ALICE + 1))
    began = where.identify(ALICE, ALICE)

    await office.members.add(caller("owner", "rival"), wish(role="owner"))
    assert where.identify(ALICE, ALICE).principal == began.principal
    await office.members.add(caller(), wish(kind="gid", role="owner", organization="rival"))
    assert where.identify(ALICE, ALICE).principal == began.principal

    await office.members.remove(caller(), first.member.id)
    with pytest.raises(PermissionDeniedError):
        began.again()


async def test_what_was_begun_goes_on_where_it_was_after_one_more_membership(office):
    await office.members.add(caller(), wish(organization="company"))
    began = peers(office).identify(ALICE, ALICE)
    await office.members.add(caller(), wish(organization="rival"))
    assert began.again().principal == began.principal


async def test_a_disabled_organization_moves_nobody_to_another_one(office):
    await alice_in_both(office)
    await office.organizations.change(caller(), "rival", OrganizationChange(disabled=True))
    with pytest.raises(AmbiguousOrganizationError):
        peers(office).identify(ALICE, ALICE)
    with pytest.raises(InvalidApiKeyError, match="disabled"):
        peers(office).identify(ALICE, ALICE, ActingFor("rival"))


async def test_a_removed_organization_takes_its_invitations_along(office):
    report = await office.members.add(caller("owner", "rival"), wish())
    alice = herself(office)
    await office.organizations.remove(caller(), "rival")
    await refused(office.members.accept(alice, report.member.id), NotFoundError)
    for directory in (office.directory, await office.reloaded()):
        assert directory.memberships(SubjectKind.UID, str(ALICE)) == ()


async def test_an_invitation_of_a_disabled_organization_is_not_accepted(office):
    report = await office.members.add(caller("owner", "rival"), wish())
    alice = herself(office)
    await office.organizations.change(caller(), "rival", OrganizationChange(disabled=True))
    await refused(office.members.accept(alice, report.member.id), InvalidApiKeyError)


async def test_one_leaves_what_one_was_made_or_asked_to_be(office):
    ids = await alice_in_both(office)
    assert len(ids) == 2
    bob = await office.members.add(caller("owner"), wish(ALICE + 1))
    await refused(office.members.leave(caller("owner"), ids[0]), NotFoundError)
    await office.members.leave(herself(office), ids[1])
    assert peers(office).identify(ALICE, ALICE).principal.organization == "company"
    await office.members.leave(herself(office, ALICE + 1), bob.member.id)
    found, _ = await office.members.page(caller(), 20, 0)
    assert bob.member not in [each.member for each in found]


async def test_a_membership_ends_and_so_does_what_it_began(office):
    end = time.time() + 600
    report = await office.members.add(caller(), wish(organization="company", expires_at=end))
    assert peers(office).identify(ALICE, ALICE).until == end

    gone = dataclasses.replace(report.member, expires_at=time.time() - 1)
    office.directory.put_member(gone)
    with pytest.raises(InvalidApiKeyError, match="has no role"):
        peers(office).identify(ALICE, ALICE)


@pytest.mark.parametrize(("kind", "ends"), [("oidc", -1.0), ("key", 600.0)])
async def test_a_membership_has_no_end_that_passed_and_a_key_only_its_own(office, kind, ends):
    key, _ = await office.keys.create(caller(), KeyRequest(name="k", role="viewer"))
    subject = key.id if kind == "key" else "ann"
    end = time.time() + ends
    await refused(office.members.add(caller(), wish(subject, kind, expires_at=end)),
                  InvalidInputError)  # fmt: skip


async def test_an_ended_invitation_is_not_accepted(office):
    report = await office.members.add(caller("owner"), wish(expires_at=time.time() + 600))
    alice, ended = herself(office), time.time() - 1
    await office.database.write(
        lambda tx: tx.execute_fetchall("UPDATE members SET expires_at = ?", (ended,))
    )
    await refused(office.members.accept(alice, report.member.id), ConflictError)


@pytest.mark.parametrize("later", [None, 9e9])
async def test_a_membership_that_has_ended_goes_on_only_with_new_consent(office, later):
    ends = wish(expires_at=time.time() + 600)
    member = (await office.members.add(caller("owner", "rival"), ends)).member
    await office.members.accept(herself(office), member.id)
    await ended(office, member.id)

    changed = await office.members.change(
        caller("owner", "rival"), member.id, {"expires_at": later}
    )

    assert changed.member.accepted_at is None
    with pytest.raises(InvalidApiKeyError):
        peers(office).identify(ALICE, ALICE)
    await office.members.accept(herself(office), member.id)
    assert peers(office).identify(ALICE, ALICE).principal.organization == "rival"


async def test_a_membership_that_goes_on_may_go_on_longer(office):
    ends = wish(expires_at=time.time() + 600)
    member = (await office.members.add(caller("owner", "rival"), ends)).member
    await office.members.accept(herself(office), member.id)

    for change in ({"expires_at": None}, {"expires_at": time.time() + 60}, {"name": "Alice"}):
        changed = await office.members.change(caller("owner", "rival"), member.id, change)
        assert changed.member.accepted_at is not None


async def test_only_an_administrator_has_a_group_go_on_longer(office):
    ends = wish(kind="gid", organization="rival", expires_at=time.time() + 600)
    member = (await office.members.add(caller(), ends)).member
    owner = caller("owner", "rival")

    await office.members.change(owner, member.id, {"expires_at": time.time() + 60})
    for later in (None, time.time() + 900):
        error = await refused(office.members.change(owner, member.id, {"expires_at": later}))
        assert "A group cannot be asked" in error.message
    assert (
        await office.members.change(caller(), member.id, {"expires_at": None})
    ).member.accepted_at is not None


async def ended(office: Office, member_id: str) -> None:
    """Let a membership have ended a minute ago."""

    async def write(tx):
        await tx.execute_fetchall(
            "UPDATE members SET expires_at = ? WHERE id = ?", (time.time() - 60, member_id)
        )
        return await members.get(tx, member_id)

    office.directory.put_member(await office.database.write(write))
