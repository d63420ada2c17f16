"""No field of a request's body can be of any size: by its schema, or refused by its own check."""

import json
import re
import warnings

import pytest

from prsmd.api.app import OPERATIONS
from prsmd.api.validation import parse
from prsmd.domain.errors import InvalidInputError

with warnings.catch_warnings():
    warnings.simplefilter("ignore", DeprecationWarning)
    import sre_parse

ENDLESS = 2**31
LONG = "x" * 70_000
DEPLOY = {"model_name": "m", "deployment_config": {"container_image": "a/b:1"}}


def config(**fields):
    return {
        "model_name": "m",
        "deployment_config": {"container_image": "a/b:1", **fields},
    }


# What the schema does not bound, and the bodies that its own check has to refuse.
CHECKED = {
    "model_name": [{**DEPLOY, "model_name": LONG}],
    "deployment_config.container_image": [config(container_image=LONG)],
    "deployment_config.serving.predict_path": [config(serving={"predict_path": "/" + LONG})],
    "deployment_config.serving.health_path": [config(serving={"health_path": "/" + LONG})],
    "deployment_config.environment": [config(environment={f"A{n}": "" for n in range(257)})],
    "deployment_config.environment.*": [
        config(environment={"A": 2 * LONG}),
        config(environment={"A": "é" * 65_600}),
        config(environment={"A" * 200: ""}),
    ],
    "deployment_config.secrets": [config(secrets={f"A{n}": "s" for n in range(65)})],
    "deployment_config.secrets.*": [config(secrets={"A": LONG}), config(secrets={LONG: "s"})],
    "deployment_config.secrets.*.name": [config(secrets={"A": {"name": LONG}})],
    "model_metadata.version": [{**DEPLOY, "model_metadata": {"version": "1.0.0-" + LONG}}],
    "version": [{"version": "1.0.0-" + LONG}],
    "name": [{"name": LONG, "value": "v"}],
    "expires_at": [
        {"allowed_organizations": ["a"], "permissions": ["read"], "expires_at": LONG},
    ],
    "weights": [
        {"weights": {str(n): 0 for n in range(200)} | {"999": 100}},
        {"weights": [{"revision": n, "weight": 0} for n in range(200)]},
    ],
}
OPAQUE = {"InferBody.inputs", "InferBody.parameters"}  # the container's; limits.body bounds them


def endless(schema, known, path):
    """Yield the fields of a JSON schema that it does not bound."""
    if "$ref" in schema:
        schema = known[schema["$ref"].rpartition("/")[2]]
    for kind in ("anyOf", "allOf", "oneOf"):
        for each in schema.get(kind, ()):
            yield from endless(each, known, path)
    yield from by_kind(schema, known, path)
    if not {"type", "anyOf", "allOf", "oneOf", "enum", "const"} & schema.keys():
        yield path


def by_kind(schema, known, path):
    kinds = schema.get("type", ())
    kinds = [kinds] if isinstance(kinds, str) else kinds
    if "string" in kinds and not bounded_text(schema):
        yield path
    if "array" in kinds:
        if "maxItems" not in schema:
            yield path
        yield from endless(schema.get("items", {"const": 0}), known, path)
    if "object" in kinds:
        yield from of_object(schema, known, path)


def of_object(schema, known, path):
    more = schema.get("additionalProperties", False)
    if more is not False:
        if "maxProperties" not in schema:
            yield path
        yield from endless(more if isinstance(more, dict) else {}, known, f"{path}.*")
    for name, each in schema.get("properties", {}).items():
        yield from endless(each, known, f"{path}.{name}".removeprefix("."))


def bounded_text(schema):
    if {"enum", "const", "maxLength"} & schema.keys():
        return True
    pattern = schema.get("pattern")
    return pattern is not None and sre_parse.parse(pattern).getwidth()[1] < ENDLESS


BODIES = sorted({each.body for each in OPERATIONS if each.body}, key=lambda body: body.__name__)


def unbounded(body):
    schema = body.model_json_schema()
    found = set(endless(schema, schema.get("$defs", {}), ""))
    return {path for path in found if f"{body.__name__}.{path}" not in OPAQUE}


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_every_field_is_bounded_by_its_schema_or_by_its_own_check(body):
    assert unbounded(body) - CHECKED.keys() - {"parameters.*"} == set()


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_what_the_schema_does_not_bound_its_own_check_refuses_by_name(body):
    for path in sorted(unbounded(body) & CHECKED.keys()):
        for given in CHECKED[path]:
            field = re.sub(r"(\.\*|\.name)+$", "", path).rpartition(".")[2]
            with pytest.raises(InvalidInputError) as refused:
                parse(body, given)
            named = [each["field"] for each in refused.value.details["validation_errors"]]
            assert any(field in name for name in named), (path, named)
            assert len(json.dumps(dict(refused.value.details))) < 5000


def test_each_exception_is_a_field_that_is_there():
    assert {path for body in BODIES for path in unbounded(body)} >= CHECKED.keys()


def lists(schema):
    """Yield the name and the most items of each list in a JSON schema."""
    for name, each in schema.get("properties", {}).items():
        for kind in (each, *each.get("anyOf", ())):
            if "maxItems" in kind:
                yield name, kind["maxItems"]


@pytest.mark.parametrize("body", BODIES, ids=lambda body: body.__name__)
def test_no_list_is_long_but_that_of_borrowers(body):
    """What a list names is looked at together with what others name: by each item, for each one."""
    schema = body.model_json_schema()
    found = [pair for each in (schema, *schema.get("$defs", {}).values()) for pair in lists(each)]

    long = {name for name, most in found if most > 256}
    assert long <= {"allowed_organizations", "allowed_keys"}


@pytest.mark.parametrize("name", ["models", "networks"])
@pytest.mark.parametrize("path", ["POST /v1/api-keys", "PATCH /v1/api-keys/{key_id}"])
def test_a_key_is_held_to_a_hundred_models_and_networks(path, name):
    [body] = [each.body for each in OPERATIONS if f"{each.method} {each.path}" == path]
    most = [f"10.0.0.{number}" for number in range(100)]

    assert len(getattr(parse(body, {name: most}), name)) == 100
    with pytest.raises(InvalidInputError):
        parse(body, {name: [*most, "10.0.1.0"]})
