"""Gradual scaling: one step at a time, up and down, as the load says, and never without a word."""

import pytest

from prsmd.core.steps import first_level, next_step
from prsmd.domain.deployment import ScalingStrategy
from prsmd.domain.replica import ReplicaState
from tests.core.cases import deployment, failed, healthy, replica
from tests.core.situations import layout, plan, rollout, sight

GRADUAL = ScalingStrategy.GRADUAL
ROWS = [replica(slot) for slot in range(3)]


def step(item, sees):
    found = next_step(item, layout(item, sees), sight(sees))
    return None if found is None else found.replicas


def gradual(*rows, asked, level, **changes):
    return deployment(*rows, asked=asked, gradual_level=level, scaling_strategy=GRADUAL, **changes)


@pytest.mark.parametrize(
    ("asked", "demand", "replicas"),
    [
        (6, 2.11, 4),  # 2.11 / 0.7 = 3.01 replicas are needed
        (6, 2.09, None),  # 2.99: three are enough
        (6, 99.0, 4),  # one step, however much there is to do
        (1, 1.39, 2),  # 1.99 replicas are needed, so one may go
        (1, 2.09, None),  # 2.99: all three are used
        (1, 0.0, 2),
        (3, 99.0, None),  # it is where it was to go
        (6, None, None),  # silence never scales
        (1, None, None),
    ],
)
def test_the_next_step_is_taken_as_the_load_says(asked, demand, replicas):
    sees = healthy(*ROWS, demand={} if demand is None else {"deploy_a": demand})
    assert step(gradual(*ROWS, asked=asked, level=3), sees) == replicas


def test_the_reason_says_how_much_work_there_is_and_what_it_needs():
    item = gradual(*ROWS, asked=6, level=3)
    sees = healthy(*ROWS, demand={"deploy_a": 3.5})
    (action,) = plan(item, sees=sees).actions
    assert action.reason == (
        "gradual: 4 on the way to 6, as 3.50 replicas' worth of work at 70% needs 5"
    )


def test_no_step_before_the_last_one_is_done():
    busy = {"deploy_a": 9.0}
    late = replica(2, ReplicaState.STARTING)
    assert step(gradual(*ROWS[:2], late, asked=6, level=3), healthy(*ROWS[:2], demand=busy)) is None
    assert step(gradual(*ROWS[:2], asked=6, level=3), healthy(*ROWS[:2], demand=busy)) is None
    gone = replica(3, ReplicaState.DRAINING)
    assert step(gradual(*ROWS, gone, asked=6, level=3), healthy(*ROWS, gone, demand=busy)) is None
    ended = failed(3)
    assert step(gradual(*ROWS, ended, asked=6, level=3), healthy(*ROWS, demand=busy)) == 4


def test_no_step_during_a_rollout():
    item = gradual(*ROWS, asked=6, level=3, rollout=rollout(from_revision=9, to_revision=1))
    assert step(item, healthy(*ROWS, demand={"deploy_a": 9.0})) is None


def test_what_is_withheld_says_what_it_waits_for():
    item = gradual(*ROWS, asked=5, level=3)
    result = plan(item, sees=healthy(*ROWS, demand={"deploy_a": 1.0}))
    assert result.actions == ()
    assert [(hold.slot, hold.kind) for hold in result.holds] == [(3, "gradual"), (4, "gradual")]
    assert result.holds[0].reason == (
        "scaling is gradual: the step after 3 of 5 is taken when all of them are ready and used"
        " beyond 70%"
    )
    assert result.holds[0].details == ("lately: 1.00 replicas' worth of work",)
    silent = plan(item, sees=healthy(*ROWS)).holds[0]
    assert silent.details == ("lately: nothing is known",)


@pytest.mark.parametrize(("level", "target"), [(3, 2), (0, 1), (2, 2)])
def test_the_level_is_kept_within_the_bounds(level, target):
    item = gradual(*ROWS, asked=2, level=level, least=1, most=2)
    assert layout(item, healthy(*ROWS)).target == target


def test_a_recommendation_knows_no_levels():
    item = gradual(*ROWS, asked=6, level=3, recommended=5)
    assert layout(item, healthy(*ROWS)).target == 5


@pytest.mark.parametrize(
    ("strategy", "active", "target", "level"),
    [
        (ScalingStrategy.IMMEDIATE, 1, 5, None),
        (GRADUAL, 1, 5, 2),
        (GRADUAL, 5, 1, 4),
        (GRADUAL, 3, 3, 3),
    ],
)
def test_the_first_step_is_the_asking_itself(strategy, active, target, level):
    assert first_level(strategy, active, target) == level
