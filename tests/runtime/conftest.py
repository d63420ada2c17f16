"""A harness for each runtime; whatever a test leaves running is ended."""

import pytest

from tests.runtime.harness import DockerHarness, FakeHarness, PodmanHarness, ProcessHarness

_ENGINES = {"docker": (DockerHarness, "engine"), "podman": (PodmanHarness, "podman")}


@pytest.fixture(
    params=[*(pytest.param(name, marks=pytest.mark.engine) for name in _ENGINES), "process", "fake"]
)
def harness(request, tmp_path):
    """Give one engine of each kind."""
    if request.param in _ENGINES:
        made, fixture = _ENGINES[request.param]
        return made(request.getfixturevalue(fixture))
    return ProcessHarness(tmp_path) if request.param == "process" else FakeHarness()


@pytest.fixture
async def runtime(harness):
    """Give a driver on the harness's engine."""
    driver = harness.runtime()
    yield driver
    for container in await driver.list():
        await driver.stop(container.id, 0)
    await driver.close()


@pytest.fixture
async def model(runtime, harness):
    """Give the digest of the test model's image."""
    image = await runtime.images.resolve(harness.image)
    assert image is not None
    return image.digest
