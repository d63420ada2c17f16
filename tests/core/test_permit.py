"""What each role may do at home, and that nothing of another organization exists."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.permit import Allow, Deny, permit
from prsmd.domain.access import ROLES, Permission, Principal

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
    assert permit(someone("admin"), permission, "rival") == Allow()


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
