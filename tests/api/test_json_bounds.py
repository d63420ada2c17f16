"""However a body is made, little is built of it: values, depth, digits and problems are bounded."""

import json
from pathlib import Path

import pytest

from prsmd.api import json_text
from prsmd.api.app import OPERATIONS
from prsmd.api.json_text import DEEPEST, MOST_VALUES, parse_json
from prsmd.api.operations import CONTROL_BODY_BYTES, EMPTY_BODY_BYTES
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError
from tests.api.served import served
from tests.engine.conftest import life, world
from tests.engine.harness import Life

__all__ = ["life", "world"]
BODIES = sorted(
    {each.body for each in OPERATIONS if each.body is not None}, key=lambda body: body.__name__
)
MUCH = {
    "values": b"[" + b"1," * MOST_VALUES + b"1]",
    "members": b"{" + b",".join(b'"a%d":0' % n for n in range(MOST_VALUES + 1)) + b"}",
    "strings": b"[" + b'"",' * 300_000 + b'""]',
    "quotes": b'"' * 1_000_000,
    "containers": b"[" * 1_000_000,
    "empty lists": b"[" + b"[]," * MOST_VALUES + b"1]",
    "depth": b"[" * (DEEPEST + 1) + b"]" * (DEEPEST + 1),
    "depth of objects": b'{"a":' * 200_000,
    "digits": b"9" * 1_000_000,
    "numbers of many digits": b"[" + b",".join([b"9" * 4000] * 250) + b"]",
    "a long fraction": b"0." + b"3" * 63,
    "a long number out of range": b"1" + b"0" * 400 + b".0",
    "digits after strings with quotes": b'["\\"", "\\\\", ' + b"1," * MOST_VALUES + b"1]",
}


@pytest.mark.parametrize("text", MUCH.values(), ids=MUCH.keys())
def test_what_no_request_needs_is_refused_before_it_is_built(text):
    with pytest.raises(InvalidInputError) as told:
        parse_json(text)

    [problem] = told.value.details["validation_errors"]
    assert problem["field"] == "body"


@pytest.mark.parametrize(
    "number", ["9" * 65, "0." + "3" * 63, "-0." + "0" * 300 + "1", "1" + "0" * 400 + "e400"]
)
def test_a_long_number_is_refused_for_its_length_before_anything_is_made_of_it(number):
    """To read one of hundreds of digits near the smallest double takes up to 0.1 ms."""
    with pytest.raises(InvalidInputError, match="has a number of more than 64 characters"):
        parse_json(f'{{"a": [{number}]}}'.encode())


@pytest.mark.parametrize("text", [b"]" * 1_000_000, b"{}" + b"}" * 1_000_000, b"1]["])
def test_brackets_are_counted_no_further_than_one_that_none_opened(text):
    with pytest.raises(InvalidInputError, match="a bracket closes what none opened"):
        parse_json(text)


LITTLE = {
    "commas in a string": {"a": "1," * MOST_VALUES},
    "brackets in a string": {"a": "[{" * 1000 + "\\" * 7 + '"[' * 1000},
    "many values": {"a": list(range(MOST_VALUES - 10))},
    "a long string": {"a": "é" * 300_000},
    "long numbers": {"a": [-(2**63), 2**200, 5e-324, -1.7976931348623157e308]},
    "some depth": json.loads("[" * (DEEPEST - 1) + "]" * (DEEPEST - 1)),
}


@pytest.mark.parametrize("value", LITTLE.values(), ids=LITTLE.keys())
@pytest.mark.parametrize("ascii_only", [True, False])
def test_what_a_request_may_need_is_taken(value, ascii_only):
    assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_of_many_unknown_fields_twenty_are_named(body):
    with pytest.raises(InvalidInputError) as told:
        parse(body, {f"field{number}": number for number in range(MOST_VALUES)})

    problems = told.value.details["validation_errors"]
    assert [problem["field"] for problem in problems] == [f"field{n}" for n in range(20)]
    assert all(problem["error"].startswith("unknown field") for problem in problems)


def test_no_error_is_built_of_a_list_that_is_too_long():
    """Its items are not looked at: one problem tells of them all."""
    body = {"model_name": "m", "deployment_config": {"args": [1] * 9000, "container_image": "a"}}
    schema = next(each for each in BODIES if each.__name__ == "DeployBody")

    with pytest.raises(InvalidInputError) as told:
        parse(schema, body)

    [problem] = told.value.details["validation_errors"]
    assert problem["field"] == "deployment_config.args"
    assert problem["error"] == "must have at most 256 items"


def test_only_inferences_take_more_than_a_megabyte():
    larger = [
        f"{each.method} {each.path}"
        for each in OPERATIONS
        if each.most_body_bytes is None or each.most_body_bytes > CONTROL_BODY_BYTES
    ]
    assert larger == ["POST /v1/models/{model_id}/infer"]
    assert json_text.MOST_VALUES < CONTROL_BODY_BYTES // 2


def test_a_body_without_fields_is_small():
    empty = [each for each in OPERATIONS if each.body is not None and not each.body.model_fields]
    assert "/v1/members/{member_id}/accept" in {each.path for each in empty}
    assert {each.most_body_bytes for each in empty} == {EMPTY_BODY_BYTES}


async def test_a_body_that_says_nothing_is_refused_by_its_size_before_it_is_parsed(
    life: Life, tmp_path: Path
):
    async with served(life, tmp_path) as door:
        key = await door.api_key("viewer")
        told = await door.ask("POST", "/v1/members/x/accept", {"a": " " * 1024}, key=key)

    assert told.status == 413
    assert told.body["error"]["details"]["limit_bytes"] == EMPTY_BODY_BYTES
