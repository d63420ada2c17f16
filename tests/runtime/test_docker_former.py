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
    ours.rmdir()  # and made again: it has another inode
    (tmp_path / "between").mkdir()
    ours.mkdir()
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


def test_the_place_of_a_folder_names_it_and_not_what_is_there(tmp_path):
    first, other, link = tmp_path / "first", tmp_path / "other", tmp_path / "link"
    first.mkdir()
    link.symlink_to(first)
    named = _name_of(first)
    first.rename(other)
    first.mkdir()

    assert _name_of(first) == _name_of(link) == named
    assert _name_of(other) != named
