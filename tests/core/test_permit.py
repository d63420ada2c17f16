"""What each role may do at home, and that of others only what is shared exists."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.permit import Allow, Deny, Via, covers, permit, possible
from prsmd.domain.access import (
    ON_ONE_MODEL,
    PERMISSIONS,
    ROLES,
    ModelRef,
    Permission,
    Principal,
    Scope,
)
from prsmd.domain.quota import Share

P = Permission
EXPECTED = {
    # permission: the roles that may
    P.MODELS_READ: {"admin", "owner", "deployer", "operator", "viewer", "invoker", "auditor"},
    P.MODELS_INFER: {"admin", "owner", "deployer", "invoker"},
    P.MODELS_DEPLOY: {"admin", "owner", "deployer"},
    P.MODELS_UPDATE: {"admin", "owner", "deployer", "operator"},
    P.MODELS_SCALE: {"admin", "owner", "deployer", "operator"},
    P.MODELS_SHARE: {"admin", "owner"},
    P.MODELS_DELETE: {"admin", "owner", "deployer"},
    P.LOGS_READ: {"admin", "owner", "deployer", "operator"},
    P.USAGE_READ: {"admin", "owner", "deployer", "operator", "viewer", "auditor"},
    P.AUDIT_READ: {"admin", "owner", "auditor"},
    P.KEYS_MANAGE: {"admin", "owner"},
    P.MEMBERS_MANAGE: {"admin", "owner"},
    P.SECRETS_MANAGE: {"admin", "owner"},
    P.NODE_READ: {"admin", "owner", "deployer", "operator"},
    P.NODE_MANAGE: {"admin"},
}


def someone(role: str, organization: str = "acme") -> Principal:
    return Principal(id="key_1", organization=organization, role=role, permissions=ROLES[role])


def test_the_table_of_this_test_covers_every_permission():
    assert set(EXPECTED) == set(Permission)


@pytest.mark.parametrize("role", ROLES)
@pytest.mark.parametrize("permission", Permission)
def test_a_role_may_exactly_what_the_table_says_at_home(role: str, permission: Permission):
    verdict = permit(someone(role), permission, "acme")
    assert isinstance(verdict, Allow) == (role in EXPECTED[permission])


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"admin"}))
@pytest.mark.parametrize("permission", Permission)
def test_nothing_of_another_organization_exists(role: str, permission: Permission):
    verdict = permit(someone(role), permission, "rival")
    assert isinstance(verdict, Deny)
    assert verdict.hidden


@pytest.mark.parametrize("permission", Permission)
def test_the_appliance_administrator_sees_every_organization(permission: Permission):
    assert permit(someone("admin"), permission, "rival") == Allow(Via.APPLIANCE)


def test_a_denial_names_what_is_required_and_what_is_there():
    assert permit(someone("invoker"), P.MODELS_SCALE, "acme") == Deny(
        reason="role invoker does not have models.scale",
        hidden=False,
        required_permissions=("models.scale",),
        current_permissions=("models.infer", "models.read"),
    )


def test_a_hidden_denial_says_for_the_audit_log_whose_it_is():
    verdict = permit(someone("owner"), P.MODELS_READ, "rival")
    assert isinstance(verdict, Deny)
    assert verdict.reason == "it belongs to organization rival, not to acme"


def test_the_appliance_itself_belongs_to_nobody_and_needs_only_the_permission():
    assert permit(someone("operator"), P.NODE_READ, None) == Allow()
    verdict = permit(someone("operator"), P.NODE_MANAGE, None)
    assert isinstance(verdict, Deny)
    assert not verdict.hidden


@given(
    permissions=st.frozensets(st.sampled_from(Permission)),
    permission=st.sampled_from(Permission),
    home=st.sampled_from(["a", "b", "A"]),
    owner=st.sampled_from(["a", "b", "A"]),
)
def test_any_set_of_permissions_counts_at_home_and_nowhere_else(
    permissions: frozenset[Permission], permission: Permission, home: str, owner: str
):
    principal = Principal(id="k", organization=home, role="custom", permissions=permissions)
    allowed = isinstance(permit(principal, permission, owner), Allow)
    assert allowed == (home == owner and permission in permissions)


MODEL = ModelRef("deploy_1", "custom_legal", "legal")
OTHER = ModelRef("deploy_2", "custom_other", "other")


def share(*permissions: Permission, organizations=("acme",), keys=()) -> Share:
    return Share(
        id="share_1",
        deployment_id="deploy_1",
        organization="rival",
        organizations=frozenset(organizations),
        keys=frozenset(keys),
        permissions=frozenset(permissions),
    )


def member(*permissions: Permission, **changes) -> Principal:
    values = {"id": "uid:7", "organization": "acme", "role": "own"}
    return Principal(**{**values, "permissions": frozenset(permissions), **changes})


def test_every_permission_has_words_and_a_scope():
    assert set(PERMISSIONS) == set(Permission)
    assert all(meaning.allows for meaning in PERMISSIONS.values())


def test_only_what_is_about_one_model_can_be_shared():
    shareable = {p for p, meaning in PERMISSIONS.items() if meaning.shareable}
    assert shareable == {P.MODELS_READ, P.MODELS_INFER, P.LOGS_READ, P.USAGE_READ}
    assert shareable <= ON_ONE_MODEL
    assert {PERMISSIONS[p].scope for p in ON_ONE_MODEL} == {Scope.MODEL}


def test_a_share_gives_exactly_what_is_in_it():
    given_ = share(P.MODELS_INFER)
    allowed = {
        permission
        for permission in Permission
        if permit(someone("owner"), permission, "rival", MODEL, [given_])
        == Allow(Via.SHARE, given_)
    }
    assert allowed == {P.MODELS_INFER}


@pytest.mark.parametrize("role", sorted(set(ROLES) - {"admin"}))
def test_who_borrows_a_model_is_told_what_is_missing(role: str):
    verdict = permit(someone(role), P.MODELS_SCALE, "rival", MODEL, [share(P.MODELS_INFER)])
    assert isinstance(verdict, Deny)
    assert not verdict.hidden
    assert "does not include models.scale" in verdict.reason


def test_a_share_for_others_reveals_nothing():
    for reached in ({"organizations": ["third"]}, {"organizations": [], "keys": ["k"]}):
        given_ = share(P.MODELS_READ, **reached)
        verdict = permit(someone("owner"), P.MODELS_READ, "rival", MODEL, [given_])
        assert isinstance(verdict, Deny)
        assert verdict.hidden


def test_a_share_can_be_for_one_key():
    given_ = share(P.MODELS_INFER, organizations=[], keys=["abc"])
    key, peer = (member(P.MODELS_INFER, id=f"{kind}:abc") for kind in ("key", "uid"))
    assert permit(key, P.MODELS_INFER, "rival", MODEL, [given_]) == Allow(Via.SHARE, given_)
    assert isinstance(permit(peer, P.MODELS_INFER, "rival", MODEL, [given_]), Deny)


def test_a_share_raises_nobody_above_their_role():
    verdict = permit(someone("viewer"), P.MODELS_INFER, "rival", MODEL, [share(P.MODELS_INFER)])
    assert isinstance(verdict, Deny)
    assert not verdict.hidden
    assert verdict.reason == "role viewer does not have models.infer"


def test_a_share_shows_models_only_to_who_may_do_something_with_models():
    clerk = member(P.KEYS_MANAGE)
    verdict = permit(clerk, P.MODELS_READ, "rival", MODEL, [share(P.MODELS_READ)])
    assert isinstance(verdict, Deny)
    assert verdict.hidden


def test_a_role_on_one_model_counts_there_and_nowhere_else():
    bound = member(P.MODELS_READ, on_models={"deploy_1": frozenset({P.MODELS_SCALE})})
    assert permit(bound, P.MODELS_SCALE, "acme", MODEL) == Allow(Via.BINDING)
    assert possible(bound, P.MODELS_SCALE) == Allow(Via.BINDING)
    denied = permit(bound, P.MODELS_SCALE, "acme", OTHER)
    assert isinstance(denied, Deny)
    assert not denied.hidden
    assert isinstance(permit(bound, P.MODELS_SCALE, "acme"), Deny)
    assert isinstance(possible(bound, P.MODELS_DELETE), Deny)


@pytest.mark.parametrize("granted", [(), (P.KEYS_MANAGE, P.NODE_READ)])
def test_models_do_not_exist_for_who_may_do_nothing_with_them(granted):
    bound = member(*granted, on_models={"deploy_1": frozenset({P.MODELS_READ})})
    assert permit(bound, P.MODELS_READ, "acme", MODEL) == Allow(Via.BINDING)
    hidden = permit(bound, P.MODELS_READ, "acme", OTHER)
    assert isinstance(hidden, Deny)
    assert hidden.hidden


@pytest.mark.parametrize("name", ["custom_legal", "legal", MODEL.deployment_id])
def test_who_is_held_to_some_models_finds_no_other(name: str):
    held = member(P.MODELS_READ, only_models=frozenset({name}))
    assert permit(held, P.MODELS_READ, "acme", MODEL) == Allow(Via.OWN)
    hidden = permit(held, P.MODELS_READ, "acme", OTHER)
    assert isinstance(hidden, Deny)
    assert hidden.hidden
    shared = permit(held, P.MODELS_READ, "rival", OTHER, [share(P.MODELS_READ)])
    assert isinstance(shared, Deny)
    assert shared.hidden


@st.composite
def principals(draw: st.DrawFn) -> Principal:
    granted = st.frozensets(st.sampled_from([P.MODELS_READ, P.MODELS_SCALE, P.KEYS_MANAGE]))
    return member(
        *draw(granted),
        role=draw(st.sampled_from(["viewer", "admin"])),
        organization=draw(st.sampled_from(["acme", "rival"])),
        on_models=draw(st.dictionaries(st.sampled_from(["deploy_1", "deploy_2"]), granted)),
        only_models=draw(
            st.none() | st.frozensets(st.sampled_from(["custom_legal", "custom_other"]))
        ),
    )


@given(holder=principals(), other=principals())
def test_whoever_covers_another_is_allowed_whatever_the_other_is(
    holder: Principal, other: Principal
):
    if not covers(holder, other):
        return
    for permission in Permission:
        for model, owner in itertools.product((MODEL, OTHER), ("acme", "rival", "third")):
            if isinstance(permit(other, permission, owner, model), Allow):
                assert isinstance(permit(holder, permission, owner, model), Allow)


@given(principals())
def test_everybody_covers_themselves(principal: Principal):
    assert covers(principal, principal)


def test_an_administrator_covers_every_organization_and_nobody_covers_more_than_they_have():
    admin, owner, viewer = someone("admin"), someone("owner", "rival"), someone("viewer", "rival")
    assert covers(admin, owner)
    assert covers(owner, viewer)
    assert not covers(owner, admin)
    assert not covers(viewer, owner)
    assert not covers(someone("owner"), viewer)
