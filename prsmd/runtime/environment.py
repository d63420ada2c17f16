"""Decides the variables that a replica cannot choose: its port and the GPUs it may see.

Every runtime calls this last, over whatever the image, the bundle and the client asked for. The
NVIDIA toolkit honours NVIDIA_VISIBLE_DEVICES from any container, so leaving it to an image would
let a model take GPUs that were not reserved for it.
"""

from prsmd.domain.replica import Placement

from .base import Launch

SECRETS_FOLDER = "/run/secrets"
NO_GPU = "void"  # what the NVIDIA toolkit reads as: leave this container alone


def visible_gpus(placement: Placement) -> str:
    """Return the UUIDs of the reserved GPUs joined by commas, or `void`."""
    return ",".join(placement.gpu_uuids) or NO_GPU


def container_environment(
    launch: Launch, *, host: str, port: int, secrets: str = SECRETS_FOLDER
) -> dict[str, str]:
    """Return the whole environment of a replica that must listen on `host` and `port`.

    `secrets` is the folder that holds the files of its secrets, as it sees it.
    """
    return {
        **launch.environment,
        **{f"{name}_FILE": f"{secrets}/{name}" for name in launch.secrets},
        "HOST": host,
        "PORT": str(port),
        "NVIDIA_VISIBLE_DEVICES": visible_gpus(launch.placement),
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
    }
