"""prsmd's own container contract, to the byte."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.errors import ProviderError
from prsmd.domain.spec import Serving
from prsmd.protocols.base import ContainerAnswer, ModelRequest, path_problem
from prsmd.protocols.native import Native
from tests.support.steps import done

JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
)


def ok(content: object) -> ContainerAnswer:
    body = json.dumps(content).encode()
    return ContainerAnswer(status=200, content_type="application/json", body=body)


def test_an_inference_is_a_post_of_inputs_and_parameters():
    request = ModelRequest(model="m", inputs=b'{ "text":\t"hi"}', parameters=b'{"top": 3.0}')
    sent = Native().request(request, Serving())
    assert (sent.method, sent.path) == ("POST", "/infer")
    assert b"".join(sent.body) == b'{"inputs":{ "text":\t"hi"},"parameters":{"top": 3.0}}'
    assert sent.size == len(b"".join(sent.body))
    assert sent.headers == {"Content-Type": "application/json", "Accept": "application/json"}


def test_health_is_where_the_contract_says():
    assert Native().health_path(Serving()) == "/health"


@given(JSON_VALUES)
def test_outputs_come_back_as_they_are(outputs: object):
    answer = ok({"outputs": outputs, "other": 1})
    assert json.loads(bytes(done(Native().outputs(answer)))) == outputs


@pytest.mark.parametrize("content", [{}, [], "outputs", None, {"output": 1}, {"Outputs": 1}])
def test_an_answer_without_outputs_is_refused(content: object):
    with pytest.raises(ProviderError, match='not a JSON object with "outputs"'):
        done(Native().outputs(ok(content)))


PATHS = {
    "/": None,
    "/v1/infer": None,
    "/a%20b/:predict": None,
    "": "slash",
    "infer": "slash",
    "//evil.example/x": "slash",
    "http://evil.example/": "slash",
    "/a?b": "plain",
    "/a#b": "plain",
    "/a b": "plain",
    "/a\r\nHost: evil": "plain",
    "/a\\b": "plain",
    "/\x00": "plain",
    "/ü": "plain",
    "/a/../b": "segments",
    "/a/%2e%2E/b": "segments",
    "/.": "segments",
    "/" + "a" * 1024: "1024",
}


@pytest.mark.parametrize(("path", "problem"), PATHS.items(), ids=map(repr, range(len(PATHS))))
def test_only_plain_absolute_paths_are_fine(path: str, problem: str | None):
    found = path_problem(path)
    assert (found is None) == (problem is None)
    if problem is not None:
        assert problem in (found or "")
