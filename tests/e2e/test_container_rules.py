"""The operator's rules on a whole daemon: what is refused, to whom, and that the rest runs."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.daemon import ROOT, Daemon, running_daemon
from tests.support.daemon_fixtures import deploy_body, docker_settings
from tests.support.engine import MODEL_IMAGE, PrivateEngine

pytestmark = pytest.mark.engine
SETTINGS = {
    "security.allow_egress": '["company"]',
    "runtime.classes": '["runc", "kata"]',
    "images.allowed_registries": '["docker.io/prsmd-test"]',
}
DEPLOY = "/v1/custom-models/deploy"


def test_a_way_out_is_granted_to_the_organization_that_is_named_and_to_no_other(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    body = deploy_body(security={"egress": True})
    daemon.until_ready(daemon.deploy(body), 1)
    with engine.client() as client:
        (network,) = [one.attrs for one in client.networks.list() if one.name.startswith("prsmd-")]
    assert (network["Internal"], network["Name"].endswith("-egress")) == (False, True)

    for path in (DEPLOY, f"{DEPLOY}?dry_run=true"):
        refused = daemon.call("POST", path, body, key=daemon.key("owner", "rival"))
        assert refused.status == 403, refused
        assert "[security] allow_egress" in refused.json["message"]


def test_a_model_that_runs_is_not_loosened_by_an_update_either(daemon: Daemon) -> None:
    daemon.until_ready(daemon.deploy(deploy_body()), 1)
    patch = {"deployment_config": {"security": {"writable_root": True}}}
    refused = daemon.call("PUT", "/v1/custom-models/custom_model", patch)
    assert refused.status == 403, refused
    assert "[security] allow_writable_root" in refused.json["message"]


def test_runtime_classes_are_those_of_the_settings_and_of_the_engine(
    daemon: Daemon, engine: PrivateEngine
) -> None:
    unknown = daemon.call("POST", DEPLOY, deploy_body(security={"runtime_class": "runsc"}))
    assert unknown.status == 400
    assert "known are: runc, kata" in unknown.json["message"]

    daemon.until_ready(daemon.deploy(deploy_body(security={"runtime_class": "runc"})), 1)
    other = daemon.deploy(deploy_body("company-other", security={"runtime_class": "kata"}))
    event = daemon.until_event(other, "LaunchFailed")
    assert "the engine has no runtime class kata; it has" in event["message"]
    assert "runc" in event["message"]


def test_images_come_from_where_they_may_only(daemon: Daemon) -> None:
    refused = daemon.call("POST", DEPLOY, deploy_body(container_image="evil.example/a/b:1"))
    assert refused.status == 403
    assert "[images] allowed_registries" in refused.json["message"]


@pytest.fixture
def signing(tmp_path: Path) -> dict[str, Path]:
    """Give a key and the place of a list, made as an operator makes them."""
    key = tmp_path / "images.pem"
    script = [sys.executable, str(ROOT / "scripts" / "sign-images")]
    subprocess.run([*script, "--new-key", str(key)], check=True, capture_output=True)
    return {"key": key, "public": tmp_path / "images.pub.pem", "list": tmp_path / "signed"}


def sign(signing: dict[str, Path], *digests: str) -> None:
    """Write the list of these images."""
    script = [sys.executable, str(ROOT / "scripts" / "sign-images"), "--key", str(signing["key"])]
    made = subprocess.run([*script, "--days", "1", *digests], check=True, capture_output=True)
    signing["list"].write_bytes(made.stdout)


@pytest.fixture
def strict(engine: PrivateEngine, signing: dict[str, Path], tmp_path: Path) -> Iterator[Daemon]:
    """Give a daemon that runs only what was signed."""
    folder = tmp_path / "strict"
    folder.mkdir()
    settings = {
        **docker_settings(engine),
        "images.trusted_keys": f'["{signing["public"]}"]',
        "images.signed_lists": f'["{signing["list"]}"]',
    }
    with running_daemon(folder, settings) as daemon:
        yield daemon


def test_only_images_that_were_signed_run(
    strict: Daemon, engine: PrivateEngine, signing: dict[str, Path]
) -> None:
    with engine.client() as client:
        id_ = client.images.get(MODEL_IMAGE).id
    sign(signing, "sha256:" + "0" * 64)
    deployment = strict.deploy(deploy_body())
    event: Any = strict.until_event(deployment, "ImageUnavailable")
    assert "no list of [images] signed_lists names sha256:" in event["message"]
    with engine.client() as client:
        assert not client.containers.list(all=True)

    sign(signing, f"{id_}=the test model")
    strict.until_ready(deployment, 1, 60)

    content = signing["list"].read_bytes()
    signing["list"].write_bytes(content.replace(b"the test model", b"the best model"))
    refused = strict.deploy(deploy_body("company-other"))
    event = strict.until_event(refused, "ImageUnavailable")
    assert "its signature does not belong to its content" in event["message"]

    pinned = deploy_body("company-pinned", container_image=f"a/b@{id_}")
    assert strict.call("POST", DEPLOY, pinned).status == 403
