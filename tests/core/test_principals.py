"""Roles put together: what they give, where, and that nothing is given twice or beyond."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.principals import permissions_of, principal_of
from prsmd.domain.access import ON_ONE_MODEL, ROLES, Binding, Permission

P = Permission
OWN = {"reader": frozenset({P.MODELS_READ}), "hr": frozenset({P.MEMBERS_MANAGE, P.KEYS_MANAGE})}


@pytest.mark.parametrize("role", ROLES)
def test_a_built_in_role_is_what_the_table_says_and_cannot_be_replaced(role):
    assert permissions_of(role, {role: frozenset()}) == ROLES[role]


def test_an_own_role_never_gives_more_than_an_owner_has():
    assert permissions_of("all", {"all": frozenset(Permission)}) == ROLES["owner"]


def test_a_role_that_is_gone_gives_nothing():
    assert permissions_of("gone", OWN) is None
    assert principal_of("uid:1", "acme", [Binding("gone")], OWN).permissions == frozenset()


def test_roles_in_the_organization_add_up_and_are_named():
    made = principal_of("uid:1", "acme", [Binding("reader"), Binding("hr")], OWN)
    assert made.permissions == OWN["reader"] | OWN["hr"]
    assert made.role == "hr+reader"
    assert not made.appliance_wide


def test_who_administers_the_appliance_does_so_beside_any_other_role():
    made = principal_of("uid:1", "acme", [Binding("reader"), Binding("admin")], OWN)
    assert made.role == "admin"
    assert made.appliance_wide


def test_a_role_on_one_model_gives_only_what_is_about_models():
    made = principal_of("uid:1", "acme", [Binding("owner", "d1"), Binding("viewer", "d1")], OWN)
    assert made.permissions == frozenset()
    assert made.on_models == {"d1": ROLES["owner"] & ON_ONE_MODEL}
    assert made.role == "none"


def test_an_administrator_of_one_model_does_not_administer_the_appliance():
    assert not principal_of("uid:1", "acme", [Binding("admin", "d1")], OWN).appliance_wide


@given(
    roles=st.lists(st.sampled_from([*ROLES, *OWN])),
    only=st.frozensets(st.sampled_from(["custom_a", "custom_b"])),
)
def test_who_is_held_to_models_can_manage_nothing_else(roles, only):
    made = principal_of("key:1", "acme", map(Binding, roles), OWN, only)
    assert made.permissions <= ON_ONE_MODEL
    assert made.only_models == only
