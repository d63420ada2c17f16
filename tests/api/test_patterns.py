"""What the shape of a name must be is told in words, never as a pattern."""

import json

import pytest

from prsmd.api import identity_schemas, image_schemas, schemas, secret_schemas, update_schemas
from prsmd.api.patterns import IN_WORDS
from prsmd.api.schemas import Body
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError

MODULES = [identity_schemas, image_schemas, schemas, secret_schemas, update_schemas]
BODIES = [
    value
    for module in MODULES
    for value in vars(module).values()
    if isinstance(value, type) and issubclass(value, Body)
]


def patterns_in(schema: object) -> set[str]:
    if isinstance(schema, dict):
        own = {schema["pattern"]} if isinstance(schema.get("pattern"), str) else set()
        return own.union(*(patterns_in(value) for value in schema.values()))
    if isinstance(schema, list):
        return set().union(*(patterns_in(value) for value in schema))
    return set()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_pattern_of_a_request_has_words(body):
    assert patterns_in(body.model_json_schema()) <= set(IN_WORDS)


def test_a_name_of_the_wrong_shape_is_refused_in_words():
    with pytest.raises(InvalidInputError) as refusal:
        parse(identity_schemas.OrganizationBody, {"organization_id": "Lab"})
    [problem] = refusal.value.details["validation_errors"]
    assert problem == {
        "field": "organization_id",
        "error": "must be 1 to 63 of a-z, 0-9 and '-', with a letter or digit first",
        "provided_value": "Lab",
    }
    assert "^[" not in json.dumps(refusal.value.details)
