"""What replicas hold stays within their organization's quota, whatever is asked of them."""

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.plan import Drain, Launch
from prsmd.core.quota_admission import held
from prsmd.domain.quantity import GIB
from prsmd.domain.replica import ReplicaState
from prsmd.domain.resource_quota import COMPUTE, Dimension, Limit
from prsmd.domain.rollout import RolloutStrategy
from prsmd.domain.spec import Resources
from tests.core.cases import NOW, deployment, gpu, healthy, node, observed, replica
from tests.core.situations import plan, rolling, rollout

D = Dimension


def bounded(item, **hard):
    return dataclasses.replace(item, limits={D(name): Limit(value) for name, value in hard.items()})


def launches(result):
    return [one.replica for one in result.actions if isinstance(one, Launch)]


def held_words(result):
    return [hold.details for hold in result.holds]


@pytest.mark.parametrize(
    ("hard", "word"),
    [({"cpu": 2000}, "cpu: 2 of 2"), ({"replicas": 2}, "replicas: 2 of 2")],
)
def test_as_many_replicas_come_as_the_quota_allows_and_the_others_say_why(hard, word):
    result = plan(bounded(deployment(asked=4), **hard), sees=healthy())
    assert len(launches(result)) == 2
    assert [hold.slot for hold in result.holds] == [2, 3]
    assert all("organization's quota" in hold.reason for hold in result.holds)
    assert all(word in "; ".join(details) for details in held_words(result))


def test_gpus_count_in_fractions():
    item = deployment(asked=4, resources=Resources(cpu_millis=1, memory_bytes=1, gpu_millis=250))
    here = observed(here=node(gpu(0)))
    assert len(launches(plan(bounded(item, gpu=500), sees=here))) == 2


def test_models_of_one_organization_share_its_quota_and_others_do_not_count():
    first = bounded(deployment(id="deploy_a", asked=2, created_at=1.0), replicas=3)
    second = bounded(deployment(id="deploy_b", asked=2, created_at=2.0), replicas=3)
    other = deployment(id="deploy_c", asked=2, created_at=3.0)
    other = dataclasses.replace(
        other, deployment=dataclasses.replace(other.deployment, organization="other")
    )
    result = plan(first, second, other, sees=healthy())
    came = [one.deployment_id for one in launches(result)]
    assert (came.count("deploy_a"), came.count("deploy_b"), came.count("deploy_c")) == (2, 1, 2)


def test_what_drains_counts_until_it_has_ended():
    leaving = replica(0, ReplicaState.DRAINING)
    result = plan(bounded(deployment(leaving, asked=1), replicas=1), sees=healthy(leaving))
    assert not launches(result)


def test_a_quota_below_what_runs_ends_nothing_and_lets_nothing_come():
    rows = [replica(slot) for slot in range(3)]
    result = plan(bounded(deployment(*rows, asked=4), replicas=1), sees=healthy(*rows))
    assert not [one for one in result.actions if isinstance(one, Drain | Launch)]
    assert [hold.slot for hold in result.holds] == [3]


def test_a_rollout_without_quota_for_a_second_set_goes_one_by_one_in_the_room_of_the_first():
    rows = [replica(slot) for slot in range(2)]
    item = bounded(rolling(*rows, now=rollout(base=2), asked=2), replicas=2)
    result = plan(item, sees=healthy(*rows))
    assert not launches(result)
    assert len([one for one in result.actions if isinstance(one, Drain)]) == 1


def test_a_surge_that_the_quota_has_no_room_for_waits_and_says_so():
    rows = [replica(slot) for slot in range(2)]
    surge = rollout(base=2, strategy=RolloutStrategy.SURGE)
    result = plan(bounded(rolling(*rows, now=surge, asked=2), replicas=2), sees=healthy(*rows))
    assert not [one for one in result.actions if isinstance(one, Launch | Drain)]
    assert any("replicas: 2 of 2 used" in "; ".join(words) for words in held_words(result))


@given(
    st.lists(st.tuples(st.integers(0, 6), st.sampled_from([100, 700, 3000])), max_size=4),
    st.integers(0, 8),
    st.integers(0, 8),
    st.integers(0, 3),
)
def test_nothing_is_launched_beyond_a_quota(models, cores, count, running):
    hard = {"cpu": cores * 1000, "replicas": count, "memory": 64 * GIB}
    items, rows = [], []
    for at, (asked, cpu) in enumerate(models):
        resources = Resources(cpu_millis=cpu, memory_bytes=GIB)
        there = [replica(slot, deployment_id=f"deploy_{at}") for slot in range(min(running, asked))]
        rows += there
        items.append(
            bounded(deployment(*there, id=f"deploy_{at}", asked=asked, resources=resources), **hard)
        )
    before = held(row.placement for row in rows)
    result = plan(*items, sees=healthy(*rows), now=NOW)
    after = held(row.placement for row in [*rows, *launches(result)])
    for dimension in COMPUTE:
        most = hard.get(dimension.value)
        assert most is None or after.get(dimension, 0) <= max(most, before.get(dimension, 0))
