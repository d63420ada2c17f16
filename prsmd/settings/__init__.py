"""The appliance's settings by section: what may be set, its defaults, what is refused.

Where the values come from is `prsmd/config.py`. Secrets never stand here: a setting names the
file that holds one.
"""

from .access import AccessSection, AuditSection, OidcSection, UnixRole
from .containers import ImagesSection, RuntimeSection, SecuritySection
from .listening import LimitsSection, TcpSection, UnixSection
from .machine import AutoscaleSection, DaemonSection, EngineSection, GpusSection, NodeSection
from .quotas import QuotaSection
from .section import Section

__all__ = [
    "AccessSection",
    "AuditSection",
    "AutoscaleSection",
    "DaemonSection",
    "EngineSection",
    "GpusSection",
    "ImagesSection",
    "LimitsSection",
    "NodeSection",
    "OidcSection",
    "QuotaSection",
    "RuntimeSection",
    "Section",
    "SecuritySection",
    "Settings",
    "TcpSection",
    "UnixRole",
    "UnixSection",
]


class Settings(Section):
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
    quota: QuotaSection = QuotaSection()
