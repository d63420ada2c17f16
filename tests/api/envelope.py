"""The documented form of every error."""

import re

from tests.api.wire import parts
from tests.support.daemon import Answer


def refused(answer: Answer | bytes, status: int, code: str) -> None:
    """Fail unless this is the documented error: status, code, envelope and headers."""
    if isinstance(answer, bytes):
        found, headers, body = parts(answer)
    else:
        found, body = answer.status, answer.json
        headers = {name.lower(): value for name, value in answer.headers.items()}
    error = body["error"]
    assert (found, error["code"]) == (status, code), body
    assert set(body) == {"error", "message"}
    assert set(error) == {"code", "message", "details", "request_id", "timestamp"}
    assert body["message"] == error["message"] != ""
    assert headers["content-type"].startswith("application/json")
    assert headers["x-request-id"] == error["request_id"]
    assert headers["server"] == "prsmd"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", error["timestamp"])
    if code == "INVALID_INPUT":
        for problem in error["details"]["validation_errors"]:
            assert set(problem) == {"field", "error", "provided_value"}


def problem_fields(answer: Answer) -> list[str]:
    """Return the fields that an error names."""
    return [problem["field"] for problem in answer.json["error"]["details"]["validation_errors"]]
