"""Whom shares reach, by looking up and never by going through all of them."""

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.lending import Lending
from prsmd.core.persistent_map import PersistentMap
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
    table = Lending.of_all([(TO_PARTNER, LEGAL), (TO_KEY, LEGAL)])
    assert list(table.of(who("friend"), "d1", 0.0)) == [TO_PARTNER]
    assert list(table.of(who("stranger", "key:k1"), "d1", 0.0)) == [TO_KEY]
    assert list(table.of(who("stranger"), "d1", 0.0)) == []
    assert list(table.of(who("friend"), "d2", 0.0)) == []


def test_an_organization_that_is_named_as_a_key_is_not_that_key():
    table = Lending.of_all([(share(1, keys=frozenset({"friend"})), LEGAL)])
    assert list(table.of(who("friend"), "d1", 0.0)) == []


def test_a_share_of_the_very_key_goes_first():
    table = Lending.of_all([(TO_PARTNER, LEGAL), (TO_KEY, LEGAL)])
    assert list(table.of(who("partner", "key:k1"), "d1", 0.0)) == [TO_KEY, TO_PARTNER]


def test_an_expired_share_reaches_nobody():
    table = Lending.of_all(
        [(share(1, organizations=frozenset({"partner"}), expires_at=10.0), LEGAL)]
    )
    assert len(table.of(who("partner"), "d1", 9.9)) == 1
    assert list(table.of(who("partner"), "d1", 10.0)) == []


def test_what_was_lent_is_found_by_id_and_by_name():
    table = Lending.of_all([(TO_PARTNER, LEGAL), (share(3, OTHER, keys=frozenset({"k1"})), OTHER)])
    assert table.named(who("partner"), "legal") == ("d1",)
    assert table.named(who("partner", "key:k1"), "custom_legal") == ("d2", "d1")
    assert table.named(who("partner"), "legal-too") == ()
    assert table.named(who("stranger"), "legal") == ()


NAMES = st.frozensets(st.sampled_from(["partner", "friend", "k1"]))
PUTS = st.tuples(st.integers(1, 4), st.sampled_from([LEGAL, OTHER]), NAMES, NAMES)
CHANGES = st.lists(PUTS | st.integers(1, 4), max_size=12)


@given(CHANGES)
def test_a_table_that_was_changed_says_what_one_made_anew_says(changes):
    table, known = Lending.of_all([]), {}
    for change in changes:
        if isinstance(change, int):
            table = table.drop(f"s{change}")
            known.pop(f"s{change}", None)
            continue
        number, model, organizations, keys = change
        one = share(number, model, organizations=organizations, keys=keys)
        if known.get(one.id, (one, model))[1] is model:  # a share stays one of its model
            table, known[one.id] = table.put(one, model), (one, model)
    anew = Lending.of_all(known.values())

    for principal in (who("partner"), who("stranger", "key:k1"), who("friend", "key:k1")):
        for model in ("d1", "d2", "custom_legal", "legal", "legal-too"):
            assert ids(table.of(principal, model, 0.0)) == ids(anew.of(principal, model, 0.0))
            assert sorted(table.named(principal, model)) == sorted(anew.named(principal, model))


def test_a_change_of_one_share_copies_only_what_its_borrowers_touch():
    def of(number):
        return frozenset(f"o{number}-{at}" for at in range(40))

    shares = [(share(number, organizations=of(number)), LEGAL) for number in range(500)]
    before = Lending.of_all(shares)
    same = before.put(share(7, organizations=of(7), expires_at=9.0), LEGAL)
    assert copied(same, before) == {"_shares": 1, "_reaching": 0, "_named": 0}
    one_more = before.put(share(7, organizations=of(7) | {"partner"}), LEGAL)
    assert copied(one_more, before)["_reaching"] == 1
    assert copied(before.drop("s7"), before)["_reaching"] <= 40
    assert before.of(who("o7-1"), "d1", 0.0) == [shares[7][0]]


def copied(table: Lending, before: Lending) -> dict[str, int]:
    """How many pieces of a table are not those of an earlier one."""

    def pieces(of: PersistentMap) -> set[int]:
        return {id(bucket) for row in of._rows for bucket in row}

    parts = Lending.__slots__
    return {
        name: len(pieces(getattr(table, name)) - pieces(getattr(before, name))) for name in parts
    }


def ids(shares: list[Share]) -> set[str]:
    return {each.id for each in shares}
