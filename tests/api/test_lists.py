"""Lists: pages, orders and totals, the same for every noun."""

import pytest

from tests.api.conftest import Site

LISTS = [
    ("/v1/custom-models", "custom_models"),
    ("/v1/custom-models/deployments", "deployments"),
    ("/v1/models", "models"),
]


@pytest.mark.parametrize(("path", "name"), LISTS)
def test_pages_put_together_are_the_whole_list(site: Site, path, name):
    whole = site.daemon.call("GET", path).json
    pages = [site.daemon.call("GET", f"{path}?limit=1&offset={at}").json for at in range(3)]

    assert (whole["total"], whole["limit"], whole["offset"], whole["has_more"]) == (2, 20, 0, False)
    ids = [item["model_id"] for page in pages for item in page[name]]
    assert ids == [item["model_id"] for item in whole[name]]
    assert [page["has_more"] for page in pages] == [True, False, False]
    assert {page["total"] for page in pages} == {2}


@pytest.mark.parametrize(("path", "name"), LISTS)
@pytest.mark.parametrize("field", ["created_at", "model_name", "model_id"])
def test_lists_are_sorted_as_asked(site: Site, path, name, field):
    up, down = (
        [
            item["model_id"]
            for item in site.daemon.call("GET", f"{path}?sort_by={field}&sort_order={order}").json[
                name
            ]
        ]
        for order in ("asc", "desc")
    )
    assert up == down[::-1]
    assert up == ["custom_legal_analyzer_v2", "custom_plans"]


def test_what_can_be_inferred_is_listed_with_what_a_client_needs_to_choose(site: Site):
    [mine] = site.daemon.call("GET", "/v1/models", key=site.keys["invoker"]).json["models"]

    assert mine == {
        "model_id": "custom_legal_analyzer_v2",
        "deployment_id": site.accepted["deployment_id"],
        "model_name": "company-legal-analyzer-v2",
        "organization": "company",
        "model_type": "text-classification",
        "version": "2.1.0",
        "status": "running",
        "ready_replicas": 1,
    }


def test_a_model_is_shown_as_it_was_deployed(site: Site):
    shown = site.daemon.call("GET", "/v1/custom-models/custom_legal_analyzer_v2").json

    config = shown["deployment_config"]
    assert config["container_image"] == "company/legal-analyzer:v2.1"
    needs = config["resource_requirements"]
    assert (needs["cpu"], needs["memory"], needs["gpu"]) == ("2", "8Gi", "1")
    assert config["scaling"]["max_replicas"] == 10
    assert shown["model_metadata"]["capabilities"] == ["classification", "entity-extraction"]
    assert shown["deployment_id"] == site.accepted["deployment_id"]


def test_the_built_in_roles_and_the_own_ones_are_one_list(site: Site):
    own = [f"listed{number}" for number in range(3)]
    for name in own:
        body = {"name": name, "permissions": []}
        assert site.daemon.call("POST", "/v1/roles", body).status == 201
    try:
        whole = site.daemon.call("GET", "/v1/roles?limit=100").json
        pages = [
            site.daemon.call("GET", f"/v1/roles?limit=4&offset={at}").json
            for at in range(0, 100, 4)
        ]
    finally:
        for name in own:
            site.daemon.call("DELETE", f"/v1/roles/{name}")

    names = [each["name"] for each in whole["roles"]]
    assert [name for name in names if name in own] == own
    assert [each for page in pages for each in page["roles"]] == whole["roles"]
    assert {page["total"] for page in pages} == {whole["total"]} == {len(names)}
