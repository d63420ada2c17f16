"""In which organization somebody acts who belongs to several, and that others do not change it."""

import dataclasses

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.belonging import Belonging
from prsmd.domain.access import Binding, Member, SubjectKind

NOW = 100.0
NAMES = ("a", "b", "c")


def member(organization: str, role: str = "viewer", **changes) -> Member:
    values = {"accepted_at": 1.0, **changes}
    return Member(
        id=f"member_{organization}",
        organization=organization,
        kind=SubjectKind.UID,
        subject="7",
        name="n",
        bindings=(Binding(role),),
        created_at=0.0,
        created_by="",
        **values,
    )


def belonging(configured=(), own=(), groups=()) -> Belonging:
    rules = [(name, Binding("operator")) for name in configured]
    return Belonging(identity="uid:7", configured=rules, own=own, groups=groups)


def test_the_configuration_goes_before_members_and_own_ones_before_those_of_groups():
    own, groups = [member("b")], [member("c")]
    assert belonging(["a", "c"], own, groups).default(NOW) == "a"
    assert belonging([], own, groups).default(NOW) == "b"
    assert belonging([], [], groups).default(NOW) == "c"
    assert belonging().default(NOW) is None


def test_there_is_no_default_among_several_of_a_kind():
    both = [member("a"), member("b")]
    assert belonging(own=both).default(NOW) is None
    assert belonging(groups=both).default(NOW) is None
    assert belonging(own=both, groups=[member("c")]).default(NOW) is None


def test_an_invitation_and_what_has_ended_are_no_belonging():
    for nothing in (member("b", accepted_at=None), member("b", expires_at=NOW)):
        assert belonging(own=[member("a"), nothing]).default(NOW) == "a"
        assert belonging(own=[nothing]).organizations(NOW) == ()
        assert belonging(own=[nothing]).roles_in("b", NOW) == ((), None)


def test_roles_of_one_organization_add_up_and_the_first_end_counts():
    found = belonging(
        ["a", "b"],
        [member("a", "deployer", expires_at=NOW + 9), member("b", "owner")],
        [member("a", "auditor", expires_at=NOW + 5)],
    )
    bindings, ends = found.roles_in("a", NOW)
    assert [binding.role for binding in bindings] == ["operator", "deployer", "auditor"]
    assert ends == NOW + 5
    assert found.organizations(NOW) == ("a", "b")


@st.composite
def belongings(draw: st.DrawFn) -> Belonging:
    names = st.lists(st.sampled_from(NAMES), unique=True, max_size=3)
    changes = st.fixed_dictionaries(
        {"accepted_at": st.sampled_from([None, 1.0]), "expires_at": st.sampled_from([None, 50.0])}
    )
    return belonging(
        draw(names),
        [member(name, **draw(changes)) for name in draw(names)],
        [member(name, **draw(changes)) for name in draw(names)],
    )


@given(found=belongings(), name=st.sampled_from(["a", "d"]))
def test_no_invitation_changes_where_and_with_which_roles_somebody_acts(found, name):
    more = dataclasses.replace(found, own=[*found.own, member(name, "owner", accepted_at=None)])
    assert more.default(NOW) == found.default(NOW)
    assert more.organizations(NOW) == found.organizations(NOW)
    assert all(more.roles_in(each, NOW) == found.roles_in(each, NOW) for each in (*NAMES, "d"))


@given(found=belongings(), level=st.sampled_from(["own", "groups"]))
def test_one_more_membership_moves_nobody_from_where_they_are_by_that_kind(found, level):
    """Nor by another kind, but that who was there only by a group is asked, or by their own act."""
    before = found.default(NOW)
    more = dataclasses.replace(found, **{level: [*getattr(found, level), member("d", "owner")]})
    moved = more.default(NOW)
    by_group_only = (
        level == "own"
        and not found.configured
        and not any(each.in_force(NOW) for each in found.own)
    )
    if before is not None and not by_group_only:
        assert moved in {before, None}
    assert all(more.roles_in(name, NOW) == found.roles_in(name, NOW) for name in NAMES)


@given(belongings())
def test_a_default_is_one_of_the_organizations_that_somebody_belongs_to(found):
    assert found.default(NOW) in {None, *found.organizations(NOW)}
