"""Request bodies as clients send them, turned into domain values.

Unknown fields are refused with the nearest known one; every error names its field.
"""

import re
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from prsmd.api import patterns
from prsmd.core.container_size import TOO_LONG, fits
from prsmd.domain import spec as domain
from prsmd.domain.ids import is_name
from prsmd.domain.quantity import parse_cpu, parse_gpu, parse_memory

_IMAGE = re.compile(
    r"(?:[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::\d{1,5})?/)?"  # registry
    r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(?:@sha256:[0-9a-f]{64})?"
)
_IMAGE_ID = re.compile(r"sha256:[0-9a-f]{64}")
_SEMANTIC_VERSION = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-[0-9A-Za-z.-]+)?(?:\+[0-9A-Za-z.-]+)?"
)
_DEPLOYMENT_ID = re.compile(r"deploy_[0-9a-z]{12}", re.IGNORECASE)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_REFUSED_VARIABLES = re.compile(
    r"NVIDIA_.*|CUDA_VISIBLE_DEVICES|CUDA_DEVICE_ORDER|DOCKER_RESOURCE_.*|LD_PRELOAD"
    r"|LD_AUDIT|LD_LIBRARY_PATH|PORT|PRSMD_.*"
)
_PATH = re.compile(r"/[A-Za-z0-9._~/:@!$&'()*+,;=-]{0,255}")
_MOST_SECRETS = 64  # of one container
_RESERVED_NAMES = {"deploy", "deployments"}  # what stands in a model's place in some paths


def _by(parse: Callable[[str], int], example: str) -> BeforeValidator:
    def convert(value: object) -> int:
        if not isinstance(value, str):
            raise ValueError(f"must be a string such as {example}")  # noqa: TRY004 - pydantic's way
        return parse(value)

    return BeforeValidator(convert)


def _name(value: object) -> str:
    if not isinstance(value, str) or not is_name(value):
        raise ValueError(
            "must be 1 to 63 letters, digits, '.', '_' or '-', beginning and ending with a letter"
            " or digit, without '..'"
        )
    if _DEPLOYMENT_ID.fullmatch(value):
        raise ValueError("looks like a deployment's id; choose another name")
    if value.lower() in _RESERVED_NAMES:
        raise ValueError("is a word of the API's own paths; choose another name")
    return value


def _image(value: object) -> str:
    if not isinstance(value, str) or len(value) > 512 or _IMAGE.fullmatch(value) is None:
        raise ValueError("must be an image reference such as company/model:v1 or name@sha256:…")
    if _IMAGE_ID.fullmatch(value):
        raise ValueError("is an engine's own id of an image; name the image, and its digest")
    return value


def _version(value: object) -> str:
    if not isinstance(value, str) or len(value) > 64 or not _SEMANTIC_VERSION.fullmatch(value):
        raise ValueError("must be a semantic version such as 2.1.0")
    return value


def _variable(name: object) -> str:
    if not isinstance(name, str) or _VARIABLE.fullmatch(name) is None:
        raise ValueError(f"{str(name)[:40]!r} is not a variable name")
    if _REFUSED_VARIABLES.fullmatch(name):
        raise ValueError(f"{name} is set by prsmd and cannot be given")
    return name


def _environment(value: object) -> Mapping[str, str]:
    if not isinstance(value, dict) or len(value) > 256:
        raise ValueError("must be an object of at most 256 variables")
    for name, text in value.items():
        _variable(name)
        if not isinstance(text, str) or "\0" in text:
            raise ValueError(f"{name} must be a string without NUL")
        if not fits(f"{name}={text}"):
            raise ValueError(f"{name} {TOO_LONG}")
    return value


def _secrets(value: object) -> Mapping[str, object]:
    if not isinstance(value, dict) or len(value) > _MOST_SECRETS:
        raise ValueError(f"must be an object of at most {_MOST_SECRETS} secrets")
    return {_variable(name): _secret_use(name, use) for name, use in value.items()}


def _secret_use(variable: str, use: object) -> domain.SecretUse:
    wanted = {"name": use} if isinstance(use, str) else use
    if not isinstance(wanted, dict) or not {"name"} <= wanted.keys() <= {"name", "as"}:
        raise ValueError(f'{variable} must be the name of a secret, or {{"name": …, "as": …}}')
    name, kind = wanted["name"], wanted.get("as", "file")
    if not isinstance(name, str) or not is_name(name):
        raise ValueError(f"{variable} must name a secret")
    if not isinstance(kind, str) or kind not in {"file", "environment"}:
        raise ValueError(f"{variable}.as must be file or environment")
    return domain.SecretUse(name, in_environment=kind == "environment")


def _path(value: object) -> str:
    if not isinstance(value, str) or _PATH.fullmatch(value) is None or ".." in value:
        raise ValueError("must be an absolute URL path such as /infer")
    return value


_SECRETS_SCHEMA = {
    "description": "the organization's secrets by the variable that tells of each",
    "type": "object",
    "additionalProperties": {
        "anyOf": [
            {"type": "string"},
            {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "as": {
                        "description": "a file where it is left out",
                        "enum": ["file", "environment"],
                    },
                },
                "required": ["name"],
                "additionalProperties": False,
            },
        ]
    },
}
Cpu = Annotated[int, _by(parse_cpu, '"2" or "500m"')]
Memory = Annotated[int, _by(parse_memory, '"8Gi"')]
GpuAmount = Annotated[int, _by(parse_gpu, '"1" or "0.5"')]
Name = Annotated[str, BeforeValidator(_name)]
ImageReference = Annotated[str, BeforeValidator(_image)]
Version = Annotated[str, BeforeValidator(_version)]
Environment = Annotated[Mapping[str, str], BeforeValidator(_environment)]
Secrets = Annotated[
    Mapping[str, domain.SecretUse], BeforeValidator(_secrets), WithJsonSchema(_SECRETS_SCHEMA)
]
UrlPath = Annotated[str, BeforeValidator(_path)]
Label = Annotated[str, Field(min_length=1, max_length=128)]
Argument = Annotated[str, Field(max_length=4096, pattern=patterns.WITHOUT_NUL)]
Count = Annotated[int, Field(ge=0, le=1000)]


class Body(BaseModel):
    """What every request body has: unknown fields are refused and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class ResourceRequirements(Body):
    """What one replica needs."""

    cpu: Cpu = Field(default=1000)
    memory: Memory = Field(default=1024**3)
    gpu: GpuAmount = Field(default=0)
    gpu_memory: Memory | None = None

    @model_validator(mode="after")
    def _memory_needs_gpu(self) -> "ResourceRequirements":
        if self.gpu_memory is not None and self.gpu == 0:
            raise ValueError('gpu_memory needs a gpu: set gpu to "1" or a share such as "0.5"')
        return self


class ScalingBody(Body):
    """How many replicas, and how busy they should be."""

    min_replicas: Count = 1
    max_replicas: Annotated[int, Field(ge=1, le=1000)] = 10
    target_utilization: Annotated[float, Field(gt=0, le=1)] = 0.7
    scale_to_zero_after_seconds: Annotated[float, Field(ge=1, le=86400)] = 300.0
    max_concurrency: Annotated[int, Field(ge=1, le=10000)] | None = None

    @model_validator(mode="after")
    def _ordered(self) -> "ScalingBody":
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}"
            )
        return self


class ServingBody(Body):
    """How to speak to the container."""

    protocol: Label = "native"
    port: Annotated[int, Field(ge=1, le=65535)] = 8080
    predict_path: UrlPath | None = None
    health_path: UrlPath | None = None
    startup_timeout_seconds: Annotated[float, Field(ge=1, le=86400)] = 600.0
    request_timeout_seconds: Annotated[float, Field(ge=0.1, le=3600)] = 60.0
    max_concurrency: Annotated[int, Field(ge=1, le=10000)] = 8
    queue_depth: Annotated[int, Field(ge=0, le=100000)] = 64


class SecurityBody(Body):
    """Loosenings of the safe defaults."""

    run_as_user: Annotated[int, Field(ge=1, le=2**31 - 2)] = 65534
    writable_root: bool = False
    egress: bool = False
    runtime_class: Annotated[str, Field(pattern=patterns.RUNTIME_CLASS)] | None = None


class DeploymentConfig(Body):
    """What runs and how."""

    container_image: ImageReference
    resource_requirements: ResourceRequirements = ResourceRequirements()
    scaling: ScalingBody = ScalingBody()
    serving: ServingBody = ServingBody()
    security: SecurityBody = SecurityBody()
    environment: Environment = {}
    secrets: Secrets = {}
    command: Annotated[list[Argument], Field(max_length=256)] = []
    args: Annotated[list[Argument], Field(max_length=256)] = []

    @field_validator("secrets")
    @classmethod
    def _one_value_for_a_variable(
        cls, secrets: Mapping[str, domain.SecretUse], info: ValidationInfo
    ) -> Mapping[str, domain.SecretUse]:
        told = [n if use.in_environment else f"{n}_FILE" for n, use in secrets.items()]
        for name in told:
            if name in info.data.get("environment", {}) or told.count(name) > 1:
                raise ValueError(f"{name} would get two values; choose another variable")
        return secrets


class ModelMetadata(Body):
    """What the client says about the model."""

    description: Annotated[str, Field(max_length=4096)] = ""
    version: Version = "1.0.0"
    capabilities: Annotated[list[Label], Field(max_length=64)] = []
    domains: Annotated[list[Label], Field(max_length=64)] = []


class DeployBody(Body):
    """POST /v1/custom-models/deploy."""

    model_name: Name
    model_type: Label = "custom"
    deployment_config: DeploymentConfig
    model_metadata: ModelMetadata = ModelMetadata()

    def spec(self) -> domain.Spec:
        """Return the revision's content that this body asks for."""
        config = self.deployment_config
        needs, scaling = config.resource_requirements, config.scaling
        serving = config.serving.model_dump()
        if scaling.max_concurrency is not None:
            serving["max_concurrency"] = scaling.max_concurrency
        return domain.Spec(
            image=config.container_image,
            model_type=self.model_type,
            resources=domain.Resources(
                cpu_millis=needs.cpu,
                memory_bytes=needs.memory,
                gpu_millis=needs.gpu,
                gpu_memory_bytes=needs.gpu_memory,
            ),
            scaling=domain.Scaling(**scaling.model_dump(exclude={"max_concurrency"})),
            serving=domain.Serving(**serving),
            security=domain.Security(**config.security.model_dump()),
            metadata=domain.Metadata(
                version=self.model_metadata.version,
                description=self.model_metadata.description,
                capabilities=tuple(self.model_metadata.capabilities),
                domains=tuple(self.model_metadata.domains),
            ),
            environment=dict(config.environment),
            secrets=dict(config.secrets),
            command=tuple(config.command),
            args=tuple(config.args),
        )


class ScaleBody(Body):
    """POST /v1/custom-models/{model_id}/scale."""

    target_replicas: Count
    scaling_strategy: Literal["gradual", "immediate"] = "immediate"


class InferBody(Body):
    """POST /v1/models/{model_id}/infer. `inputs` and `parameters` are opaque."""

    inputs: Any
    parameters: dict[str, Any] = {}
