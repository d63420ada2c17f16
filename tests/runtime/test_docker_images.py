"""Archives and logins on a real engine and a real registry."""

import subprocess

import pytest

from prsmd.domain.errors import ImageUnavailableError, PullBrokenOffError
from prsmd.domain.image import Login
from prsmd.runtime import archive
from prsmd.runtime.docker import DockerRuntime, DockerSettings
from tests.runtime.harness import launch_of
from tests.support import archives
from tests.support.engine import MODEL_IMAGE
from tests.support.registry import PASSWORD, USER, build_image, remove_image

pytestmark = pytest.mark.engine

MOST = 4 << 30
CLOSED = "prsmd-test/private"


@pytest.fixture
async def images(engine):
    driver = DockerRuntime(
        DockerSettings(instance="ours", base_url=engine.url, pull_silence_seconds=20)
    )
    yield driver.images
    await driver.close()


@pytest.fixture
def private(engine, closed_registry):
    """Push an image that only USER may read; return its name and digest."""
    build_image(engine, f"{CLOSED}:1", layers=1)
    pinned = closed_registry.push(engine, f"{CLOSED}:1", CLOSED, "1")
    remove_image(engine, f"{CLOSED}:1")
    name = closed_registry.name(f"{CLOSED}:1")
    yield name, pinned
    remove_image(engine, name)
    remove_image(engine, pinned)


def login(registry, password=PASSWORD):
    return Login(server=f"127.0.0.1:{registry.port}", username=USER, password=password)


def saved_by_docker(engine, folder, *names):
    path = folder / "saved.tar"
    command = ["docker", "save", "--output", str(path), *names]
    subprocess.run(command, env=engine.environment, check=True)
    return path


async def test_what_docker_itself_saves_is_loaded_and_runs(engine, images, tmp_path):
    with engine.client() as client:
        client.images.get(MODEL_IMAGE).tag("prsmd-test/again", "1")
    path = saved_by_docker(engine, tmp_path, "prsmd-test/again:1")
    remove_image(engine, "prsmd-test/again:1")

    verified = archive.verify(path, MOST)
    [image] = await images.load(verified, lambda _: None)

    assert image.reference == "prsmd-test/again:1"
    assert verified.unpacked_bytes > 10 << 20
    driver = DockerRuntime(DockerSettings(instance="ours", base_url=engine.url))
    container = await driver.launch(launch_of(image.digest))
    await driver.stop(container.id, 0)
    await driver.close()
    remove_image(engine, "prsmd-test/again:1")


async def test_images_that_share_layers_are_loaded_as_docker_saves_them(engine, images, tmp_path):
    """Docker writes a layer that two images share once, and a link for the other."""
    build_image(engine, "prsmd-test/shares:1", base=MODEL_IMAGE, layers=1)
    build_image(engine, "prsmd-test/shares:2", base=MODEL_IMAGE, layers=1)
    names = ("prsmd-test/shares:1", "prsmd-test/shares:2")
    path = saved_by_docker(engine, tmp_path, *names)
    for name in names:
        remove_image(engine, name)
    found = await images.load(archive.verify(path, MOST), lambda _: None)
    assert {image.reference for image in found} == set(names)
    for name in names:
        remove_image(engine, name)


async def test_the_engine_alone_does_not_load_an_oci_layout(engine, images, tmp_path):
    """Why archives are written anew. Once this fails, engines have learned it."""
    path = archives.written(tmp_path / "a.tar", archives.laid_out("prsmd-test/bare:1"))
    told = subprocess.run(  # noqa: ASYNC221 - nothing else runs here
        ["docker", "load", "--input", str(path)],
        env=engine.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert told.returncode != 0
    assert "no such file or directory" in told.stderr
    [image] = await images.load(archive.verify(path, MOST), lambda _: None)
    assert image.reference == "prsmd-test/bare:1"
    await images.remove(image.id)


async def test_a_pull_with_a_login_gets_what_nobody_else_may_read(
    images, closed_registry, private, tmp_path, monkeypatch
):
    name, pinned = private
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(ImageUnavailableError, match="prsmctl registry add"):
        await images.pull(name, lambda _: None)
    with pytest.raises(ImageUnavailableError, match="organization's login") as refused:
        await images.pull(name, lambda _: None, login(closed_registry, "wrong-password"))
    assert "wrong-password" not in refused.value.message
    assert not isinstance(refused.value, PullBrokenOffError)

    assert (await images.pull(name, lambda _: None, login(closed_registry))).digest == pinned


async def test_an_image_that_is_here_is_still_asked_for_at_its_registry(
    images, closed_registry, private, tmp_path, monkeypatch
):
    """What keeps one organization's private image from another that has no login."""
    name, _ = private
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    await images.pull(name, lambda _: None, login(closed_registry))
    with pytest.raises(ImageUnavailableError, match="no basic auth credentials"):
        await images.pull(name, lambda _: None)
    said = []
    await images.pull(name, said.append, login(closed_registry))
    assert sum(step.done_bytes for step in said) == 0  # no layer comes again


async def test_a_digest_that_is_here_is_pulled_without_a_word_to_its_registry(
    images, closed_registry, private, tmp_path, monkeypatch
):
    """Why `Stock` asks for such a digest itself. What it asks with does reach the registry."""
    name, pinned = private
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    await images.pull(name, lambda _: None, login(closed_registry))
    assert (await images.pull(pinned, lambda _: None)).digest == pinned
    assert await images.remote_digest(pinned) is None
    assert await images.remote_digest(pinned, login(closed_registry)) == pinned


async def test_the_registry_tells_a_digest_without_a_pull(images, closed_registry, private):
    name, pinned = private
    assert await images.remote_digest(name, login(closed_registry)) == pinned
    assert await images.remote_digest(name, login(closed_registry, "wrong")) is None
    assert await images.remote_digest(f"{name}9", login(closed_registry)) is None
    assert await images.resolve(name) is None


async def test_a_pulled_image_is_removed_with_its_tag_and_digest(images, closed_registry, private):
    name, pinned = private
    image = await images.pull(name, lambda _: None, login(closed_registry))
    await images.remove(image.id)
    for reference in (name, pinned, image.id):
        assert await images.resolve(reference) is None


async def test_an_image_pulled_by_digest_alone_is_listed_by_it(images, closed_registry, private):
    _, pinned = private
    image = await images.pull(pinned, lambda _: None, login(closed_registry))
    assert [one.reference for one in await images.list() if one.id == image.id] == [pinned]


async def test_the_engines_own_disk_is_what_counts(engine, images):
    assert await images.free_bytes() > 0
    elsewhere = DockerRuntime(DockerSettings(instance="ours", base_url="tcp://127.0.0.1:1"))
    assert await elsewhere.images.free_bytes() is None
    await elsewhere.close()


async def test_the_beginning_of_an_id_is_no_name_of_an_image(engine, images):
    with engine.client() as client:
        id_ = client.images.get(MODEL_IMAGE).id
        beginning = id_.removeprefix("sha256:")[:16]
        assert client.images.get(beginning).id == id_  # which the engine itself takes
    assert await images.resolve(beginning) is None
    assert await images.resolve(f"docker.io/library/{beginning}") is None
    for name in (id_, MODEL_IMAGE, f"docker.io/{MODEL_IMAGE}", f"index.docker.io/{MODEL_IMAGE}"):
        found = await images.resolve(name)
        assert found is not None, name
        assert found.id == id_
