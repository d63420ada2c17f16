"""Fixtures that give whole daemons on the real engine, with steered GPUs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.daemon import Daemon, running_daemon
from tests.support.engine import MODEL_IMAGE, PrivateEngine
from tests.support.gpus import SteeredGpus

FAST = {
    "engine.tick_seconds": "0.5",
    "engine.probe_seconds": "0.5",
    "engine.drain_timeout_seconds": "5",
    "gpus.sample_seconds": "0.3",
    "runtime.stop_grace_seconds": "2",
    "access.organization": '"company"',
}


@pytest.fixture
def gpus(tmp_path: Path) -> SteeredGpus:
    """Give a steered NVML with two T4 of 15 GiB."""
    folder = tmp_path / "nvml"
    folder.mkdir()
    steered = SteeredGpus(folder)
    steered.add("NVIDIA T4")
    steered.add("NVIDIA T4")
    return steered


def docker_settings(engine: PrivateEngine) -> dict[str, str]:
    """Return the settings of a daemon that uses this engine and looks often."""
    return {
        **FAST,
        "runtime.name": '"docker"',
        "runtime.docker_url": f'"{engine.url}"',
        "runtime.secrets_dir": f'"{engine.secrets_dir}"',
    }


@pytest.fixture
def daemon(engine: PrivateEngine, gpus: SteeredGpus, tmp_path: Path) -> Iterator[Daemon]:
    """Give a daemon on the private engine with two steered GPUs."""
    folder = tmp_path / "daemon"
    folder.mkdir()
    with running_daemon(folder, docker_settings(engine), gpus.environment()) as started:
        yield started


def deploy_body(name: str = "company-model", **changes: object) -> dict[str, object]:
    """Return the document's deploy request for the test model. `changes` by kind:

    `gpu`, `cpu`, `memory`, `gpu_memory` go to the resources; `environment`, `secrets`, `serving`,
    `security` and `container_image` to the configuration; everything else to scaling.
    """
    resources = {"cpu": "100m", "memory": "128Mi", "gpu": "0"}
    config: dict[str, object] = {"container_image": MODEL_IMAGE}
    scaling: dict[str, object] = {"min_replicas": 1, "max_replicas": 10, "target_utilization": 0.7}
    for field, value in changes.items():
        if field in {"gpu", "cpu", "memory", "gpu_memory"}:
            resources[field] = str(value)
        elif field in {"environment", "secrets", "serving", "container_image", "security"}:
            config[field] = value
        else:
            scaling[field] = value
    return {
        "model_name": name,
        "model_type": "text-classification",
        "deployment_config": {**config, "resource_requirements": resources, "scaling": scaling},
        "model_metadata": {"description": "a test model", "version": "1.0.0"},
    }
