"""Pulls from a real registry: progress, pinned digests, and each way in which they fail."""

import asyncio
import dataclasses
import threading

import pytest

from prsmd.domain.errors import ImageUnavailableError, PullBrokenOffError
from prsmd.runtime.docker import DockerRuntime, DockerSettings
from tests.runtime.harness import launch_of
from tests.support.engine import PrivateEngine
from tests.support.registry import (
    build_image,
    free_port,
    login_file,
    remove_image,
)

pytestmark = pytest.mark.engine

LAYER_BYTES = 4 << 20
ONE, TWO = "prsmd-test/one:1", "prsmd-test/two:1"


@pytest.fixture
async def runtime(engine):
    driver = DockerRuntime(
        DockerSettings(instance="ours", base_url=engine.url, pull_silence_seconds=3)
    )
    yield driver
    await driver.close()


@pytest.fixture(scope="module")
def pushed(shared_engine, registry):
    """Push two images with layers of their own, forget them, and return both pinned names."""
    names = []
    for image in (ONE, TWO):
        build_image(shared_engine, image)
        repository, _, tag = image.partition(":")
        names.append(registry.push(shared_engine, image, repository, tag))
        remove_image(shared_engine, image)
    return names


@pytest.fixture
def one(pushed, registry, engine):
    """Give the name of an image that only the registry has."""
    yield registry.name(ONE)
    for name in (registry.name(ONE), registry.name(TWO), *pushed):
        remove_image(engine, name)


@pytest.fixture
def one_by_network(one, network, registry, engine):
    """Give the same image's name on the network that can fail."""
    name = registry.name(ONE, network.port)
    yield name
    network.heal()
    remove_image(engine, name)


def streams():
    """Return the threads that read a stream now."""
    return [t for t in threading.enumerate() if t.name.startswith("docker-stream")]


async def until(condition):
    """Wait for something that another process does."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nothing here is told when it happens
            await asyncio.sleep(0.02)


async def test_a_pull_reports_every_layers_bytes_on_the_event_loop(
    runtime, network, one_by_network
):
    network.slow(4 << 20)
    steps, threads = [], set()

    def note(progress):
        steps.append(progress)
        threads.add(threading.get_ident())

    await runtime.images.pull(one_by_network, note)

    assert threads == {threading.get_ident()}
    done = [step.done_bytes for step in steps]
    assert done == sorted(done)
    assert len(set(done)) > 8
    last = steps[-1]
    assert last.done_bytes == last.total_bytes
    assert 2 * LAYER_BYTES <= last.total_bytes < 2.1 * LAYER_BYTES


async def test_a_pulled_image_is_pinned_by_the_registrys_digest(runtime, one, pushed):
    assert await runtime.images.resolve(one) is None
    image = await runtime.images.pull(one, lambda _: None)
    assert (image.reference, image.digest) == (one, pushed[0])
    assert image.size_bytes >= 2 * LAYER_BYTES
    assert await runtime.images.resolve(one) == image


async def test_a_pinned_image_can_be_pulled_and_resolved_by_its_digest(runtime, one, pushed):
    image = await runtime.images.pull(pushed[0], lambda _: None)
    assert image.digest == pushed[0]
    assert (await runtime.images.resolve(pushed[0])).digest == pushed[0]
    assert await runtime.images.resolve(one) is None  # by digest alone, it has no tag


async def test_what_was_pinned_is_launched_after_its_tag_moved(
    runtime, engine, registry, one, pushed
):
    pinned = (await runtime.images.pull(one, lambda _: None)).digest
    other = await runtime.images.pull(registry.name(TWO), lambda _: None)
    with engine.client() as client:
        deployed = client.images.get(pinned).id
        client.images.get(other.digest).tag(*one.rsplit(":", 1))

        moved = await runtime.images.resolve(one)
        launch = dataclasses.replace(launch_of(pinned), command=("/there-is-no-program",))
        container = await runtime.launch(launch)

        assert moved.digest != pinned
        assert client.api.inspect_container(container.id)["Image"] == deployed


async def test_two_pulls_of_one_image_at_once_both_end_with_it(runtime, network, one_by_network):
    network.slow(8 << 20)
    steps = ([], [])
    images = await asyncio.gather(
        *(runtime.images.pull(one_by_network, note.append) for note in steps)
    )
    assert images[0] == images[1]
    assert all(note[-1].done_bytes >= 2 * LAYER_BYTES for note in steps)


@pytest.mark.parametrize("image", ["prsmd-test/one:99", "prsmd-test/nothing:1"])
async def test_what_the_registry_does_not_have_is_named(runtime, registry, pushed, image):
    name = registry.name(image)
    with pytest.raises(ImageUnavailableError, match=rf"{name}.*(unknown|not found)"):
        await runtime.images.pull(name, lambda _: None)


async def test_a_digest_the_registry_does_not_have_is_named(runtime, registry, pushed):
    name = registry.name("prsmd-test/one") + "@sha256:" + "0" * 64
    with pytest.raises(ImageUnavailableError, match=r"unknown|not found"):
        await runtime.images.pull(name, lambda _: None)


async def test_a_registry_that_is_down_is_named(runtime):
    name = f"127.0.0.1:{free_port()}/prsmd-test/one:1"
    with pytest.raises(ImageUnavailableError, match=rf"{name}.*connection refused"):
        await runtime.images.pull(name, lambda _: None)


async def test_a_pull_cut_in_the_middle_of_a_layer_fails_and_can_be_repeated(
    runtime, network, one_by_network
):
    network.cut_after(LAYER_BYTES // 4)
    steps = []
    with pytest.raises(ImageUnavailableError, match=r"EOF|reset"):
        await runtime.images.pull(one_by_network, steps.append)
    assert all(step.done_bytes <= (step.total_bytes or 0) < 2.1 * LAYER_BYTES for step in steps)
    assert await runtime.images.resolve(one_by_network) is None
    network.heal()
    assert (await runtime.images.pull(one_by_network, steps.append)).size_bytes > LAYER_BYTES


async def test_what_broke_off_can_be_tried_again_and_what_was_refused_cannot(
    runtime, network, one_by_network, registry
):
    network.cut_after(LAYER_BYTES // 4)
    with pytest.raises(PullBrokenOffError):
        await runtime.images.pull(one_by_network, lambda _: None)
    network.heal()
    for name in (registry.name("prsmd-test/one:99"), registry.name("prsmd-test/nothing:1")):
        with pytest.raises(ImageUnavailableError) as refused:
            await runtime.images.pull(name, lambda _: None)
        assert not isinstance(refused.value, PullBrokenOffError)


@pytest.mark.slow
async def test_an_engine_takes_a_cut_layer_up_where_it_broke_off(pushed, registry, network):
    """As engines are set up by default; whole pulls are tried again only once that failed."""
    engine = PrivateEngine(download_attempts=5)
    engine.start()
    driver = DockerRuntime(DockerSettings(instance="ours", base_url=engine.url))
    try:
        network.cut_after(LAYER_BYTES * 3 // 4)
        name = registry.name(ONE, network.port)
        image = await driver.images.pull(name, lambda _: None)
        assert image.size_bytes >= 2 * LAYER_BYTES
        assert network.carried < 2.2 * LAYER_BYTES  # no layer came twice
    finally:
        await driver.close()
        engine.close()


@pytest.mark.parametrize("after", [0, LAYER_BYTES // 2])
async def test_a_registry_that_falls_silent_costs_bounded_time(
    runtime, network, one_by_network, after
):
    network.stall_after(after)
    with pytest.raises(ImageUnavailableError, match=r"nothing was heard for 3 s"):
        await runtime.images.pull(one_by_network, lambda _: None)
    await until(lambda: not streams())


@pytest.mark.parametrize("after", [0, LAYER_BYTES // 2])
async def test_a_cancelled_pull_leaves_nothing_stuck(engine, network, one_by_network, after):
    runtime = DockerRuntime(DockerSettings(instance="ours", base_url=engine.url))
    network.stall_after(after)
    pull = asyncio.create_task(runtime.images.pull(one_by_network, lambda _: None), name="pull")
    await until(network.stalled.is_set)
    pull.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pull
    await until(lambda: not streams())
    if after:  # else it waits for the registry's first word, and looks up only after that
        await until(lambda: "context canceled" in engine.log)
    network.heal()
    assert (await runtime.images.pull(one_by_network, lambda _: None)).size_bytes > LAYER_BYTES
    await runtime.close()


async def test_a_registry_that_wants_a_login_says_what_to_do_and_it_helps(
    runtime, engine, closed_registry, tmp_path, monkeypatch
):
    build_image(engine, "prsmd-test/closed:1", layers=1)
    pinned = closed_registry.push(engine, "prsmd-test/closed:1", "prsmd-test/closed", "1")
    remove_image(engine, "prsmd-test/closed:1")
    host, name = f"127.0.0.1:{closed_registry.port}", closed_registry.name("prsmd-test/closed:1")
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    with pytest.raises(ImageUnavailableError, match=rf"{name}.*`docker login {host}`"):
        await runtime.images.pull(name, lambda _: None)
    login_file(tmp_path, host)
    assert (await runtime.images.pull(name, lambda _: None)).digest == pinned
    remove_image(engine, name)
