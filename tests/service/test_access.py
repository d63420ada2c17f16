"""Callers become principals: keys in force, peers that a rule names, and nobody else."""

import os
import time

import pytest

from prsmd.core.apikey import format_key, key_digest
from prsmd.domain.access import (
    ROLES,
    ApiKey,
    Binding,
    Member,
    Organization,
    Permission,
    Role,
    SubjectKind,
)
from prsmd.domain.errors import InvalidApiKeyError
from prsmd.service.access import KeyRing, PeerRule, Peers, gid_of, uid_of
from prsmd.service.directory import Directory
from tests.support.calls import calls_of

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


def ring_of(*keys, pepper=PEPPER):
    return KeyRing(pepper, Directory(keys))


def member(kind, subject, *bindings, organization="company"):
    return Member(
        id=f"member_{subject}",
        organization=organization,
        kind=SubjectKind(kind),
        subject=str(subject),
        name="n",
        bindings=bindings,
        created_at=0.0,
        created_by="test",
        accepted_at=0.0,
    )


def peers_with(*members, rules=()):
    directory = Directory()
    for each in members:
        directory.put_member(each)
    return Peers("company", rules, directory)


@pytest.mark.parametrize("role", ROLES)
def test_a_key_in_force_stands_for_its_organization_and_role(role):
    principal = ring_of(key(role=role)).identify(TEXT).principal

    assert principal.id == "key:0123456789"
    assert (principal.organization, principal.role) == ("company", role)
    assert principal.permissions == ROLES[role]
    assert principal.appliance_wide == (role == "admin")


@pytest.mark.parametrize(
    ("ring", "text"),
    [
        (ring_of(), TEXT),
        (ring_of(key(), pepper=b"q" * 32), TEXT),
        (ring_of(key()), format_key("0123456789", "1" * 32)),
        (ring_of(key()), format_key("9876543210", SECRET)),
        (ring_of(key()), TEXT[:-1]),
        (ring_of(key()), ""),
    ],
    ids=["unknown", "other pepper", "other secret", "other id", "cut off", "empty"],
)
def test_every_wrong_key_is_refused_in_the_same_words(ring, text):
    with pytest.raises(InvalidApiKeyError, match="is not valid; check it") as refusal:
        ring.identify(text)
    assert SECRET not in refusal.value.message


def test_a_revoked_key_is_refused_from_the_moment_the_ring_knows():
    directory = Directory([key()])
    ring = KeyRing(PEPPER, directory)
    identified = ring.identify(TEXT)

    directory.put_key(key(revoked_at=1.0))

    for again in (lambda: ring.identify(TEXT), identified.again):
        with pytest.raises(InvalidApiKeyError, match="revoked"):
            again()


HELD = {"models": ("m",) * 100, "networks": ("10.0.0.0/8",), "name": "x" * 200}


def size_of(known):
    return len(known.name) + len(known.models) + len(known.networks or ())


def test_of_a_revoked_key_only_what_refuses_it_is_kept():
    directory = Directory([key(**HELD)])
    directory.put_key(key(revoked_at=1.0, **HELD))

    for known in (
        directory.key("0123456789"),
        Directory([key(revoked_at=1.0, **HELD)]).key("0123456789"),
    ):
        assert size_of(known) == 0
        assert known.models is not None  # it was held to some, and is not held to none now


def test_of_the_keys_of_a_removed_organization_only_what_refuses_them_is_kept():
    directory = Directory([key(**HELD)])
    made = {"id": "company", "display_name": "", "created_at": 0.0, "created_by": ""}
    directory.put_organization(Organization(**made, removed_at=1.0))

    assert size_of(directory.key("0123456789")) == 0


def test_of_expired_keys_the_last_ones_are_kept_whole():
    now = time.time()
    ids = [f"{number:010d}" for number in range(105)]
    own = [key(id=id_, expires_at=now - 1000 + int(id_), **HELD) for id_ in ids]
    others = [key(id=f"o{id_}", expires_at=1.0, organization="rival", **HELD) for id_ in ids]
    directory = Directory([*own, *others, key(**HELD)])

    directory.end_expired(now, "company")

    assert [id_ for id_ in ids if directory.has_ended(id_)] == ids[:5]
    assert [size_of(directory.key(id_)) for id_ in ids[:5]] == [0] * 5
    assert not any(directory.has_ended(other.id) for other in others)
    assert directory.key("0123456789") == key(**HELD)


def test_an_expired_key_that_is_not_known_whole_stays_expired_until_it_is_changed(monkeypatch):
    monkeypatch.setattr("prsmd.service.directory._KNOWN_EXPIRED", 0)
    directory = Directory([key(expires_at=time.time() + 60)])
    ring = KeyRing(PEPPER, directory)
    directory.end_expired(time.time() + 3600, "company")  # by a clock that is ahead

    with pytest.raises(InvalidApiKeyError, match="expired"):
        ring.identify(TEXT)
    with pytest.raises(InvalidApiKeyError, match="not valid"):
        ring.identify(format_key("0123456789", "1" * 32))
    directory.put_key(key(expires_at=time.time() + 60))
    assert ring.identify(TEXT)
    directory.drop_keys(["0123456789"])
    assert not directory.has_keys


def test_only_who_holds_the_secret_learns_that_a_key_was_revoked():
    ring = ring_of(key(revoked_at=1.0))

    with pytest.raises(InvalidApiKeyError, match="not valid"):
        ring.identify(format_key("0123456789", "1" * 32))


@pytest.mark.parametrize(("lifetime", "refused"), [(-1, True), (3600, False)])
def test_a_key_lives_until_it_expires(lifetime, refused):
    ring = ring_of(key(expires_at=time.time() + lifetime))

    if refused:
        with pytest.raises(InvalidApiKeyError, match="expired"):
            ring.identify(TEXT)
    else:
        assert ring.identify(TEXT).principal.role == "viewer"


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


OLD = key_digest(PEPPER, "1" * 32)
OLD_TEXT = format_key("0123456789", "1" * 32)


def test_after_a_rotation_both_secrets_are_good_for_the_overlap():
    until = time.time() + 60
    ring = ring_of(key(previous_digest=OLD, previous_until=until))

    assert ring.identify(TEXT).until is None
    assert ring.identify(OLD_TEXT).until == until


@pytest.mark.parametrize("ends", ["expiry", "overlap"])
def test_the_old_secret_is_good_until_the_overlap_or_the_key_ends(ends):
    soon, late = time.time() + 60, time.time() + 3600
    expires, overlap = (soon, late) if ends == "expiry" else (late, soon)
    ring = ring_of(key(previous_digest=OLD, previous_until=overlap, expires_at=expires))

    assert ring.identify(OLD_TEXT).until == soon
    assert ring.identify(TEXT).until == expires


def test_after_the_overlap_the_old_secret_is_told_that_it_was_rotated():
    ring = ring_of(key(previous_digest=OLD, previous_until=time.time() - 1))

    ring.identify(TEXT)
    with pytest.raises(InvalidApiKeyError, match="rotated"):
        ring.identify(OLD_TEXT)


def test_who_came_with_the_old_secret_is_nobody_once_there_is_no_overlap():
    directory = Directory([key()])
    identified = KeyRing(PEPPER, directory).identify(TEXT)

    directory.put_key(key(digest=OLD))

    with pytest.raises(InvalidApiKeyError, match="not valid"):
        identified.again()


@pytest.mark.parametrize(
    ("networks", "address", "refused"),
    [
        (None, "192.0.2.1", False),
        (("10.0.0.0/8",), "10.1.2.3", False),
        (("10.0.0.0/8",), "192.0.2.1", True),
        (("10.0.0.0/8",), None, True),
        (("127.0.0.0/8",), None, False),
    ],
)
def test_a_key_is_good_only_from_its_networks(networks, address, refused):
    ring = ring_of(key(networks=networks))
    if refused:
        with pytest.raises(InvalidApiKeyError, match="from this address"):
            ring.identify(TEXT, address)
    else:
        assert ring.identify(TEXT, address).key == key(networks=networks)
    with pytest.raises(InvalidApiKeyError, match="not valid"):
        ring.identify(format_key("0123456789", "2" * 32), address)


def test_what_a_key_has_begun_does_not_go_on_where_it_may_not_be_used_any_more():
    directory = Directory([key()])
    found = KeyRing(PEPPER, directory).identify(TEXT, "192.0.2.1")
    assert found.again().principal == found.principal
    directory.put_key(key(networks=("10.0.0.0/8",)))
    with pytest.raises(InvalidApiKeyError, match="from this address"):
        found.again()


def test_how_many_networks_a_key_is_held_to_costs_its_requests_nothing():
    def work(count):
        networks = tuple(f"10.0.{number}.0/24" for number in range(count))
        ring = ring_of(key(networks=networks))
        ring.identify(TEXT, "10.0.0.1")
        return calls_of(lambda: ring.identify(TEXT, "10.0.0.1"))

    assert work(100) < work(1) + 20


def test_a_key_of_an_older_release_with_a_thousand_networks_is_good():
    networks = tuple(f"10.{n // 256}.{n % 256}.0/24" for n in range(1000))
    assert ring_of(key(networks=networks)).identify(TEXT, "10.3.231.1")


def test_when_a_key_was_used_is_known_once_and_then_stored():
    ring = ring_of(key(last_used_at=5.0))
    assert ring.last_used(key(last_used_at=5.0)) == 5.0

    ring.identify(TEXT)

    assert ring.last_used(key()) == pytest.approx(time.time(), abs=60)
    assert list(ring.used()) == ["0123456789"]
    assert ring.used() == {}


def test_an_own_role_counts_as_it_is_now():
    role = Role(
        organization="company",
        name="reader",
        description="",
        permissions=frozenset({Permission.MODELS_READ}),
        created_at=0.0,
        updated_at=0.0,
    )
    directory = Directory([key(role="reader")])
    ring = KeyRing(PEPPER, directory)
    assert ring.identify(TEXT).principal.permissions == frozenset()

    directory.put_role(role)
    assert ring.identify(TEXT).principal.permissions == role.permissions

    directory.drop_role("company", "reader")
    assert ring.identify(TEXT).principal.permissions == frozenset()


@pytest.mark.parametrize("field", ["disabled_at", "removed_at"])
def test_nobody_acts_for_an_organization_that_is_disabled_or_removed(field):
    directory = Directory([key()])
    peer = member("uid", STRANGER, Binding("viewer"))
    directory.put_member(peer)
    ring, peers = KeyRing(PEPPER, directory), Peers("other", (), directory)
    ring.identify(TEXT)
    peers.principal(STRANGER, STRANGER)
    made = {"id": "company", "display_name": "", "created_at": 0.0, "created_by": ""}

    directory.put_organization(Organization(**made, **{field: 1.0}))

    with pytest.raises(InvalidApiKeyError, match=field.removesuffix("_at")):
        ring.identify(TEXT)
    with pytest.raises(InvalidApiKeyError, match=r"disabled|removed|no role"):
        peers.principal(STRANGER, STRANGER)
    assert peers.principal(0, 0).appliance_wide


@pytest.mark.parametrize("kind", ["uid", "gid"])
def test_a_member_is_recognized_by_user_or_group(kind):
    peers = peers_with(member(kind, STRANGER, Binding("deployer"), organization="lab"))

    principal = peers.principal(STRANGER, STRANGER)

    assert (principal.id, principal.organization) == (f"uid:{STRANGER}", "lab")
    assert principal.role == "deployer"


def test_what_the_configuration_says_of_a_peer_goes_before_what_members_say():
    rule = PeerRule(organization="lab", role="viewer", uid=STRANGER)
    elsewhere = peers_with(
        member("uid", STRANGER, Binding("owner"), organization="b"), rules=[rule]
    )
    here = peers_with(member("gid", STRANGER, Binding("owner"), organization="lab"), rules=[rule])

    assert elsewhere.principal(STRANGER, STRANGER).role == "viewer"
    assert here.principal(STRANGER, STRANGER).role == "owner+viewer"


def test_a_user_who_is_a_member_is_not_one_of_another_organization_by_a_group():
    peers = peers_with(
        member("gid", STRANGER, Binding("owner"), organization="b"),
        member("uid", STRANGER, Binding("viewer"), organization="a"),
    )
    principal = peers.principal(STRANGER, STRANGER)

    assert (principal.organization, principal.role) == ("a", "viewer")


def test_a_key_has_its_own_role_and_those_it_was_given_as_a_member():
    directory = Directory([key()])
    directory.put_member(member("key", "0123456789", Binding("operator", "deploy_1")))
    principal = KeyRing(PEPPER, directory).identify(TEXT).principal

    assert principal.role == "viewer"
    assert Permission.MODELS_SCALE in principal.on_models["deploy_1"]
    assert Permission.MODELS_SCALE not in principal.permissions


def test_another_organizations_word_about_a_key_counts_for_nothing():
    directory = Directory([key()])
    directory.put_member(member("key", "0123456789", Binding("owner"), organization="rival"))

    assert KeyRing(PEPPER, directory).identify(TEXT).principal.role == "viewer"
