"""Settings: one TOML file, `conf.d` drop-ins, `PRSMD_SECTION__KEY` environment, flags; later wins.

Unknown keys are refused with the nearest known one. Secrets never stand here: a setting names the
file or the systemd credential that holds one.
"""

import difflib
import os
import socket
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError, model_validator

from prsmd.domain.quantity import parse_cpu, parse_memory

DEFAULT_FILE = Path("/etc/prsmd/prsmd.toml")
_ENVIRONMENT_PREFIX = "PRSMD_"


def _checked_memory(text: str) -> str:
    parse_memory(text)
    return text


def _checked_cpu(text: str) -> str:
    if text != "0":
        parse_cpu(text)
    return text


Memory = Annotated[str, AfterValidator(_checked_memory)]
Cpu = Annotated[str, AfterValidator(_checked_cpu)]
RuntimeClass = Annotated[str, Field(pattern="^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")]
OrganizationOrAll = Annotated[str, Field(pattern="^(\\*|[a-z0-9][a-z0-9-]{0,62})$")]
ImageSource = Annotated[
    str,
    Field(pattern="^[a-z0-9](?:[a-z0-9.-]*[a-z0-9])?(?::[0-9]{1,5})?(?:/[a-z0-9._/-]*)?$"),
]
Seconds = Annotated[float, Field(gt=0, le=86400)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DaemonSection(_Section):
    """Where state is kept and how the daemon logs."""

    state_dir: Path = Path("/var/lib/prsmd")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_format: Literal["auto", "json", "text", "journal"] = "auto"
    stop_timeout_seconds: Seconds = 30.0


class UnixSection(_Section):
    """The local listener."""

    path: Path = Path("/run/prsmd/prsmd.sock")
    mode: str = Field(default="0660", pattern="^0?[0-7]{3}$")
    group: str = "prsmd"


class TcpSection(_Section):
    """The network listener. Without a certificate it binds loopback only."""

    enabled: bool = True
    host: str = "127.0.0.1"
    port: int = Field(default=7443, ge=0, le=65535)
    cert: Path | None = None
    key: Path | None = None
    allow_plaintext: bool = False
    allowed_hosts: tuple[str, ...] = ("localhost", "127.0.0.1", "[::1]")
    public_url: str | None = Field(default=None, pattern="^https?://[^/]+$")

    @model_validator(mode="after")
    def _plaintext_stays_local(self) -> "TcpSection":
        if (self.cert is None) != (self.key is None):
            raise ValueError("cert and key belong together: set both or neither")
        local = self.host in {"localhost", "::1"} or self.host.startswith("127.")
        if self.enabled and not local and self.cert is None and not self.allow_plaintext:
            raise ValueError(
                f"host {self.host} is not loopback and there is no TLS: set cert and key,"
                " or allow_plaintext = true if the network is trusted"
            )
        return self


class UnixRole(_Section):
    """Maps a local user or group to a role. Exactly one of the four selectors is set."""

    uid: int | None = Field(default=None, ge=0)
    gid: int | None = Field(default=None, ge=0)
    user: str | None = None
    group: str | None = None
    organization: str = "default"
    role: Literal["admin", "owner", "deployer", "operator", "viewer", "invoker", "auditor"]

    @model_validator(mode="after")
    def _one_selector(self) -> "UnixRole":
        chosen = [s for s in (self.uid, self.gid, self.user, self.group) if s is not None]
        if len(chosen) != 1:
            raise ValueError("name exactly one of uid, gid, user, group")
        return self


class AccessSection(_Section):
    """Who may call. root and the daemon's own user are always administrators."""

    organization: str = Field(default="default", pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    unix_roles: tuple[UnixRole, ...] = ()
    pepper_file: Path | None = None
    audit_key_file: Path | None = None
    envelope_key_file: Path | None = None
    previous_envelope_key_file: Path | None = None


class AuditSection(_Section):
    """What is recorded of inferences, how long records are kept, how often they are signed."""

    inferences: Literal["each", "summary", "off"] = "each"
    keep_days: float = Field(default=365.0, gt=0)
    keep_bytes: Memory = "1Gi"
    inferences_keep_days: float = Field(default=90.0, gt=0)
    inferences_keep_bytes: Memory = "4Gi"
    checkpoint_records: int = Field(default=1000, ge=1)
    checkpoint_seconds: Seconds = 300.0
    flush_seconds: Seconds = 1.0
    summary_seconds: Seconds = 60.0


class OidcRule(_Section):
    """Maps a claim that is, or holds, a value to a role in an organization."""

    claim: str = Field(min_length=1)
    value: str
    organization: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    role: str = Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")


class OidcSection(_Section):
    """The issuer whose tokens are taken; without one, none are."""

    issuer: str | None = None
    audience: str = "prsmd"
    jwks_url: str | None = Field(default=None, pattern=r"^(https://|http://127\.|http://localhost)")
    jwks_file: Path | None = None
    algorithms: tuple[Literal["RS256", "ES256", "EdDSA"], ...] = ("RS256", "ES256", "EdDSA")
    subject_claim: str = "sub"
    leeway_seconds: float = Field(default=30.0, ge=0, le=600)
    rules: tuple[OidcRule, ...] = ()

    @model_validator(mode="after")
    def _has_keys(self) -> "OidcSection":
        if self.issuer is not None and self.jwks_url is None and self.jwks_file is None:
            raise ValueError("an issuer needs jwks_url or jwks_file")
        return self


class RuntimeSection(_Section):
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


class ImagesSection(_Section):
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


class SecuritySection(_Section):
    """Which organizations may loosen how their containers are confined."""

    allow_egress: tuple[OrganizationOrAll, ...] = ()
    allow_writable_root: tuple[OrganizationOrAll, ...] = ("*",)


class NodeSection(_Section):
    """This machine, and what of it is kept away from models."""

    name: str = Field(
        default_factory=socket.gethostname, pattern="^[A-Za-z0-9][A-Za-z0-9.-]{0,62}$"
    )
    cpu_reserved: Cpu = "0"
    memory_reserved: Memory = "512Mi"


class EngineSection(_Section):
    """How often the loops look and how patient they are."""

    tick_seconds: Seconds = 5.0
    probe_seconds: Seconds = 5.0
    probe_timeout_seconds: Seconds = 2.0
    liveness_failures: int = Field(default=3, ge=1, le=100)
    drain_timeout_seconds: Seconds = 30.0


class GpusSection(_Section):
    """NVML telemetry."""

    sample_seconds: Seconds = 2.0
    deadline_seconds: Seconds = 5.0


class AutoscaleSection(_Section):
    """The autoscaler's clock."""

    interval_seconds: Seconds = 5.0
    tolerance: float = Field(default=0.1, ge=0, lt=1)
    down_window_seconds: Seconds = 300.0


class LimitsSection(_Section):
    """What a request may be at most."""

    body: Memory = "16Mi"
    response: Memory = "64Mi"
    header: Memory = "16Ki"
    header_timeout_seconds: Seconds = 15.0
    body_timeout_seconds: Seconds = 60.0
    idle_timeout_seconds: Seconds = 75.0


class Settings(_Section):
    """All sections. Components are given theirs, never the whole."""

    daemon: DaemonSection = DaemonSection()
    unix: UnixSection = UnixSection()
    tcp: TcpSection = TcpSection()
    access: AccessSection = AccessSection()
    oidc: OidcSection = OidcSection()
    audit: AuditSection = AuditSection()
    runtime: RuntimeSection = RuntimeSection()
    images: ImagesSection = ImagesSection()
    security: SecuritySection = SecuritySection()
    node: NodeSection = NodeSection()
    engine: EngineSection = EngineSection()
    gpus: GpusSection = GpusSection()
    autoscale: AutoscaleSection = AutoscaleSection()
    limits: LimitsSection = LimitsSection()


class ConfigurationError(Exception):
    """Settings that cannot be used. `problems` has one line each: where, what and what to do."""

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = tuple(problems)


def load(
    file: Path | None, environment: Mapping[str, str], overrides: Sequence[str] = ()
) -> Settings:
    """Return the settings of a file, its `conf.d`, the environment and `section.key=value` flags.

    `file` None means the default file, which may be absent; a named one must exist.
    Raise ConfigurationError with every problem found.
    """
    sources = _Sources()
    for path in _files(file):
        sources.add_file(path)
    for name, value in sorted(environment.items()):
        if name.startswith(_ENVIRONMENT_PREFIX) and "__" in name:
            key = name.removeprefix(_ENVIRONMENT_PREFIX).lower().replace("__", ".", 1)
            sources.add_value(key, value, f"environment {name}")
    for override in overrides:
        key, _, value = override.partition("=")
        sources.add_value(key, value, f"--set {key}")
    try:
        return Settings.model_validate(sources.merged)
    except ValidationError as error:
        raise ConfigurationError([sources.describe(e["loc"], e) for e in error.errors()]) from None


def _files(file: Path | None) -> list[Path]:
    main = file or DEFAULT_FILE
    if not main.exists():
        if file is not None:
            raise ConfigurationError([f"{file}: no such file"])
        return []
    return [main, *sorted((main.parent / "conf.d").glob("*.toml"))]


class _Sources:
    """Merges the sources and remembers where each key came from."""

    def __init__(self) -> None:
        self.merged: dict[str, Any] = {}
        self._origin: dict[tuple[str, ...], str] = {}

    def add_file(self, path: Path) -> None:
        """Merge one TOML file; a key of a later file replaces that of an earlier one."""
        try:
            text = path.read_text(encoding="utf-8")
            content = tomllib.loads(text)
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigurationError([f"{path}: {error}"]) from None
        for section, values in content.items():
            self._origin[(section,)] = f"{path}:{_line_of(text, section, None)}"
            if not isinstance(values, dict):
                self.merged[section] = values
                continue
            if not isinstance(self.merged.get(section), dict):
                self.merged[section] = {}
            for key, value in values.items():
                self.merged[section][key] = value
                self._origin[section, key] = f"{path}:{_line_of(text, section, key)}"

    def add_value(self, dotted: str, value: str, origin: str) -> None:
        """Merge one value given as text; TOML where it parses as TOML, a string otherwise."""
        section, _, key = dotted.partition(".")
        try:
            parsed: Any = tomllib.loads(f"value = {value}")["value"]
        except tomllib.TOMLDecodeError:
            parsed = value
        if not key:
            raise ConfigurationError([f"{origin}: write section.key=value"])
        values = self.merged.setdefault(section, {})
        if not isinstance(values, dict):
            values = self.merged[section] = {}
        values[key] = parsed
        self._origin[section, key] = origin
        self._origin.setdefault((section,), origin)

    def describe(self, location: tuple[int | str, ...], error: Any) -> str:
        """Return `where: section.key: what is wrong (and the nearest known key)`."""
        path = tuple(str(part) for part in location)
        where = self._origin.get(path[:2]) or self._origin.get(path[:1]) or "configuration"
        message = error["msg"].removeprefix("Value error, ")
        if error["type"] == "extra_forbidden":
            message = "unknown key" + _suggestion(path)
        return f"{where}: {'.'.join(path)}: {message}"


def _suggestion(path: tuple[str, ...]) -> str:
    known = list(_model_at(path[:-1]).model_fields)
    near = difflib.get_close_matches(path[-1], known, n=1)
    return f"; did you mean {near[0]}?" if near else f"; known are {', '.join(known)}"


def _model_at(path: tuple[str, ...]) -> type[BaseModel]:
    """Return the model whose keys stand at `path`; positions in arrays of tables are no keys."""
    model: type[BaseModel] = Settings
    for part in path:
        if part in model.model_fields:
            kind = model.model_fields[part].annotation
            inner = [kind, *get_args(kind)]
            model = next(
                (k for k in inner if isinstance(k, type) and issubclass(k, _Section)), model
            )
    return model


def _line_of(text: str, section: str, key: str | None) -> int:
    """Return the line that names a section (`key` None) or a key of it; 1 if none plainly does."""
    table = ""
    for number, line in enumerate(text.splitlines(), start=1):
        stripped = line.strip()
        if stripped.startswith("["):
            table = stripped.partition("#")[0].strip(" []")
            named = table
        else:
            named = ".".join(filter(None, (table, stripped.partition("=")[0].strip())))
        if named == (f"{section}.{key}" if key is not None else section):
            return number
        if key is None and named.startswith(f"{section}."):
            return number
    return 1


def credential(name: str) -> Path | None:
    """Return the path of a systemd credential, or None where systemd passed none of that name."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY")
    path = Path(folder, name) if folder else None
    return path if path is not None and path.is_file() else None
