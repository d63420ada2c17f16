"""Measurements in the text format of Prometheus, with true values and bounded labels."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.api.conftest import Site
from tests.api.document import INFER


@pytest.fixture
def families(site: Site):
    answer = site.daemon.call("POST", "/v1/models/custom_legal_analyzer_v2/infer", INFER)
    assert answer.status == 200
    scraped = site.daemon.call("GET", "/metrics")
    assert scraped.headers["Content-Type"].startswith("text/plain")
    return {family.name: family for family in text_string_to_metric_families(scraped.raw.decode())}


def value(family, **labels):
    """Return the one sample that has these labels."""
    [found] = [s.value for s in family.samples if labels.items() <= s.labels.items()]
    return found


def test_every_family_is_prsmds_and_explained(families):
    assert families
    for family in families.values():
        assert family.name.startswith("prsmd_")
        assert family.documentation
        assert family.type != "unknown"


def test_replicas_and_status_are_those_of_the_status(site: Site, families):
    mine = {"deployment": site.accepted["deployment_id"], "organization": "company"}
    replicas = families["prsmd_deployment_replicas"]

    assert value(replicas, **mine, kind="desired") == 1
    assert value(replicas, **mine, kind="ready") == 1
    assert value(families["prsmd_deployment_status"], **mine, status="running") == 1


def test_inferences_are_counted_and_timed(site: Site, families):
    mine = {"deployment": site.accepted["deployment_id"]}
    requests = families["prsmd_inference_requests"]
    latency = families["prsmd_inference_latency_seconds"]
    answered = value(requests, **mine, outcome="ok")

    assert answered >= 1
    buckets = [
        s
        for s in latency.samples
        if s.name.endswith("_bucket") and mine.items() <= s.labels.items()
    ]
    counts = [sample.value for sample in buckets]
    assert counts == sorted(counts)
    assert buckets[-1].labels["le"] == "+Inf"
    assert counts[-1] == answered


def test_each_revision_is_counted_by_itself(site: Site, families):
    mine = {"deployment": site.accepted["deployment_id"], "outcome": "ok"}
    by_revision = families["prsmd_revision_requests"]
    all_together = value(families["prsmd_inference_requests"], **mine)

    assert value(by_revision, **mine, revision="1") == all_together
    assert not families["prsmd_rollout"].samples, "nothing is being rolled out"


def test_the_hardware_is_measured(families):
    [total] = [sample.value for sample in families["prsmd_gpu_memory_total_bytes"].samples]
    assert total == 15 * 2**30
    assert value(families["prsmd_gpu_telemetry_stale"]) == 0
    assert value(families["prsmd_engine_reachable"]) == 1
    assert value(families["prsmd_store_writable"]) == 1
    assert value(families["prsmd_host_memory_available_bytes"]) > 0


def test_labels_are_names_of_what_exists_never_what_a_client_sent(site: Site):
    for number in range(20):
        site.daemon.call("POST", f"/v1/models/made-up-{number}/infer", INFER)

    assert b"made-up" not in site.daemon.call("GET", "/metrics").raw


def test_how_the_audit_does_is_for_administrators_only(site: Site, families):
    names = {name for name in families if name.startswith("prsmd_audit_")}
    assert names == {f"prsmd_audit_{of}" for of in ("writable", "signing", "waiting", "lost")}
    scraped = site.daemon.call("GET", "/metrics", key=site.keys["owner"])
    assert scraped.status == 200
    assert b"prsmd_host_cpu_percent" in scraped.raw
    assert b"prsmd_audit" not in scraped.raw
