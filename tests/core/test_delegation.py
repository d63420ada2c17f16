"""Nobody gives more than they hold: what is given, by whom, in which respect it would be more."""

import dataclasses
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prsmd.core.delegation import Respect, excess, excess_of_change, held_to, lent
from prsmd.core.networks import allows
from prsmd.core.permit import Allow, permit
from prsmd.domain.access import ROLES, Bounds, ModelRef, Permission, Principal
from prsmd.domain.quota import Share, UsageLimits

P = Permission
MODELS = (ModelRef("deploy_1", "custom_one", "one"), ModelRef("deploy_2", "custom_two", "two"))
LOOKED_AT = (P.MODELS_READ, P.MODELS_SHARE, P.MODELS_DEPLOY, P.KEYS_MANAGE, P.NODE_MANAGE)
ADDRESSES = ("10.1.0.1", "10.2.0.1", "192.0.2.1", "fd00::1", None)
MOMENTS = (0.0, 10.0, 20.0, 30.0, 1e12)


def principal(*permissions: Permission, **changes) -> Principal:
    values = {"id": "key:1", "organization": "acme", "role": "own"}
    return Principal(**{**values, "permissions": frozenset(permissions), **changes})


def bounded(**bounds) -> Principal:
    return principal(P.MODELS_READ, bounds=Bounds(**bounds))


@pytest.mark.parametrize(
    ("held", "wished", "respect"),
    [
        ({}, {}, None),
        ({}, {"expires_at": 5.0, "networks": ("10.0.0.0/8",), "requests_per_day": 1}, None),
        ({"expires_at": 5.0}, {"expires_at": 5.0}, None),
        ({"expires_at": 5.0}, {}, "expires_at"),
        ({"expires_at": 5.0}, {"expires_at": 6.0}, "expires_at"),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.1.0.0/16",)}, None),
        ({"networks": ("10.0.0.0/8",)}, {}, "networks"),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("10.0.0.0/8", "fd00::/8")}, "networks"),
        ({"networks": ("10.0.0.0/8",)}, {"networks": ("0.0.0.0/0",)}, "networks"),
        ({"requests_per_minute": 5}, {}, "requests_per_minute"),
        ({"requests_per_minute": 5}, {"requests_per_minute": 6}, "requests_per_minute"),
        ({"requests_per_day": 5}, {"requests_per_day": 5}, None),
        ({"requests_per_day": 5}, {"requests_per_day": 6}, "requests_per_day"),
    ],
)
def test_a_bound_that_a_gift_goes_beyond_is_named(held, wished, respect):
    assert excess(bounded(**held), bounded(**wished)) == respect


def test_a_bound_that_exists_is_looked_at():
    for field in dataclasses.fields(Bounds):
        value = ("10.0.0.0/8",) if field.name == "networks" else 5
        assert excess(bounded(**{field.name: value}), bounded()) == field.name


def test_permissions_go_before_bounds():
    giver = bounded(expires_at=5.0)
    assert excess(giver, principal(P.MODELS_SCALE)) is Respect.PERMISSIONS


def test_a_change_that_only_takes_gives_nothing_whatever_its_maker_is_held_to():
    giver = bounded(expires_at=5.0, networks=("10.0.0.0/8",))
    known = principal(P.MODELS_READ, P.MODELS_SCALE)

    assert excess_of_change(giver, known, principal(P.MODELS_READ)) is None
    assert excess_of_change(giver, known, known) is None
    ended = dataclasses.replace(known, bounds=Bounds(expires_at=900.0))
    assert excess_of_change(giver, known, ended) is None


def test_a_change_that_gives_anything_gives_all_that_there_is_afterwards():
    giver = bounded(expires_at=5.0)
    known = principal(bounds=Bounds(expires_at=9.0))
    more = dataclasses.replace(known, permissions=frozenset({P.MODELS_READ}))

    assert excess_of_change(giver, known, more) is Respect.EXPIRES_AT
    within = dataclasses.replace(more, bounds=Bounds(expires_at=5.0))
    assert excess_of_change(giver, known, within) is None


def test_what_is_not_wished_is_inherited():
    own = Bounds(expires_at=3.0, requests_per_day=1)
    more = Bounds(expires_at=5.0, networks=("10.0.0.0/8",))
    assert held_to(own, more) == Bounds(
        expires_at=3.0, networks=("10.0.0.0/8",), requests_per_day=1
    )


def share(*permissions: Permission, **changes) -> Share:
    values = {"id": "share_1", "deployment_id": "deploy_1", "organization": "acme"}
    return Share(
        **{**values, "organizations": frozenset({"third"}), **changes},
        permissions=frozenset(permissions),
    )


def test_nobody_lends_for_what_they_may_not_do_with_the_model_themselves():
    clerk = principal(P.MODELS_SHARE, P.MODELS_READ)
    bound = principal(on_models={"deploy_1": frozenset({P.MODELS_SHARE, P.MODELS_INFER})})
    for giver, permission, respect in (
        (clerk, P.MODELS_READ, None),
        (clerk, P.MODELS_INFER, Respect.PERMISSIONS),
        (bound, P.MODELS_INFER, None),
        (bound, P.MODELS_READ, Respect.PERMISSIONS),
    ):
        assert excess(giver, lent(share(permission), MODELS[0], giver)) is respect


@pytest.mark.parametrize("name", ["deploy_1", "custom_one", "one", "custom_two"])
def test_who_is_held_to_models_lends_those_and_no_others(name: str):
    giver = principal(P.MODELS_SHARE, P.MODELS_READ, only_models=frozenset({name}))
    found = excess(giver, lent(share(P.MODELS_READ), MODELS[0], giver))
    assert found is (Respect.PERMISSIONS if name == "custom_two" else None)


def test_a_share_lasts_no_longer_and_gives_no_faster_pace_than_its_giver_has():
    giver = bounded(expires_at=50.0, requests_per_minute=5)
    limits = UsageLimits(requests_per_minute=5)
    for changes, respect in (
        ({"expires_at": 50.0, "limits": limits}, None),
        ({"expires_at": 51.0, "limits": limits}, Respect.EXPIRES_AT),
        ({"limits": limits}, Respect.EXPIRES_AT),
        ({"expires_at": 50.0}, Respect.REQUESTS_PER_MINUTE),
    ):
        gift = lent(share(P.MODELS_READ, **changes), MODELS[0], giver)
        assert excess(giver, gift) is respect
    walled = bounded(networks=("10.0.0.0/8",))
    gift = lent(share(P.MODELS_READ), MODELS[0], walled)
    assert excess(walled, gift) is Respect.NETWORKS


# Chains: whatever is given on by whom it was given to, the first of them could do it all


_GRANTED = st.frozensets(
    st.sampled_from([P.MODELS_READ, P.MODELS_SHARE, P.MEMBERS_MANAGE, P.KEYS_MANAGE])
)
_BOUNDS = st.builds(
    Bounds,
    expires_at=st.none() | st.sampled_from([10.0, 20.0, 30.0]),
    networks=st.none()
    | st.lists(
        st.sampled_from(["10.0.0.0/8", "10.1.0.0/16", "fd00::/8", "0.0.0.0/0", "127.0.0.0/8"]),
        min_size=1,
        max_size=2,
    ).map(tuple),
    requests_per_minute=st.none() | st.sampled_from([1, 2]),
    requests_per_day=st.none() | st.sampled_from([1, 2]),
)


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    return Principal(
        id=f"key:{draw(st.integers(0, 3))}",
        organization=draw(st.sampled_from(["acme", "acme", "acme", "rival"])),
        role=draw(st.sampled_from(["own", "own", "own", "admin"])),
        permissions=draw(_GRANTED | st.just(ROLES["owner"])),
        on_models=draw(st.dictionaries(st.sampled_from(["deploy_1", "deploy_2"]), _GRANTED)),
        only_models=draw(st.none() | st.frozensets(st.sampled_from(["custom_one", "custom_two"]))),
        bounds=draw(_BOUNDS),
    )


def powers(one: Principal) -> set[tuple]:
    """Return all that one may do: which permission, on what, from where, when."""
    bounds = one.bounds
    allowed = [
        asked
        for asked in itertools.product(LOOKED_AT, ("acme", "rival"), (*MODELS, None))
        if isinstance(permit(one, *asked), Allow)
    ]
    where = [a for a in ADDRESSES if bounds.networks is None or allows(bounds.networks, a)]
    when = [at for at in MOMENTS if bounds.expires_at is None or at < bounds.expires_at]
    return set(itertools.product(allowed, where, when))


@settings(deadline=None)
@given(root=principals(), wished=st.lists(st.tuples(st.integers(0, 9), principals()), max_size=8))
def test_no_chain_of_gifts_ends_with_somebody_who_may_what_its_root_could_not(root, wished):
    chain = [root]
    for by, gift in wished:
        if excess(chain[by % len(chain)], gift) is None:
            chain.append(gift)
    could = powers(root)
    assert all(powers(each) <= could for each in chain)
    for pace in ("requests_per_minute", "requests_per_day"):
        if (most := getattr(root.bounds, pace)) is not None:
            assert all((getattr(one.bounds, pace) or 99) <= most for one in chain)


@settings(deadline=None)
@given(
    roots=st.lists(principals(), min_size=2, max_size=2),
    changes=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9), principals()), max_size=8),
)
def test_no_chain_of_changes_yields_what_none_of_its_roots_could(roots, changes):
    everybody = list(roots)
    for by, whom, after in changes:
        giver, at = everybody[by % len(everybody)], whom % len(everybody)
        if excess_of_change(giver, everybody[at], after) is None:
            everybody[at] = after
    could = [powers(root) for root in roots]
    assert all(any(powers(each) <= one for one in could) for each in everybody)


@given(principals())
def test_everybody_may_give_what_they_are(one: Principal):
    assert excess(one, one) is None
