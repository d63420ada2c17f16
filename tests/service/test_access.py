"""Callers become principals: keys in force, peers that a rule names, and nobody else."""

import os
import time

import pytest

from prsmd.core.apikey import format_key, key_digest
from prsmd.domain.access import ROLES, ApiKey, Permission
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.service.access import KeyRing, PeerRule, Peers, gid_of, uid_of

PEPPER = b"p" * 32
SECRET = "0" * 32
STRANGER = 54_321  # a uid and gid of nobody on any machine
TEXT = format_key("0123456789", SECRET)


def key(**changes):
    values = {
        "id": "0123456789",
        "organization": "company",
        "role": "viewer",
        "name": "test",
        "digest": key_digest(PEPPER, SECRET),
        "created_at": 0.0,
    }
    return ApiKey(**{**values, **changes})


@pytest.mark.parametrize("role", ROLES)
def test_a_key_in_force_stands_for_its_organization_and_role(role):
    principal = KeyRing(PEPPER, [key(role=role)]).principal(TEXT)

    assert principal.id == "key:0123456789"
    assert (principal.organization, principal.role) == ("company", role)
    assert principal.permissions == ROLES[role]
    assert principal.appliance_wide == (role == "admin")


@pytest.mark.parametrize(
    ("ring", "text"),
    [
        (KeyRing(PEPPER, []), TEXT),
        (KeyRing(b"q" * 32, [key()]), TEXT),
        (KeyRing(PEPPER, [key()]), format_key("0123456789", "1" * 32)),
        (KeyRing(PEPPER, [key()]), format_key("9876543210", SECRET)),
        (KeyRing(PEPPER, [key()]), TEXT[:-1]),
        (KeyRing(PEPPER, [key()]), ""),
    ],
    ids=["unknown", "other pepper", "other secret", "other id", "cut off", "empty"],
)
def test_every_wrong_key_is_refused_in_the_same_words(ring, text):
    with pytest.raises(InvalidApiKeyError, match="is not valid; check it") as refusal:
        ring.principal(text)
    assert SECRET not in refusal.value.message


def test_a_revoked_key_is_refused_from_the_moment_the_ring_knows():
    ring = KeyRing(PEPPER, [key()])
    ring.principal(TEXT)

    ring.add(key(revoked_at=1.0))

    with pytest.raises(InvalidApiKeyError, match="revoked"):
        ring.principal(TEXT)


def test_only_who_holds_the_secret_learns_that_a_key_was_revoked():
    ring = KeyRing(PEPPER, [key(revoked_at=1.0)])

    with pytest.raises(InvalidApiKeyError, match="not valid"):
        ring.principal(format_key("0123456789", "1" * 32))


@pytest.mark.parametrize(("lifetime", "refused"), [(-1, True), (3600, False)])
def test_a_key_lives_until_it_expires(lifetime, refused):
    ring = KeyRing(PEPPER, [key(expires_at=time.time() + lifetime)])

    if refused:
        with pytest.raises(InvalidApiKeyError, match="expired"):
            ring.principal(TEXT)
    else:
        assert ring.principal(TEXT).role == "viewer"


@pytest.mark.parametrize("uid", [0, os.geteuid()])
def test_root_and_the_daemons_own_user_are_administrators(uid):
    demoting = PeerRule(organization="other", role="viewer", uid=uid)

    principal = Peers("company", [demoting]).principal(uid, STRANGER)

    assert (principal.id, principal.organization) == (f"uid:{uid}", "company")
    assert principal.appliance_wide


def test_a_peer_that_no_rule_names_is_refused():
    rules = [
        PeerRule(organization="a", role="viewer", uid=STRANGER + 1),
        PeerRule(organization="a", role="viewer", gid=STRANGER + 1),
    ]
    with pytest.raises(InvalidApiKeyError, match=f"Local user {STRANGER} has no role"):
        Peers("company", rules).principal(STRANGER, STRANGER)


@pytest.mark.parametrize("selector", [{"uid": STRANGER}, {"gid": STRANGER}])
def test_a_peer_gets_the_role_of_the_rule_that_names_it(selector):
    rule = PeerRule(organization="lab", role="deployer", **selector)

    principal = Peers("company", [rule]).principal(STRANGER, STRANGER)

    assert (principal.organization, principal.role) == ("lab", "deployer")
    assert not principal.appliance_wide


def test_the_first_rule_that_fits_decides():
    rules = [
        PeerRule(organization="lab", role="viewer", gid=STRANGER),
        PeerRule(organization="lab", role="owner", uid=STRANGER),
    ]
    assert Peers("company", rules).principal(STRANGER, STRANGER).role == "viewer"


def test_a_rule_for_a_group_reaches_its_members_whatever_group_they_act_as():
    # `daemon` is a user of every Unix; its groups are looked up, not taken from the connection.
    uid, gid = uid_of("daemon"), gid_of("daemon")
    rule = PeerRule(organization="lab", role="viewer", gid=gid)

    assert Peers("company", [rule]).principal(uid, gid).role == "viewer"
    assert Peers("company", [rule]).principal(STRANGER, gid).role == "viewer"


def test_names_that_nobody_has_are_errors():
    for look_up in (uid_of, gid_of):
        with pytest.raises(KeyError):
            look_up("no-such-name-here")


def test_no_role_but_admin_manages_the_appliance():
    managing = {role for role, granted in ROLES.items() if Permission.NODE_MANAGE in granted}
    assert managing == {"admin"}
