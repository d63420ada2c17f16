"""Who is bounded hands out nothing that is bounded less: keys, members, roles, shares alike."""

import asyncio
import collections
import dataclasses
import functools
import time
from typing import Any

import pytest

from prsmd.core.delegation import excess
from prsmd.domain.access import Permission, SubjectKind
from prsmd.domain.deployment import Deployment
from prsmd.domain.errors import ConflictError, InvalidApiKeyError, PermissionDeniedError
from prsmd.domain.quota import UsageLimits
from prsmd.engine.recorder import Recorder
from prsmd.service.access import Peers
from prsmd.service.caller import Caller
from prsmd.service.keys import KeyRequest
from prsmd.service.members import BindingWish, MemberWish
from prsmd.service.registrar import Registrar
from prsmd.service.roles import Roles, RoleWish
from prsmd.service.shares import ShareRequest, Shares
from prsmd.service.underway import still_as_held
from prsmd.store import deployments
from prsmd.store.db import Database
from tests.service.identity import Office, caller, with_key

P = Permission
HELD: dict[str, dict[str, Any]] = {
    "ends": {"expires_in_seconds": 600.0},
    "is held to": {"networks": ("10.0.0.0/8",)},
    "requests per minute": {"requests_per_minute": 5000},
    "requests per day": {"requests_per_day": 5000},
}
BOUNDED = pytest.mark.parametrize("words", HELD)


@pytest.fixture
async def office(tmp_path):
    database = await Database.open(tmp_path / "state")
    made = await Office.open(database)
    model = Deployment(
        id="deploy_plans",
        organization="company",
        model_id="custom_plans",
        model_name="plans",
        revision=1,
        asked_replicas=0,
        created_at=1.0,
        updated_at=1.0,
    )
    await database.write(lambda tx: deployments.add(tx, model))
    yield made
    await database.close()


@pytest.fixture
def shares(office):
    return Shares(office.database, Recorder(office.database), office.lendings)


async def bounded(office: Office, **held: Any) -> Caller:
    request = KeyRequest(**{"name": "bounded", "role": "owner", **held})
    _, text = await office.keys.create(caller(), request)
    return with_key(office.ring.identify(text, "10.0.0.1").principal)


async def refused(work: Any) -> str:
    with pytest.raises(PermissionDeniedError) as refusal:
        await work
    return refusal.value.message


def lent(**changes: Any) -> ShareRequest:
    wish = {"organizations": frozenset({"rival"}), "permissions": frozenset({P.MODELS_READ})}
    return ShareRequest(**{**wish, **changes})


@BOUNDED
async def test_a_bounded_key_makes_no_member_who_is_not(office, words):
    maker = await bounded(office, **HELD[words])
    wish = MemberWish(kind="oidc", subject="ann", bindings=[BindingWish("viewer")])

    assert words in await refused(office.members.add(maker, wish))
    assert ("members.add", "member:oidc:ann", "denied") in await office.recorded()


async def test_a_key_that_ends_makes_members_who_end_no_later(office):
    maker = await bounded(office, expires_in_seconds=600.0)
    end = maker.principal.bounds.expires_at
    wish = MemberWish(kind="oidc", subject="ann", bindings=[BindingWish("viewer")], expires_at=end)
    made = (await office.members.add(maker, wish)).member

    assert made.expires_at == end
    later = await refused(office.members.change(maker, made.id, {"expires_at": end + 1}))
    assert "Your own key ends" in later
    free = await refused(office.members.change(maker, made.id, {"expires_at": None}))
    assert "Your own key ends" in free


@BOUNDED
async def test_a_bounded_key_gives_no_role_to_a_key_that_is_not(office, words):
    maker = await bounded(office, **HELD[words])
    free, _ = await office.keys.create(caller(), KeyRequest(name="free", role="invoker"))
    wish = MemberWish(kind="key", subject=free.id, bindings=[BindingWish("viewer")])
    assert words in await refused(office.members.add(maker, wish))

    own, _ = await office.keys.create(maker, KeyRequest(name="own", role="invoker"))
    wish = MemberWish(kind="key", subject=own.id, bindings=[BindingWish("viewer")])
    assert (await office.members.add(maker, wish)).member.subject == own.id


@BOUNDED
async def test_a_bounded_key_widens_no_role_that_somebody_has_who_is_not(office, words):
    maker = await bounded(office, **HELD[words])
    narrow = frozenset({P.MODELS_READ})
    await office.roles.create(maker, RoleWish(name="tuner", permissions=narrow))
    wider = RoleWish(name="tuner", permissions=narrow | {P.MODELS_SCALE})
    await office.keys.create(maker, KeyRequest(name="own", role="tuner"))
    await office.roles.change(maker, wider)
    await office.roles.change(maker, RoleWish(name="tuner", permissions=narrow))
    await office.members.add(
        caller(),
        MemberWish(
            kind="oidc", subject="ann", bindings=[BindingWish("tuner", "plans")],
            organization="company",
        ),
    )  # fmt: skip

    assert words in await refused(office.roles.change(maker, wider))
    assert office.directory.own_roles("company") == {"tuner": narrow}
    await office.roles.change(maker, RoleWish(name="tuner", permissions=frozenset()))


@BOUNDED
async def test_a_bounded_key_makes_no_role_that_a_rule_gives_to_whoever_comes(office, words):
    """Bearers of tokens are held to nothing, and known to nobody before they come."""
    maker = await bounded(office, **HELD[words])
    given = [("company", "tuner"), ("company", "ghost"), ("rival", "free")]
    roles = Roles(Registrar(office.database, office.directory), lambda: given)
    narrow, wider = frozenset({P.MODELS_READ}), frozenset({P.MODELS_READ, P.MODELS_SCALE})
    await roles.create(caller(), RoleWish(name="tuner", permissions=narrow))

    assert words in await refused(roles.change(maker, RoleWish(name="tuner", permissions=wider)))
    assert words in await refused(roles.create(maker, RoleWish(name="ghost", permissions=narrow)))
    assert office.directory.own_roles("company") == {"tuner": narrow}
    await roles.create(maker, RoleWish(name="free", permissions=narrow))
    await roles.change(maker, RoleWish(name="tuner", permissions=frozenset()))
    with pytest.raises(ConflictError, match=r"held by a rule of the settings"):
        await roles.remove(caller(), "tuner", None)


TIGHTER = {
    "an end": {"expires_at": 4e9},
    "networks": {"networks": ("10.0.0.0/8",)},
    "a rate": {"requests_per_minute": 5},
    "a quota": {"requests_per_day": 5},
}


@pytest.mark.parametrize("tighter", TIGHTER)
async def test_what_a_key_is_held_to_meanwhile_holds_what_it_asked_for_before(office, tighter):
    key, text = await office.keys.create(caller(), KeyRequest(name="k", role="owner"))
    identified = office.ring.identify(text, "10.0.0.1")
    asked = dataclasses.replace(
        with_key(identified.principal),
        require_still=functools.partial(still_as_held, identified),
    )
    await office.keys.create(asked, KeyRequest(name="before", role="owner"))
    await office.keys.change(caller(), key.id, TIGHTER[tighter])

    with pytest.raises(InvalidApiKeyError, match="You hold less now"):
        await office.keys.create(asked, KeyRequest(name="after", role="owner"))


class Counting(Registrar):
    """Notes in which turn of the loop each gift is looked at."""

    turn = 0
    seen: list[int]

    async def count(self) -> None:
        while True:
            self.turn += 1
            await asyncio.sleep(0)

    def refuse_excess(self, *given: Any) -> None:
        self.seen.append(self.turn)
        super().refuse_excess(*given)


async def test_others_get_their_turn_while_all_who_have_a_role_are_looked_at(office):
    maker = await bounded(office, networks=("10.0.0.0/8",))
    narrow = frozenset({P.MODELS_READ})
    await office.roles.create(maker, RoleWish(name="tuner", permissions=narrow))
    for number in range(40):
        networks = (f"10.{number}.0.0/16",)
        await office.keys.create(maker, KeyRequest(name="k", role="tuner", networks=networks))
    registrar = Counting(office.database, office.directory)
    registrar.seen = []
    counting = asyncio.create_task(registrar.count())

    wider = RoleWish(name="tuner", permissions=narrow | {P.MODELS_SCALE})
    await Roles(registrar).change(maker, wider)

    counting.cancel()
    assert len(registrar.seen) == 40
    assert max(collections.Counter(registrar.seen).values()) <= 5


@BOUNDED
async def test_a_role_that_only_a_key_that_was_revoked_has_is_widened(office, words):
    maker = await bounded(office, **HELD[words])
    await office.roles.create(maker, RoleWish(name="tuner"))
    gone, _ = await office.keys.create(caller(), KeyRequest(name="gone", role="tuner"))
    wish = MemberWish(kind="key", subject=gone.id, bindings=[BindingWish("tuner")])
    await office.members.add(caller(), wish)
    await office.keys.revoke(caller(), gone.id)

    wider = RoleWish(name="tuner", permissions=frozenset({P.MODELS_SCALE}))
    assert (await office.roles.change(maker, wider)).permissions == wider.permissions


@BOUNDED
async def test_a_bounded_key_lends_nothing_beyond_its_bounds_and_may_take_back(
    office, shares, words
):
    maker = await bounded(office, **HELD[words])
    theirs = await shares.create(caller(), "plans", lent())

    assert words in await refused(shares.create(maker, "plans", lent(keys=frozenset({"k" * 10}))))
    share_id = theirs.share.id
    for changes in (
        {"permissions": frozenset({P.MODELS_READ, P.MODELS_INFER})},
        {"organizations": frozenset({"rival", "third"})},
    ):
        assert words in await refused(shares.change(maker, "plans", share_id, changes))
    await shares.change(maker, "plans", share_id, {"limits": {"concurrent_requests": 1}})
    await shares.change(maker, "plans", share_id, {"expires_at": time.time() + 60})
    assert words in await refused(shares.change(maker, "plans", share_id, {"expires_at": None}))
    await shares.revoke(maker, "plans", share_id)


async def test_a_bounded_key_lends_within_its_bounds(office, shares):
    maker = await bounded(office, expires_in_seconds=600.0, requests_per_day=5)
    within = lent(expires_at=time.time() + 60, limits=UsageLimits(requests_per_day=5))
    assert (await shares.create(maker, "plans", within)).share.limits.requests_per_day == 5


async def test_nobody_lends_a_model_for_what_they_may_not_do_with_it(office, shares):
    granted = frozenset({P.MODELS_SHARE, P.MODELS_READ})
    await office.roles.create(caller(), RoleWish(name="clerk", permissions=granted))
    wish = lent(permissions=frozenset({P.MODELS_READ, P.MODELS_INFER}))
    assert "models.infer" in await refused(shares.create(office.own("clerk"), "plans", wish))
    [(action, subject, outcome), *_] = await office.recorded()
    assert (action, subject, outcome) == ("models.share", "deploy_plans", "denied")


async def test_a_bounded_key_extends_and_frees_no_key_but_narrows_and_revokes_any(office):
    maker = await bounded(office, expires_in_seconds=600.0)
    free, _ = await office.keys.create(caller(), KeyRequest(name="free", role="deployer"))
    wish = KeyRequest(name="short", role="deployer", expires_in_seconds=60.0)
    short, _ = await office.keys.create(caller(), wish)

    for key, changes in (
        (free, {"role": "owner"}),
        (short, {"expires_at": None}),
        (short, {"expires_at": time.time() + 6000}),
    ):
        assert "Your own key ends" in await refused(office.keys.change(maker, key.id, changes))
    await office.keys.change(maker, short.id, {"expires_at": time.time() + 300})
    await office.keys.change(maker, free.id, {"name": "renamed"})
    await office.keys.change(maker, free.id, {"role": "viewer"})
    await office.keys.revoke(maker, free.id)


async def test_a_secret_that_was_rotated_away_gives_nothing_beyond_its_end(office):
    key, old = await office.keys.create(caller(), KeyRequest(name="k", role="owner"))
    rotated, _ = await office.keys.rotate(caller(), key.id, 60.0)
    late = with_key(office.ring.identify(old).principal)

    made, _ = await office.keys.create(late, KeyRequest(name="n", role="owner"))
    assert made.expires_at == rotated.previous_until
    assert "Your own key ends" in await refused(office.keys.rotate(late, key.id, 60.0))


async def test_whatever_keys_make_in_chains_stays_within_what_the_first_may(office):
    root = await bounded(office, expires_in_seconds=600.0, networks=("10.0.0.0/8",))
    last = root
    for wish in (
        {},
        {"networks": ("10.1.0.0/16",)},
        {"expires_in_seconds": 300.0},
        {"requests_per_day": 9000},
        {},
    ):
        _, text = await office.keys.create(last, KeyRequest(name="n", role="owner", **wish))
        last = with_key(office.ring.identify(text, "10.1.0.1").principal)
        assert excess(root.principal, last.principal) is None
    for field in ("expires_at", "networks", "requests_per_day"):
        key_id = last.principal.key_id
        await refused(office.keys.change(last, key_id, {field: None}))


async def temporary(office: Office, *more: MemberWish) -> Caller:
    """A user whose membership as an owner ends, and who has `more` memberships beside it."""
    end = time.time() + 600
    owner = [BindingWish("owner")]
    wish = MemberWish(kind="uid", subject="4711", bindings=owner, expires_at=end)
    for each in (wish, *more):
        await office.members.add(caller(), each)
    return with_key(Peers("company", (), office.directory).principal(4711, 4712))


async def test_a_membership_that_ends_gives_nothing_for_longer(office, shares):
    giver = await temporary(office)
    end = giver.principal.bounds.expires_at
    [own] = office.directory.memberships(SubjectKind.UID, "4711")
    assert end == own.expires_at
    viewer = [BindingWish("viewer")]

    for work in (
        office.members.change(giver, own.id, {"expires_at": None}),
        office.members.change(giver, own.id, {"expires_at": end + 1}),
        office.members.add(giver, MemberWish(kind="oidc", subject="ann", bindings=viewer)),
        office.keys.create(giver, KeyRequest(name="x", role="viewer", expires_in_seconds=9999.0)),
        shares.create(giver, "plans", lent()),
    ):
        assert "Your own membership ends" in await refused(work)
    key, _ = await office.keys.create(giver, KeyRequest(name="x", role="owner"))
    assert key.expires_at == end
    narrow = RoleWish(name="tuner", permissions=frozenset({P.MODELS_READ}))
    await office.roles.create(giver, narrow)


async def test_a_membership_that_ends_bounds_nothing_that_another_one_allows(office):
    group = MemberWish(kind="gid", subject="4712", bindings=[BindingWish("owner")])
    giver = await temporary(office, group)

    assert giver.principal.bounds.expires_at is None
    key, _ = await office.keys.create(giver, KeyRequest(name="x", role="owner"))
    assert key.expires_at is None


async def test_who_keeps_less_when_a_membership_ends_gives_nothing_for_longer(office):
    group = MemberWish(kind="gid", subject="4712", bindings=[BindingWish("viewer")])
    giver = await temporary(office, group)

    made = await office.keys.create(giver, KeyRequest(name="x", role="viewer"))
    assert made[0].expires_at == giver.principal.bounds.expires_at is not None
