"""Two answers are alike when a client could not tell them apart, rounding aside."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.comparison import compare


def alike(one: Any, other: Any) -> bool:
    return all(compare(one, other))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(st.text(), inside, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_a_value_is_like_itself_and_like_its_copy(value: Any):
    assert alike(value, value)
    assert alike(value, json.loads(json.dumps(value)))


@given(JSON, JSON)
def test_it_does_not_matter_which_comes_first(one: Any, other: Any):
    assert alike(one, other) == alike(other, one)


@given(JSON, JSON)
def test_what_differs_inside_differs_outside(one: Any, other: Any):
    assert alike([0, {"a": one}], [0, {"a": other}]) == alike(one, other)


@given(st.floats(1e-3, 1e300), st.floats(-0.9e-6, 0.9e-6))
def test_numbers_within_a_millionth_are_alike(number: float, error: float):
    assert alike(number, number * (1 + error))
    assert not alike(number, number * 1.00001)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 1.0), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), (0.0, 1e-12), (10**400, 10**400),
        ([0.1 + 0.2], [0.3]), ({}, {}),
    ],
)  # fmt: skip
def test_these_are_alike(one: Any, other: Any):
    assert alike(one, other)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, True), (0, False), (0, None), ("1", 1), ([], {}), ([1], [1, 1]), ([1, 2], [2, 1]),
        ({"a": 1}, {"b": 1}), ({"a": 1}, {"a": 1, "b": 1}), (10**400, 10**401), (10**400, 1.0),
        (1.0, -1.0), ("a", "A"),
    ],
)  # fmt: skip
def test_these_differ(one: Any, other: Any):
    assert not alike(one, other)
    assert not alike(other, one)


def test_deep_values_are_compared_to_the_bottom():
    def nest(bottom: int) -> Any:
        value: Any = bottom
        for _ in range(50_000):
            value = [value]
        return value

    assert alike(nest(1), nest(1))
    assert not alike(nest(1), nest(2))


def test_nothing_is_compared_after_the_first_difference():
    assert list(compare([1, 2, 3], {"a": 1})) == [False]
