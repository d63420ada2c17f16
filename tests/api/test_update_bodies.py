"""Bodies of update, rollback and traffic: what they come to, and which field a refusal names."""

from typing import Any

import pytest

from prsmd.api.update_schemas import RollbackBody, TrafficBody, spec_of, update_of
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError
from prsmd.domain.rollout import Gate, HeaderRule, RolloutOptions, RolloutStrategy

CANARY = {
    "strategy": "canary",
    "max_surge": 2,
    "min_ready_seconds": 5,
    "canary": {
        "steps": [5, 25, 100],
        "header": {"name": "X-Try", "value": "new"},
        "sticky": True,
    },
    "bake_seconds": 30,
    "gate": {"max_error_rate": 0.01, "max_latency_ratio": 1.5, "min_requests": 100},
    "promotion": "manual",
}


def wrong(call: Any, *arguments: Any) -> list[str]:
    """Return the fields that a refusal names."""
    with pytest.raises(InvalidInputError) as refused:
        call(*arguments)
    return [problem["field"] for problem in refused.value.details["validation_errors"]]


def test_rollout_options_are_taken_as_given():
    patch, options = update_of({"model_type": "x", "rollout": CANARY})

    assert patch == {"model_type": "x"}
    assert options == RolloutOptions(
        strategy=RolloutStrategy.CANARY,
        max_surge=2,
        min_ready_seconds=5.0,
        steps=(5, 25, 100),
        bake_seconds=30.0,
        header=HeaderRule(name="X-Try", value="new"),
        sticky=True,
        gate=Gate(max_error_rate=0.01, max_latency_ratio=1.5, min_requests=100),
        promote_by_hand=True,
    )


@pytest.mark.parametrize("body", [{}, {"rollout": None}, {"rollout": {}}])
def test_what_is_not_said_is_the_default(body):
    assert update_of(body) == ({}, RolloutOptions())


@pytest.mark.parametrize("strategy", list(RolloutStrategy))
def test_every_strategy_can_be_asked_for(strategy):
    assert update_of({"rollout": {"strategy": strategy.value}})[1].strategy is strategy


def test_a_patch_keeps_its_nulls_and_sees_everything_a_deploy_has():
    patch: dict[str, Any] = {
        "model_type": None,
        "deployment_config": {
            "scaling": None,
            "environment": {"GONE": None, "NEW": "x"},
            "serving": {"health_path": None, "port": 9000},
        },
        "model_metadata": {"version": None},
    }
    assert update_of(patch)[0] == patch


WRONG = [
    ("deployment_config.imag", {"deployment_config": {"imag": None}}),
    (
        "deployment_config.scaling.min_replica",
        {"deployment_config": {"scaling": {"min_replica": 1}}},
    ),
    ("deployment_config.environment", {"deployment_config": {"environment": {"A": 5}}}),
    ("deployment_config.container_image", {"deployment_config": {"container_image": "A B"}}),
    ("deployment_config", {"deployment_config": 5}),
    ("model_metadata.capabilities[1]", {"model_metadata": {"capabilities": ["a", ""]}}),
    ("rollout", {"rollout": "canary"}),
    ("rollout.strategy", {"rollout": {"strategy": "big_bang"}}),
    ("rollout.stratgy", {"rollout": {"stratgy": "canary"}}),
    ("rollout.canary.steps[1]", {"rollout": {"strategy": "canary", "canary": {"steps": [1, 101]}}}),
    ("rollout.canary.steps[0]", {"rollout": {"strategy": "canary", "canary": {"steps": [0]}}}),
    ("rollout.canary.steps", {"rollout": {"strategy": "canary", "canary": {"steps": [50, 10]}}}),
    ("rollout.canary.steps", {"rollout": {"strategy": "canary", "canary": {"steps": []}}}),
    ("rollout.canary", {"rollout": {"canary": {"steps": [10]}}}),
    ("rollout.shadow", {"rollout": {"strategy": "canary", "shadow": {}}}),
    ("rollout.gate", {"rollout": {"strategy": "surge", "gate": {}}}),
    (
        "rollout.gate.max_error_rate",
        {"rollout": {"strategy": "canary", "gate": {"max_error_rate": 2}}},
    ),
    ("rollout.bake_seconds", {"rollout": {"strategy": "shadow", "bake_seconds": -1}}),
    ("rollout.promotion", {"rollout": {"strategy": "canary", "promotion": "later"}}),
    ("rollout.max_surge", {"rollout": {"strategy": "surge", "max_surge": 0}}),
    ("rollout.max_surge", {"rollout": {"max_surge": True}}),
    *(
        (
            f"rollout.canary.header.{field}",
            {"rollout": {"strategy": "canary", "canary": {"header": h}}},
        )
        for field, h in (
            ("name", {"name": "Authorization", "value": "x"}),
            ("name", {"name": "a b", "value": "x"}),
            ("value", {"name": "X-A", "value": "x\r\ny"}),
            ("value", {"name": "X-A"}),
        )
    ),
]


@pytest.mark.parametrize(("field", "body"), WRONG, ids=lambda value: str(value)[:60])
def test_a_wrong_field_of_an_update_is_named(field, body):
    assert wrong(update_of, body) == [field]


def test_a_typo_inside_a_patch_names_the_nearest_field():
    with pytest.raises(InvalidInputError, match="did you mean min_replicas"):
        update_of({"deployment_config": {"scaling": {"min_replica": None}}})


@pytest.mark.parametrize(
    ("body", "field"),
    [({}, "model_name"), ({"model_name": "m", "deployment_config": {}}, "deployment_config.")],
)
def test_what_a_merged_body_lacks_is_named(body, field):
    assert wrong(spec_of, body)[0].startswith(field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"revision": 1, "version": "1.0.0"}, "body"),
        ({"revision": 0}, "revision"),
        ({"revision": "1"}, "revision"),
        ({"version": "latest"}, "version"),
        ({"to": 1}, "to"),
        ({"rollout": {"strategy": "x"}}, "rollout.strategy"),
    ],
)
def test_a_wrong_field_of_a_rollback_is_named(body, field):
    assert wrong(parse, RollbackBody, body) == [field]


@pytest.mark.parametrize(
    "weights", [{"3": 90, "2": 10}, [{"revision": 3, "weight": 90}, {"revision": 2, "weight": 10}]]
)
def test_weights_may_be_an_object_or_a_list(weights):
    assert parse(TrafficBody, {"weights": weights}).weights == {3: 90, 2: 10}


@pytest.mark.parametrize(
    ("weights", "why"),
    [
        ({"3": 90, "2": 11}, "must sum to 100, not to 101"),
        ({}, "must sum to 100"),
        ({"3": 150, "2": -50}, "0 or more"),
        ({"3": 100.0}, "whole numbers"),
        ({"3": True, "2": 99}, "whole numbers"),
        ({"three": 100}, "'three' is not the number of a revision"),
        ({"٣": 100}, "is not the number of a revision"),
        ({"3": 50, "03": 50}, "name each revision once"),
        ([{"revision": 3, "weight": 50}] * 2, "name each revision once"),
        ([{"revision": 3}], "each item must be"),
        ([3, 2], "must be an object"),
        ("3=100", "must be an object"),
        (None, "must be an object"),
    ],
    ids=str,
)
def test_wrong_weights_are_refused_with_the_reason(weights, why):
    with pytest.raises(InvalidInputError, match=why):
        parse(TrafficBody, {"weights": weights})
    assert wrong(parse, TrafficBody, {"weights": weights}) == ["weights"]
