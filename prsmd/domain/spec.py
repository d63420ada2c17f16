"""What a client asks to be run: the immutable content of one revision."""

import dataclasses
from collections.abc import Mapping

from .quantity import MILLI


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """What one replica reserves: millicores, bytes, thousandths of a GPU, bytes on each GPU."""

    cpu_millis: int
    memory_bytes: int
    gpu_millis: int = 0
    gpu_memory_bytes: int | None = None

    @property
    def gpu_count(self) -> int:
        """How many distinct GPUs a replica needs (a share needs one)."""
        return -(-self.gpu_millis // MILLI)

    @property
    def shares_gpu(self) -> bool:
        """True when the replica takes only a part of one GPU."""
        return 0 < self.gpu_millis < MILLI


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Scaling:
    """Bounds and target of autoscaling. `target_utilization` is a fraction in (0, 1]."""

    min_replicas: int = 1
    max_replicas: int = 10
    target_utilization: float = 0.7
    scale_to_zero_after_seconds: float = 300.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What one revision needs: of each replica, and how many replicas it may have."""

    resources: Resources
    scaling: Scaling


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Serving:
    """How a replica is spoken to. Times are seconds."""

    protocol: str = "native"
    port: int = 8080
    predict_path: str | None = None
    health_path: str | None = None
    startup_timeout_seconds: float = 600.0
    request_timeout_seconds: float = 60.0
    max_concurrency: int = 8
    queue_depth: int = 64


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Security:
    """How a container is confined: loosenings of the safe defaults, and who confines it.

    `egress` opens the way out to the network. `runtime_class` names one of the engine's runtimes
    (runsc, kata); None is the appliance's own choice.
    """

    run_as_user: int = 65534
    writable_root: bool = False
    egress: bool = False
    runtime_class: str | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class SecretUse:
    """Which secret of its organization a container gets, as a file or in its environment."""

    name: str
    in_environment: bool = False


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Metadata:
    """What a client says about the model; `version` labels the revision (semantic versioning)."""

    version: str = "1.0.0"
    description: str = ""
    capabilities: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One revision's content. `image` is the reference as written by the client.

    `secrets` are named by the variable that tells the container of each; no value stands here.
    """

    image: str
    model_type: str
    resources: Resources
    scaling: Scaling = Scaling()
    serving: Serving = Serving()
    security: Security = Security()
    metadata: Metadata = Metadata()
    environment: Mapping[str, str] = dataclasses.field(default_factory=dict)
    secrets: Mapping[str, SecretUse] = dataclasses.field(default_factory=dict)
    command: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


def container_part(spec: Spec) -> Spec:
    """Return the spec with everything that no container is made from at its default.

    What is left are image, resources, environment, secrets, command, arguments, security and port:
    specs that are equal in these run in the same container. The rest is applied to one that runs.
    """
    return dataclasses.replace(
        spec,
        model_type="",
        scaling=Scaling(),
        serving=Serving(port=spec.serving.port),
        metadata=Metadata(),
    )
