"""Who may call, by which tokens, and what is recorded of it."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from .section import Memory, Seconds, Section


class UnixRole(Section):
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


class AccessSection(Section):
    """Who may call. root and the daemon's own user are always administrators."""

    organization: str = Field(default="default", pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    unix_roles: tuple[UnixRole, ...] = ()
    failed_attempts_per_minute: int = Field(default=30, ge=1, le=60_000)
    pepper_file: Path | None = None
    audit_key_file: Path | None = None
    audit_former_keys: tuple[Annotated[str, Field(pattern="^[0-9a-f]{64}$")], ...] = ()
    audit_former_key_file: Path | None = None
    envelope_key_file: Path | None = None
    previous_envelope_key_file: Path | None = None


class OidcRule(Section):
    """Maps a claim that is, or holds, a value to a role in an organization."""

    claim: str = Field(min_length=1)
    value: str
    organization: str = Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")
    role: str = Field(pattern="^[a-z0-9][a-z0-9._-]{0,62}$")


class OidcSection(Section):
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


class AuditSection(Section):
    """What is recorded of inferences, how long records are kept, how often they are signed."""

    inferences: Literal["each", "summary", "off"] = "each"
    keep_days: float = Field(default=365.0, gt=0)
    keep_bytes: Memory = "1Gi"
    denials_per_minute: int = Field(default=10, ge=1, le=100_000)
    denials_keep_days: float = Field(default=90.0, gt=0)
    denials_keep_bytes: Memory = "256Mi"
    inferences_keep_days: float = Field(default=90.0, gt=0)
    inferences_keep_bytes: Memory = "4Gi"
    checkpoint_copy: Path | None = None
    checkpoint_records: int = Field(default=1000, ge=1)
    checkpoint_seconds: Seconds = 300.0
    flush_seconds: Seconds = 1.0
    summary_seconds: Seconds = 60.0
