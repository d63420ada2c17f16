"""Resource quotas: what an organization may have at most of each thing, and how that is written.

As in Kubernetes each dimension has `used` and `hard`. All amounts are whole numbers: millicores,
thousandths of a GPU, bytes, or counts.
"""

import dataclasses
import enum
from collections.abc import Callable, Mapping

from .quantity import format_cpu, format_gpu, format_memory, parse_cpu, parse_memory

UNLIMITED = "unlimited"
DEFAULT = "default"
_MOST_GPU_MILLIS = 10**7
_MOST_COUNT = 10**6
_MOST_CONTAINER_BYTES = 2**20  # the kernel takes 2 MiB; the rest is for what the image sets itself


class Dimension(enum.StrEnum):
    """What is bounded: sums over an organization, then what holds for each model by itself."""

    CPU = "cpu"
    MEMORY = "memory"
    GPU = "gpu"
    REPLICAS = "replicas"
    MODELS = "models"
    KEYS = "keys"
    MEMBERS = "members"
    ROLES = "roles"
    SECRETS = "secrets"
    REGISTRIES = "registries"
    SHARES = "shares"
    IMAGE_BYTES = "image_bytes"
    ANSWER_BYTES = "answer_bytes"
    CONNECTIONS = "connections"
    REPLICAS_PER_MODEL = "replicas_per_model"
    REVISIONS_PER_MODEL = "revisions_per_model"
    ENVIRONMENT_PER_MODEL = "environment_per_model"


_D = Dimension
PER_MODEL = frozenset({_D.REPLICAS_PER_MODEL, _D.REVISIONS_PER_MODEL, _D.ENVIRONMENT_PER_MODEL})
SUMMED = tuple(one for one in Dimension if one not in PER_MODEL)
IN_MEMORY = (_D.CONNECTIONS,)  # counted while they are open, and in no table
COMPUTE = (_D.CPU, _D.MEMORY, _D.GPU, _D.REPLICAS)  # what models ask for, and replicas reserve
NEVER_UNLIMITED = PER_MODEL  # the kernel and the reconciler have bounds of their own

Amounts = Mapping[Dimension, int]


@dataclasses.dataclass(frozen=True, slots=True)
class Limit:
    """The most of one dimension (None: unlimited); `is_default` where no administrator set it."""

    hard: int | None
    is_default: bool = True


Limits = Mapping[Dimension, Limit]  # what is absent is unlimited


def hard_limits(limits: Limits) -> Amounts:
    """Return the finite limits."""
    return {name: limit.hard for name, limit in limits.items() if limit.hard is not None}


def parse_amount(dimension: Dimension, value: object) -> int | None:
    """Return a limit as it is set: a quantity or a count; `"unlimited"` is None.

    Raises:
        ValueError: it is neither, or is beyond what the dimension can have.
    """
    if value == UNLIMITED:
        if dimension in NEVER_UNLIMITED:
            raise ValueError("must be a number: it cannot be unlimited")
        return None
    text = str(value) if isinstance(value, int) and not isinstance(value, bool) else value
    if not isinstance(text, str):
        raise ValueError(f"must be {_FORMS[dimension].example}, or {UNLIMITED!r}")  # noqa: TRY004 - told as one
    return _FORMS[dimension].read(text)


def format_amount(dimension: Dimension, amount: int) -> str | int:
    """Return an amount as requests and answers have it: `"500m"`, `"8Gi"`, `"0.5"` or 12."""
    return _FORMS[dimension].write(amount)


@dataclasses.dataclass(frozen=True, slots=True)
class _Form:
    read: Callable[[str], int]
    write: Callable[[int], str | int]
    example: str


def _cpu(text: str) -> int:
    return 0 if text == "0" else parse_cpu(text)


def _bytes(text: str) -> int:
    return 0 if text == "0" else parse_memory(text)


def _gpu(text: str) -> int:
    whole, _, part = text.partition(".")
    digits = whole + part
    if not (digits.isascii() and digits.isdigit() and whole) or len(digits) > 9 or len(part) > 3:
        raise ValueError('must be a number of GPUs such as "4" or "0.5"')
    millis = int(whole) * 1000 + int(part.ljust(3, "0"))
    if millis > _MOST_GPU_MILLIS:
        raise ValueError(f"must be at most {_MOST_GPU_MILLIS // 1000}")
    return millis


def _count(least: int, most: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or len(text) > 9:
            raise ValueError(f"must be a whole number from {least} to {most}")
        if not least <= int(text) <= most:
            raise ValueError(f"must be from {least} to {most}")
        return int(text)

    return read


def _container_bytes(text: str) -> int:
    size = _bytes(text)
    if not 4096 <= size <= _MOST_CONTAINER_BYTES:
        raise ValueError('must be from "4Ki" to "1Mi": the kernel takes no more')
    return size


_COUNT = _Form(_count(0, _MOST_COUNT), int, "a whole number such as 100")
_BYTES = _Form(_bytes, format_memory, 'a size such as "8Gi"')
_FORMS: Mapping[Dimension, _Form] = {
    **dict.fromkeys(Dimension, _COUNT),
    _D.CPU: _Form(_cpu, format_cpu, 'cores such as "8" or "500m"'),
    _D.MEMORY: _BYTES,
    _D.GPU: _Form(_gpu, format_gpu, 'GPUs such as "4" or "0.5"'),
    _D.IMAGE_BYTES: _BYTES,
    _D.ANSWER_BYTES: _BYTES,
    _D.REPLICAS_PER_MODEL: _Form(_count(1, 1000), int, "a whole number such as 100"),
    _D.REVISIONS_PER_MODEL: _Form(_count(3, 10_000), int, "a whole number such as 50"),
    _D.ENVIRONMENT_PER_MODEL: _Form(_container_bytes, format_memory, 'a size such as "256Ki"'),
}
