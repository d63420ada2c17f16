"""An organization's quota as frozen values. Amounts are as sent: `"500m"`, `"8Gi"`, `"0.5"`, 12."""

import dataclasses
from collections.abc import Mapping

from .wire import Wire, mapping

_value = dataclasses.dataclass(frozen=True, slots=True, kw_only=True)


@_value
class QuotaLimit(Wire):
    """One limit. `hard` None is unlimited; `used` None: it holds for each model by itself.

    `reserved` is what replicas hold now. `default`: no administrator set it for the organization.
    """

    hard: str | int | None = None
    used: str | int | None = None
    reserved: str | int | None = None
    default: bool = True


@_value
class Quota(Wire):
    """An organization's quota: its limits by dimension."""

    organization_id: str
    quota: Mapping[str, QuotaLimit] = mapping(QuotaLimit)
