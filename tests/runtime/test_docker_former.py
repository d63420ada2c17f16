"""A folder whose content was lost is told by the containers that were launched from it."""

from pathlib import Path

import pytest

from prsmd.engines import _name_of, choose_runtime
from prsmd.runtime.docker import DockerRuntime
from prsmd.runtime.docker_config import DockerSettings
from prsmd.settings import DaemonSection, RuntimeSection, Settings
from prsmd.store.errors import StoreNotItsOwnError
from tests.runtime.harness import SHARED_MEMORY, launch_of
from tests.support.engine import MODEL_IMAGE

pytestmark = pytest.mark.engine


def settings(folder: Path, engine) -> Settings:
    return Settings(
        daemon=DaemonSection(state_dir=folder),
        runtime=RuntimeSection(name="docker", docker_url=engine.url, secrets_dir=SHARED_MEMORY),
    )


async def test_containers_of_another_instance_from_the_same_folder_refuse_a_first_start(
    engine, tmp_path
):
    ours, other = tmp_path / "ours", tmp_path / "other"
    ours.mkdir()
    other.mkdir()
    driver = DockerRuntime(
        DockerSettings(
            instance="lost",
            base_url=engine.url,
            secrets_dir=SHARED_MEMORY,
            state=_name_of(ours),
        )
    )
    image = await driver.images.resolve(MODEL_IMAGE)
    container = await driver.launch(launch_of(image.digest, instance="lost"))
    try:
        with pytest.raises(StoreNotItsOwnError, match=r"of lost.*prsmd --new-instance"):
            await choose_runtime(settings(ours, engine), "new", first=True)
        for folder, instance, first in (
            (other, "new", True),
            (ours, "new", False),
            (ours, "lost", True),
        ):
            made = await choose_runtime(settings(folder, engine), instance, first=first)
            await made.close()
    finally:
        await driver.stop(container.id, 0)
        await driver.close()
