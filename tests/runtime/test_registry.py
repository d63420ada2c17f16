"""Every runtime can be made by its name."""

from pathlib import Path

import pytest

from prsmd.runtime import registry
from prsmd.runtime.docker import DockerSettings
from prsmd.runtime.fake import FakeEngine
from prsmd.runtime.process import ProcessSettings

SETTINGS = {
    "docker": DockerSettings(instance="ours"),
    "process": ProcessSettings(instance="ours", state_dir=Path("x"), bundle_dirs=()),
    "fake": FakeEngine(),
}


@pytest.mark.parametrize("name", registry.NAMES)
async def test_each_name_makes_the_runtime_of_that_name(name):
    runtime = registry.make(name, SETTINGS[name])
    assert runtime.name == name
    await runtime.close()
