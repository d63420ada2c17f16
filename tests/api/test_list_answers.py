"""Answers with long lists are what the whole would be in JSON, written item by item."""

import json

import pytest

from prsmd.api import respond


@pytest.mark.parametrize("items", [[], [1], [1, "é", None]])
def test_a_list_is_what_the_whole_would_be_in_json(items):
    body = {"things": items, "total": 9, "more": {"a": [1]}}
    response = respond.json_list_response(body, "things", lambda item: {"is": item})

    assert json.loads(response.body) == {**body, "things": [{"is": item} for item in items]}
    assert response.content_type == "application/json"


def test_each_item_is_written_by_itself(monkeypatch):
    sizes = []

    def written(value):
        sizes.append(len(json.dumps(value)))
        return json.dumps(value).encode()

    monkeypatch.setattr(respond, "json_text", written)
    respond.json_list_response({"things": ["x" * 100] * 50, "total": 50}, "things", str)

    assert len(sizes) == 50 + 2
    assert max(sizes) < 200
