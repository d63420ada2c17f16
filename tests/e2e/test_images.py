"""Images on a real engine: loaded without a network, private to an organization, collected."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from prsm_sdk import errors, image_calls
from prsm_sdk.sync import SyncClient
from prsm_sdk.target import Target
from prsm_sdk.upload import Upload
from tests.support.daemon import Daemon
from tests.support.daemon_fixtures import deploy_body
from tests.support.engine import MODEL_IMAGE, PrivateEngine
from tests.support.registry import PASSWORD, USER, PrivateRegistry, build_image, remove_image

pytestmark = pytest.mark.engine

SETTINGS = {"images.min_free": '"1Mi"'}
LOADED = "company/from-an-archive:1"


def ctl(daemon: Daemon, *arguments: str, stdin: bytes = b"") -> str:
    """Run prsmctl on the daemon's socket; return what it printed."""
    command = [sys.executable, "-m", "prsmd.cli.main", *arguments, "--socket", str(daemon.socket)]
    done = subprocess.run(command, input=stdin, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.decode()


def images(daemon: Daemon, **more: str) -> dict[str, dict[str, object]]:
    """Return the images that are listed, by reference."""
    listed = daemon.call("GET", "/v1/images", **more).json["images"]
    return {reference: image for image in listed for reference in image["references"]}


@pytest.fixture
def archive(engine: PrivateEngine, tmp_path: Path) -> Iterator[Path]:
    """Give what `docker save` writes of an image that the engine then no longer has."""
    build_image(engine, LOADED, base=MODEL_IMAGE, layers=1)
    path = tmp_path / "model.tar"
    save = ["docker", "save", "--output", str(path), LOADED]
    subprocess.run(save, env=engine.environment, check=True)
    remove_image(engine, LOADED)
    yield path
    remove_image(engine, LOADED)


def test_a_model_is_deployed_from_an_archive_and_its_image_goes_when_nobody_needs_it(
    daemon: Daemon, archive: Path
) -> None:
    assert LOADED in ctl(daemon, "image", "load", str(archive))
    assert "loaded" in ctl(daemon, "image", "list")
    deployment = daemon.deploy(deploy_body(container_image=LOADED))
    daemon.until_ready(deployment, 1)

    pruned = json.loads(ctl(daemon, "image", "prune", "-o", "json"))
    assert LOADED not in [name for image in pruned["removed"] for name in image["names"]]
    assert images(daemon)[LOADED]["in_use"]

    daemon.remove_models()
    rehearsed = json.loads(ctl(daemon, "image", "prune", "--dry-run", "-o", "json"))
    assert [image["names"] for image in rehearsed["removed"]] == [[LOADED]]
    assert LOADED in images(daemon)
    ctl(daemon, "image", "prune")
    assert LOADED not in images(daemon)
    assert MODEL_IMAGE in images(daemon)


def test_one_organizations_private_image_runs_for_it_and_for_nobody_else(
    daemon: Daemon, engine: PrivateEngine, closed_registry: PrivateRegistry, tmp_path: Path
) -> None:
    build_image(engine, "prsmd-test/secret:1", base=MODEL_IMAGE, layers=1)
    pinned = closed_registry.push(engine, "prsmd-test/secret:1", "acme/secret", "1")
    remove_image(engine, "prsmd-test/secret:1")
    name = closed_registry.name("acme/secret:1")
    acme, rival = daemon.key("owner", "acme"), daemon.key("owner", "rival")
    login = {
        "server": f"127.0.0.1:{closed_registry.port}",
        "username": USER,
        "password": PASSWORD,
    }
    assert daemon.call("POST", "/v1/registries", login, key=acme).status == 201

    def deployed(key: str, model: str, image: str) -> str:
        body = deploy_body(model, container_image=image)
        answer = daemon.call("POST", "/v1/custom-models/deploy", body, key=key)
        assert answer.status == 202, answer
        return str(answer.json["deployment_id"])

    hers = deployed(acme, "secret", name)
    daemon.until_ready(hers, 1)
    assert daemon.status(hers)["image_digest"] == pinned

    for number, reference in enumerate((name, pinned)):
        theirs = deployed(rival, f"theft-{number}", reference)

        def refused(theirs: str = theirs) -> bool:
            details = daemon.status(theirs)["replica_details"]
            messages = " ".join(replica["message"] for replica in details)
            return "no basic auth credentials" in messages or "does not let rival" in messages

        daemon.until("the registry's refusal", refused)
        assert daemon.status(theirs)["replicas"]["ready"] == 0

    assert name in images(daemon, key=acme)
    assert name not in images(daemon, key=rival)
    state = [path for path in (daemon.folder / "state").rglob("*") if path.is_file()]
    assert all(PASSWORD.encode() not in path.read_bytes() for path in state)
    assert PASSWORD not in daemon.log
    assert PASSWORD not in json.dumps(daemon.call("GET", "/v1/registries").json)
    daemon.remove_models()
    remove_image(engine, name)
    remove_image(engine, pinned)


@pytest.mark.parametrize("tcp", [True, False])
def test_a_large_upload_that_is_refused_is_told_why(daemon: Daemon, tcp: bool) -> None:
    key = daemon.key("viewer")
    url = f"http://127.0.0.1:{daemon.tcp_port}" if tcp else f"unix://{daemon.socket}"
    client = SyncClient(Target.resolve(url, key), 30)
    content = io.BytesIO(os.urandom(64 << 20))
    with pytest.raises(errors.PermissionDeniedError, match=r"node\.manage"):
        client.send(image_calls.load_images(Upload(content)))
    assert content.tell() < 64 << 20  # it stopped as soon as it was answered
