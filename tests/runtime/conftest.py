"""A harness for each runtime; whatever a test leaves running is ended."""

import pytest

from tests.runtime.harness import DockerHarness, FakeHarness, ProcessHarness


@pytest.fixture(params=[pytest.param("docker", marks=pytest.mark.engine), "process", "fake"])
def harness(request, tmp_path):
    """Give one engine of each kind."""
    if request.param == "docker":
        return DockerHarness(request.getfixturevalue("engine"))
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
