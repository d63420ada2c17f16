"""A spec as a body: it comes back the same, is patched as RFC 7396 says, and its changes named."""

import dataclasses
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.api.schemas import DeployBody
from prsmd.api.validation import parse
from prsmd.domain.body import HIDDEN, body_of, differences, patched
from prsmd.domain.quantity import GIB
from prsmd.domain.spec import Metadata, Resources, Scaling, SecretUse, Security, Serving, Spec

_TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
_LABELS = st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple)
_PATHS = st.one_of(st.none(), st.from_regex(r"/[a-z0-9/]{0,8}", fullmatch=True))
_SECONDS = st.floats(1, 3600)


@st.composite
def resources(draw: st.DrawFn) -> Resources:
    gpu = draw(st.one_of(st.integers(0, 1000), st.integers(1, 64).map(lambda n: n * 1000)))
    memory = draw(st.one_of(st.none(), st.integers(1, 2**53))) if gpu else None
    return Resources(
        cpu_millis=draw(st.integers(1, 10**7)),
        memory_bytes=draw(st.integers(1, 2**53)),
        gpu_millis=gpu,
        gpu_memory_bytes=memory,
    )


@st.composite
def scalings(draw: st.DrawFn) -> Scaling:
    low = draw(st.integers(0, 1000))
    return Scaling(
        min_replicas=low,
        max_replicas=draw(st.integers(max(1, low), 1000)),
        target_utilization=draw(st.floats(0, 1, exclude_min=True)),
        scale_to_zero_after_seconds=draw(st.floats(1, 86400)),
    )


SPECS = st.builds(
    Spec,
    image=st.sampled_from(["a:v1", "reg.example:5000/a/b_c:x@sha256:" + "0" * 64, "a"]),
    model_type=st.text(min_size=1, max_size=20),
    resources=resources(),
    scaling=scalings(),
    serving=st.builds(
        Serving,
        protocol=st.sampled_from(["native", "other"]),
        port=st.integers(1, 65535),
        predict_path=_PATHS,
        health_path=_PATHS,
        startup_timeout_seconds=_SECONDS,
        request_timeout_seconds=_SECONDS,
        max_concurrency=st.integers(1, 10000),
        queue_depth=st.integers(0, 100000),
    ),
    security=st.builds(
        Security,
        run_as_user=st.integers(1, 2**31 - 2),
        writable_root=st.booleans(),
        egress=st.booleans(),
        runtime_class=st.sampled_from([None, "runsc"]),
    ),
    metadata=st.builds(
        Metadata,
        version=st.sampled_from(["1.0.0", "2.1.0-rc.1+b", "0.0.10"]),
        description=_TEXT,
        capabilities=_LABELS,
        domains=_LABELS,
    ),
    environment=st.dictionaries(st.from_regex(r"[A-Z]{2,5}X", fullmatch=True), _TEXT, max_size=3),
    secrets=st.dictionaries(
        st.from_regex(r"[A-Z]{2,5}Y", fullmatch=True),
        st.builds(SecretUse, st.sampled_from(["token", "a.b"]), st.booleans()),
        max_size=3,
    ),
    command=st.lists(_TEXT, max_size=3).map(tuple),
    args=st.lists(_TEXT, max_size=3).map(tuple),
)


def read(body: dict[str, Any]) -> Spec:
    return parse(DeployBody, {"model_name": "m", **body}).spec()


@given(SPECS)
def test_a_spec_written_back_is_read_as_the_same_spec(spec):
    assert read(body_of(spec)) == spec


@given(SPECS, SPECS)
def test_differences_are_there_exactly_where_specs_differ(one, other):
    assert (differences(one, other) == ()) == (one == other)
    assert differences(one, one) == ()


@given(SPECS, SPECS)
def test_a_whole_body_over_another_differs_from_its_own_only_in_variables(one, other):
    merged = read(patched(body_of(one), body_of(other)))
    variables = {**one.environment, **other.environment}
    secrets = {**one.secrets, **other.secrets}

    assert merged == dataclasses.replace(other, environment=variables, secrets=secrets)


RFC_7396 = [  # the examples of its appendix A
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]


@pytest.mark.parametrize(("body", "patch", "result"), RFC_7396)
def test_a_patch_does_what_rfc_7396_says(body, patch, result):
    assert patched(body, patch) == result


SPEC = Spec(
    image="a:v1",
    model_type="custom",
    resources=Resources(cpu_millis=2000, memory_bytes=8 * GIB),
    environment={"TOKEN": "s3cret", "GONE": "x"},
    args=("--password=s3cret",),
)


def test_changes_are_named_as_in_the_body_and_show_no_secret():
    after = dataclasses.replace(
        SPEC,
        resources=Resources(cpu_millis=500, memory_bytes=8 * GIB),
        environment={"TOKEN": "other", "NEW": "y"},
        args=("--password=other",),
    )

    found = {change.field: (change.before, change.after) for change in differences(SPEC, after)}

    assert found == {
        "deployment_config.resource_requirements.cpu": ("2", "500m"),
        "deployment_config.environment.TOKEN": (HIDDEN, HIDDEN),
        "deployment_config.environment.GONE": (HIDDEN, None),
        "deployment_config.environment.NEW": (None, HIDDEN),
        "deployment_config.args": (HIDDEN, HIDDEN),
    }
    assert "s3cret" not in str(found)
