"""The contract that every serving protocol in the registry keeps."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.errors import ProviderError
from prsmd.domain.spec import Serving
from prsmd.protocols.base import (
    EVENT_STREAM,
    ContainerAnswer,
    ModelRequest,
    ServingProtocol,
    path_problem,
)
from prsmd.protocols.registry import PROTOCOLS
from tests.support.steps import done

every_protocol = pytest.mark.parametrize("protocol", PROTOCOLS.values(), ids=PROTOCOLS)
ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)  # fmt: skip
OVERRIDES = Serving(predict_path="/my/predict", health_path="/my/health")


def answer(body: bytes, status: int = 200) -> ContainerAnswer:
    return ContainerAnswer(status=status, content_type="application/json", body=body)


@every_protocol
def test_the_registry_knows_it_by_its_own_name(protocol: ServingProtocol):
    assert PROTOCOLS[protocol.name] is protocol


@every_protocol
def test_its_own_paths_are_fine_and_the_spec_overrides_them(protocol: ServingProtocol):
    request = ModelRequest(model="m", inputs=b'{"text": "x"}')
    assert protocol.problem(Serving()) is None
    assert path_problem(protocol.health_path(Serving())) is None
    assert path_problem(protocol.request(request, Serving()).path) is None
    assert protocol.problem(OVERRIDES) is None
    assert protocol.health_path(OVERRIDES) == "/my/health"
    assert protocol.request(request, OVERRIDES).path == "/my/predict"


@every_protocol
@pytest.mark.parametrize("field", ["predict_path", "health_path"])
def test_a_path_that_leads_elsewhere_is_refused_by_name(protocol: ServingProtocol, field: str):
    problem = protocol.problem(Serving(**{field: "/../admin"}))
    assert problem is not None
    assert field in problem


@every_protocol
def test_a_stream_is_asked_for_only_when_wanted(protocol: ServingProtocol):
    plain = protocol.request(ModelRequest(model="m", inputs=b"{}"), Serving())
    streamed = protocol.request(ModelRequest(model="m", inputs=b"{}", stream=True), Serving())
    assert EVENT_STREAM not in plain.headers["Accept"]
    assert EVENT_STREAM in streamed.headers["Accept"]


@every_protocol
@given(
    body=st.binary(max_size=300)
    | (ANY_JSON | ANY_JSON.map(lambda value: {"outputs": value})).map(
        lambda value: json.dumps(value).encode()
    )
)
def test_any_answer_becomes_writable_outputs_or_a_provider_error(
    protocol: ServingProtocol, body: bytes
):
    try:
        outputs, error = bytes(done(protocol.outputs(answer(body)))), None
    except ProviderError as caught:
        outputs, error = b"null", caught
    json.loads(outputs, parse_constant=pytest.fail)
    if error is not None:
        assert error.details["provider_status"] == 200
        assert len(error.details["provider_text"]) <= 500


@every_protocol
@given(status=st.integers(100, 599).filter(lambda code: code != 200), text=st.text(max_size=2000))
def test_any_other_status_is_an_error_that_quotes_printable_text(
    protocol: ServingProtocol, status: int, text: str
):
    body = text.encode("utf-8", "replace")
    with pytest.raises(ProviderError) as caught:
        done(protocol.outputs(answer(body, status)))
    assert caught.value.details["provider_status"] == status
    assert str(status) in caught.value.message
    assert len(caught.value.details["provider_text"]) <= 500
    assert caught.value.message.isprintable()
