"""Who stays, who goes and what is missing: the order of preference, then what holds for all."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.plan import Probe
from prsmd.core.sight import Sight
from prsmd.core.slots import lay_out, target_replicas
from prsmd.domain.replica import ReplicaState
from tests.core.cases import container, deployment, failed, healthy, observed, replica

PENDING, STARTING = ReplicaState.PENDING, ReplicaState.STARTING
RUNNING, DRAINING = ReplicaState.RUNNING, ReplicaState.DRAINING


def layout(item, sees):
    return lay_out(item, Sight.of(sees))


def drained(item, sees):
    return [one.id for one, _ in layout(item, sees).surplus]


def seen(rows, *, ready=(), dead=()):
    return observed(
        *(container(one, running=one not in dead) for one in rows if one.state is not PENDING),
        probes={one.id: Probe(ready=True) for one in ready},
    )


LOW, HIGH = replica(0), replica(1)


@pytest.mark.parametrize(
    ("better", "worse", "ready", "dead"),
    [
        (HIGH, LOW, [HIGH], []),
        (LOW, HIGH, [LOW, HIGH], []),
        (LOW, HIGH, [], []),
        (HIGH, replica(0, STARTING), [], []),
        (replica(1, STARTING), replica(0, PENDING), [], []),
        (replica(1, STARTING), LOW, [], [LOW]),
        (replica(1, PENDING), LOW, [], [LOW]),
    ],
    ids=[
        "ready before the lower slot",
        "both ready: the lower slot",
        "neither ready: the lower slot",
        "in service before starting",
        "starting before pending",
        "starting before one whose container ended",
        "pending before one whose container ended",
    ],
)
def test_of_two_the_better_one_stays(better, worse, ready, dead):
    rows = [worse, better]
    sees = seen(rows, ready=ready, dead=dead)
    found = layout(deployment(*rows, asked=1), sees)
    assert found.kept == (better,)
    assert [one for one, _ in found.surplus] == [worse]
    assert found.empty == ()


def test_of_two_earlier_revisions_the_later_one_stands_in():
    first, second = replica(0, revision=1), replica(0, revision=2)
    found = layout(deployment(first, second, revision=3), healthy(first, second))
    assert found.older == (second,)
    assert [one for one, _ in found.surplus] == [first]
    assert found.empty == (0,)


def test_a_ready_earlier_replica_stands_in_before_one_that_is_not():
    bad, good = replica(0), replica(1)
    found = layout(deployment(bad, good, revision=2), seen([bad, good], ready=[good]))
    assert found.older == (good,)


def test_of_two_in_one_slot_the_older_stays_where_nothing_else_tells_them_apart():
    young, old = replica(0, id="young", created_at=5.0), replica(0, id="old", created_at=4.0)
    assert drained(deployment(young, old, asked=2), healthy(young, old)) == ["young"]


def test_a_double_is_not_counted_as_the_second_replica():
    one, double = replica(0), replica(0, id="double")
    assert layout(deployment(one, double, asked=2), healthy(one, double)).empty == (1,)


def test_ended_replicas_occupy_no_slot():
    assert layout(deployment(failed(0)), observed()).empty == (0,)


def test_replicas_of_an_earlier_revision_occupy_no_slot_of_the_current_one():
    old = replica(0)
    assert layout(deployment(old, revision=2), healthy(old)).empty == (0,)


@st.composite
def deployments(draw):
    """Any rows at all, reachable or not, and any observation of them."""
    rows = []
    for number in range(draw(st.integers(0, 8))):
        state = draw(st.sampled_from(list(ReplicaState)))
        changes = {"id": f"r{number}", "revision": draw(st.integers(1, 3))}
        if state in {ReplicaState.FAILED, ReplicaState.STOPPED}:
            changes["finished_at"] = 1.0
        rows.append(replica(draw(st.integers(0, 4)), state, **changes))
    item = deployment(
        *rows,
        asked=draw(st.integers(0, 5)),
        most=draw(st.integers(0, 5)),
        revision=3,
        deleting=draw(st.booleans()),
    )
    boxes = [container(one, running=draw(st.booleans())) for one in rows if draw(st.booleans())]
    probes = {one.id: Probe(ready=draw(st.booleans())) for one in rows}
    return item, observed(*boxes, probes=probes)


@given(deployments())
def test_kept_and_empty_make_the_target_each_in_a_slot_of_its_own(case):
    item, sees = case
    found = layout(item, sees)
    assert found.target == target_replicas(item)
    slots = [*(one.slot for one in found.kept), *found.empty]
    assert len(slots) == len(set(slots)) == found.target
    assert all(one.revision == 3 for one in found.kept)


@given(deployments())
def test_every_settled_replica_is_kept_stands_in_or_is_surplus_and_only_once(case):
    item, sees = case
    found = layout(item, sees)
    placed = [one.id for one in (*found.kept, *found.older, *(one for one, _ in found.surplus))]
    settled = [one.id for one in item.replicas if one.active and one.state is not DRAINING]
    assert sorted(placed) == sorted(settled)
    assert all(reason for _, reason in found.surplus)


@given(deployments())
def test_a_ready_replica_is_surplus_only_where_enough_others_are_ready(case):
    item, sees = case
    sight = Sight.of(sees)
    found = lay_out(item, sight)
    staying = sum(sight.ready(one) for one in (*found.kept, *found.older))
    doubles = [one for one, reason in found.surplus if "another replica" in reason]
    lost = [one for one, _ in found.surplus if sight.ready(one) and one not in doubles]
    assert not lost or staying >= found.target


@given(deployments())
def test_nothing_is_launched_into_a_slot_in_which_a_replica_is_active(case):
    item, sees = case
    active = {one.slot for one in item.replicas if one.active and one.revision == 3}
    assert active.isdisjoint(layout(item, sees).empty)


@given(deployments())
def test_what_is_drained_does_not_change_who_stays(case):
    """Draining the surplus leads to the same layout, not to a different choice: no flapping."""
    item, sees = case
    found = layout(item, sees)
    gone = {one.id for one, _ in found.surplus}
    rest = [one for one in item.replicas if one.id not in gone]
    values = item.deployment
    after = deployment(
        *rest,
        asked=values.asked_replicas,
        most=item.revision.spec.scaling.max_replicas,
        revision=3,
        deleting=values.deleting,
    )
    again = layout(after, sees)
    assert (again.kept, again.older, again.surplus) == (found.kept, found.older, ())
