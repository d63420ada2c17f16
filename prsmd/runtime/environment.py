"""Decides the variables that a replica cannot choose: its port and the GPUs it may see.

Every runtime calls this last, over whatever the image, the bundle and the client asked for. The
NVIDIA toolkit honours NVIDIA_VISIBLE_DEVICES from any container, so leaving it to an image would
let a model take GPUs that were not reserved for it. It runs its hooks on the host with what the
image's LD_PRELOAD says (CVE-2025-23266), so that is emptied.
"""

import re
from collections.abc import Iterable

from prsmd.domain.replica import Placement

from .base import Launch

SECRETS_FOLDER = "/run/secrets"
NO_GPU = "void"  # what the NVIDIA toolkit reads as: leave this container alone
# What may list GPUs for the toolkit in place of NVIDIA_VISIBLE_DEVICES, where a host is set up so.
_LISTS_GPUS = re.compile(r"DOCKER_RESOURCE_.*")
# What loads code into the toolkit's hooks, and what has it hand out more than GPUs.
_EMPTIED = re.compile(
    r"LD_PRELOAD|LD_AUDIT|NVIDIA_(MIG_.*_DEVICES|IMEX_CHANNELS|GDS|GDRCOPY|MOFED|NVSWITCH)"
)


def visible_gpus(placement: Placement) -> str:
    """Return the UUIDs of the reserved GPUs joined by commas, or `void`."""
    return ",".join(placement.gpu_uuids) or NO_GPU


def container_environment(
    launch: Launch,
    *,
    host: str,
    port: int,
    secrets: str = SECRETS_FOLDER,
    image: Iterable[str] = (),
) -> dict[str, str]:
    """Return the whole environment of a replica that must listen on `host` and `port`.

    `secrets` is the folder that holds the files of its secrets, as it sees it. `image` names the
    variables that the image sets, under which those stay that are not given here.
    """
    return {
        **launch.environment,
        **{f"{name}_FILE": f"{secrets}/{name}" for name in launch.secrets},
        **_instead_of_the_images(image, launch.placement),
        "HOST": host,
        "PORT": str(port),
        "NVIDIA_VISIBLE_DEVICES": visible_gpus(launch.placement),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }


def _instead_of_the_images(names: Iterable[str], placement: Placement) -> dict[str, str]:
    found = {}
    for name in names:
        if _LISTS_GPUS.fullmatch(name):
            found[name] = visible_gpus(placement)
        elif name == "CUDA_VISIBLE_DEVICES":
            found[name] = ",".join(placement.gpu_uuids)
        elif _EMPTIED.fullmatch(name):
            found[name] = ""
    return found
