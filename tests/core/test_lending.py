"""Whom shares reach, by looking up and never by going through all of them."""

from prsmd.core.lending import Lending
from prsmd.domain.access import ROLES, ModelRef, Principal
from prsmd.domain.quota import Share

LEGAL = ModelRef("d1", "custom_legal", "legal")
OTHER = ModelRef("d2", "custom_legal", "legal-too")


def who(organization: str, identity: str = "uid:1") -> Principal:
    return Principal(id=identity, organization=organization, role="x", permissions=ROLES["invoker"])


def share(number: int, of: ModelRef = LEGAL, **given) -> Share:
    return Share(
        id=f"s{number}",
        deployment_id=of.deployment_id,
        organization="acme",
        permissions=frozenset(),
        **given,
    )


TO_PARTNER = share(1, organizations=frozenset({"partner", "friend"}))
TO_KEY = share(2, keys=frozenset({"k1"}))


def test_a_share_reaches_its_organizations_and_keys_only():
    table = Lending([(TO_PARTNER, LEGAL), (TO_KEY, LEGAL)])
    assert list(table.of(who("friend"), "d1", 0.0)) == [TO_PARTNER]
    assert list(table.of(who("stranger", "key:k1"), "d1", 0.0)) == [TO_KEY]
    assert list(table.of(who("stranger"), "d1", 0.0)) == []
    assert list(table.of(who("friend"), "d2", 0.0)) == []


def test_an_organization_that_is_named_as_a_key_is_not_that_key():
    table = Lending([(share(1, keys=frozenset({"friend"})), LEGAL)])
    assert list(table.of(who("friend"), "d1", 0.0)) == []


def test_a_share_of_the_very_key_goes_first():
    table = Lending([(TO_PARTNER, LEGAL), (TO_KEY, LEGAL)])
    assert list(table.of(who("partner", "key:k1"), "d1", 0.0)) == [TO_KEY, TO_PARTNER]


def test_an_expired_share_reaches_nobody():
    table = Lending([(share(1, organizations=frozenset({"partner"}), expires_at=10.0), LEGAL)])
    assert len(table.of(who("partner"), "d1", 9.9)) == 1
    assert list(table.of(who("partner"), "d1", 10.0)) == []


def test_what_was_lent_is_found_by_id_and_by_name():
    table = Lending([(TO_PARTNER, LEGAL), (share(3, OTHER, keys=frozenset({"k1"})), OTHER)])
    assert table.named(who("partner"), "legal") == ("d1",)
    assert table.named(who("partner", "key:k1"), "custom_legal") == ("d2", "d1")
    assert table.named(who("partner"), "legal-too") == ()
    assert table.named(who("stranger"), "legal") == ()
