"""Query parameters mean what they say, or are refused by name."""

import pytest
from aiohttp.test_utils import make_mocked_request

from prsmd.api.requests import moment
from prsmd.domain.errors import InvalidInputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1767225600", 1767225600.0),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:00:00%2B01:00", 1767225600.0),
    ],
)
def test_a_moment_is_an_rfc_3339_time_or_epoch_seconds(text: str, seconds: float) -> None:
    assert moment(make_mocked_request("GET", f"/?since={text}"), "since") == seconds


def test_no_moment_is_none() -> None:
    assert moment(make_mocked_request("GET", "/"), "since") is None


@pytest.mark.parametrize("text", ["yesterday", "-1", "nan", "2026-01-01T00:00:00", "1e99", ""])
def test_what_is_no_moment_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(InvalidInputError, match="2026-01-01T00:00:00Z"):
        moment(make_mocked_request("GET", f"/?since={text}"), "since")
