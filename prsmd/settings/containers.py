"""Which engine runs the models, which images it may run, and how far they may be let out."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Memory, Seconds, Section

RuntimeClass = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
OrganizationOrAll = Annotated[str, Field(pattern="^(\\*|[a-z0-9][a-z0-9-]{0,62})$")]
ImageSource = Annotated[
    str,
    Field(pattern="^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9._/-]*)?$"),
]


class RuntimeSection(Section):
    """Which container engine runs the models."""

    name: Literal["auto", "docker", "process"] = "auto"
    docker_url: str = Field(default="unix:///var/run/docker.sock", pattern="^(unix|tcp)://.+")
    timeout_seconds: Seconds = 10.0
    network_prefix: str = Field(default="prsmd", pattern="^[a-z0-9][a-z0-9-]{0,20}$")
    bundle_dirs: tuple[Path, ...] = (Path("/usr/share/prsmd/bundles"),)
    secrets_dir: Path = Path("/run/prsmd/secrets")
    default_class: RuntimeClass | None = None
    classes: tuple[RuntimeClass, ...] = ()
    stop_grace_seconds: Seconds = 10.0


class ImagesSection(Section):
    """Which images stay, how much room is kept free for them, how often a pull is tried."""

    keep_revisions: int = Field(default=3, ge=1, le=1000)
    min_free: Memory = "2Gi"
    max_archive: Memory = "64Gi"
    pull_attempts: int = Field(default=5, ge=1, le=100)
    allowed_registries: tuple[ImageSource, ...] = ()
    require_digest: bool = False
    trusted_keys: tuple[Path, ...] = ()
    signed_lists: tuple[Path, ...] = ()

    @model_validator(mode="after")
    def _lists_need_keys(self) -> "ImagesSection":
        if bool(self.trusted_keys) != bool(self.signed_lists):
            raise ValueError("trusted_keys and signed_lists belong together: set both or neither")
        return self


class SecuritySection(Section):
    """Which organizations may loosen how their containers are confined."""

    allow_egress: tuple[OrganizationOrAll, ...] = ()
    allow_writable_root: tuple[OrganizationOrAll, ...] = ()
