"""What a quota admits, by itself and through everything that may come in between."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.autoscale import Hold, Scale, limited
from prsmd.core.quota_admission import admit, growth, most_replicas, needs_of, reserved
from prsmd.domain.deployment import Recommendation
from prsmd.domain.quantity import GIB
from prsmd.domain.resource_quota import COMPUTE, Dimension, Limit
from prsmd.domain.spec import Needs, Resources, Scaling

D = Dimension
COUNTS = st.integers(0, 12)
NEEDS = st.builds(
    lambda cpu, memory, gpu, least, more: Needs(
        resources=Resources(cpu_millis=cpu, memory_bytes=memory, gpu_millis=gpu),
        scaling=Scaling(min_replicas=least, max_replicas=max(1, least + more)),
    ),
    st.sampled_from([100, 500, 2000]),
    st.sampled_from([1, GIB]),
    st.sampled_from([0, 250, 1000]),
    st.integers(0, 3),
    st.integers(0, 9),
)


def limits(**hard):
    return {D(name): Limit(amount) for name, amount in hard.items()}


def total(models):
    amounts = [needs_of(needs, wanted) for needs, wanted in models.values()]
    return {name: sum(one[name] for one in amounts) for name in COMPUTE}


MODEL = st.integers(0, 3)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("want"), MODEL, st.lists(NEEDS, min_size=1, max_size=2), COUNTS),
        st.tuples(st.just("delete"), MODEL),
        st.tuples(st.just("limit"), st.sampled_from(COMPUTE), st.none() | st.integers(0, 20)),
    ),
    max_size=30,
)
SCALE = {D.CPU: 500, D.MEMORY: GIB, D.GPU: 250, D.REPLICAS: 1}


@given(STEPS)
def test_used_never_grows_beyond_a_limit_whatever_comes_in_between(steps):
    models, hard = {}, {}
    for step in steps:
        before = total(models)
        match step:
            case ("want", name, needs, wanted):
                asked = needs_of(needs, wanted)
                old = needs_of(*models[name]) if name in models else {}
                if not admit(hard, before, growth(old, asked)):
                    models[name] = needs, wanted
            case ("delete", name):
                models.pop(name, None)
            case ("limit", dimension, amount):
                value = None if amount is None else amount * SCALE[dimension]
                hard[dimension] = Limit(value)
        after = total(models)
        for dimension, limit in hard.items():
            if limit.hard is not None:
                assert after[dimension] <= max(limit.hard, before[dimension])


@given(st.lists(NEEDS, min_size=1, max_size=2), COUNTS, COUNTS, st.integers(0, 30))
def test_as_many_replicas_are_allowed_as_fit_and_one_more_would_not(needs, current, more, hard):
    wanted = current + more
    others = {name: 3 * SCALE[name] for name in COMPUTE}
    asked = {name: others[name] + needs_of(needs, current)[name] for name in COMPUTE}
    allowed = {name: Limit(hard * SCALE[name]) for name in COMPUTE}
    most, forbidden = most_replicas(allowed, asked, needs, current, wanted)
    assert current <= most <= wanted

    def fits(count):
        more = growth(needs_of(needs, current), needs_of(needs, count))
        return not admit(allowed, asked, more)

    assert most == current or fits(most)
    assert most == wanted or not fits(most + 1)
    assert bool(forbidden) == (most < wanted)


def test_fewer_replicas_are_always_allowed():
    needs = [Needs(resources=Resources(cpu_millis=1, memory_bytes=1), scaling=Scaling())]
    assert most_replicas(limits(replicas=0), {D.REPLICAS: 9}, needs, 9, 3) == (3, ())


def test_a_limit_below_what_is_used_refuses_only_what_grows():
    lowered = limits(cpu=1000, keys=5)
    used = {D.CPU: 4000, D.KEYS: 9}
    assert not admit(lowered, used, {D.CPU: 0, D.KEYS: -1})
    assert [one.dimension for one in admit(lowered, used, {D.CPU: 1, D.KEYS: 1})] == [D.CPU, D.KEYS]


def test_a_refusal_says_what_is_used_what_was_asked_and_the_limit():
    [one] = admit(limits(cpu=8000), {D.CPU: 7500}, {D.CPU: 1000})
    assert one.words == "cpu: 7500m of 8 used, 1 more asked"
    assert "scale a model down" in one.hint


def test_unlimited_and_unnamed_dimensions_refuse_nothing():
    assert not admit({D.KEYS: Limit(None)}, {}, {D.KEYS: 10**9, D.MODELS: 10**9})


def test_while_a_rollout_is_under_way_the_larger_of_both_revisions_counts_in_each_dimension():
    small = Needs(
        resources=Resources(cpu_millis=100, memory_bytes=4 * GIB), scaling=Scaling(max_replicas=2)
    )
    large = Needs(resources=Resources(cpu_millis=900, memory_bytes=GIB), scaling=Scaling())
    asked = needs_of([small, large], 3)
    assert asked == {D.CPU: 2700, D.MEMORY: 8 * GIB, D.GPU: 0, D.REPLICAS: 3}


def test_the_replicas_of_a_model_reserve_as_many_times_what_one_needs():
    resources = Resources(cpu_millis=250, memory_bytes=GIB, gpu_millis=500)
    assert reserved(resources, 4) == {D.CPU: 1000, D.MEMORY: 4 * GIB, D.GPU: 2000, D.REPLICAS: 4}


@pytest.mark.parametrize(("most", "scaled"), [(2, None), (3, 3), (5, 5)])
def test_the_autoscaler_goes_as_far_as_the_quota_and_says_why_no_further(most, scaled):
    verdict = Scale(Recommendation(replicas=6, reasons=("busy: 2 → 6",), utilization=0.9, at=1.0))
    bounded = limited(verdict, 2, most, ["cpu: 8 of 8 used, 1 more asked"])
    if scaled is None:
        assert isinstance(bounded, Hold)
        assert bounded.needed == 2
        words = bounded.reason
    else:
        assert isinstance(bounded, Scale)
        assert bounded.recommendation.replicas == scaled
        words = "; ".join(bounded.recommendation.reasons)
    assert "busy" in words
    assert f"6 needed, the quota allows {most} (cpu: 8 of 8 used, 1 more asked)" in words
