"""Quantities as Kubernetes writes them: cpu in millicores, memory in bytes, GPUs in thousandths."""

import re
from decimal import Decimal, InvalidOperation

MIB = 1024**2
GIB = 1024**3
MILLI = 1000

_SUFFIXES = {
    "": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12,
    "Ki": 1024, "Mi": MIB, "Gi": GIB, "Ti": 1024**4,
}  # fmt: skip
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)([A-Za-z]*)", re.ASCII)
_LARGEST = 2**53


def _split(text: str, what: str, example: str) -> tuple[Decimal, str]:
    match = _QUANTITY.fullmatch(text.strip())
    if match is None or len(text) > 32:
        raise ValueError(f"{what} must look like {example}")
    try:
        return Decimal(match[1]), match[2]
    except InvalidOperation as error:  # pragma: no cover - the pattern admits only decimals
        raise ValueError(f"{what} must look like {example}") from error


def parse_cpu(text: str) -> int:
    """Return millicores from `"2"`, `"0.5"` or `"500m"`. Raise ValueError for anything else."""
    number, suffix = _split(text, "cpu", '"2" or "500m"')
    if suffix not in {"", "m"}:
        raise ValueError(f'cpu has no unit "{suffix}": write cores ("2") or millicores ("500m")')
    millis = number if suffix == "m" else number * MILLI
    if millis != int(millis) or not 1 <= millis <= 10**7:
        raise ValueError("cpu must be at least 1m and a whole number of millicores")
    return int(millis)


def parse_memory(text: str) -> int:
    """Return bytes from `"8Gi"`, `"512M"` or a plain number. Raise ValueError otherwise."""
    number, suffix = _split(text, "memory", '"8Gi" or "512M"')
    if suffix not in _SUFFIXES:
        raise ValueError(f'memory has no unit "{suffix}": write Ki, Mi, Gi, Ti or k, M, G, T')
    size = int(number * _SUFFIXES[suffix])
    if not 1 <= size <= _LARGEST:
        raise ValueError("memory must be at least 1 byte")
    return size


def parse_gpu(text: str) -> int:
    """Return thousandths of a GPU from `"0"`, `"2"` or a share such as `"0.5"`.

    More than one GPU is always whole GPUs. Raise ValueError otherwise.
    """
    number, suffix = _split(text, "gpu", '"1" or "0.5"')
    millis = number * MILLI
    if suffix or millis != int(millis) or millis > 64 * MILLI:
        raise ValueError('gpu must be a count ("0", "1", "2") or a share of one ("0.5")')
    if millis > MILLI and millis % MILLI:
        raise ValueError("gpu above 1 must be a whole number: a share is a part of one GPU")
    return int(millis)


def format_cpu(millis: int) -> str:
    """Return millicores as cores where they are whole (`"2"`), else as `"500m"`."""
    return str(millis // MILLI) if millis % MILLI == 0 else f"{millis}m"


def format_memory(size: int) -> str:
    """Return bytes in the largest binary unit that divides them (`"8Gi"`)."""
    for suffix in ("Ti", "Gi", "Mi", "Ki"):
        if size and size % _SUFFIXES[suffix] == 0:
            return f"{size // _SUFFIXES[suffix]}{suffix}"
    return str(size)


def format_gpu(millis: int) -> str:
    """Return thousandths of a GPU as a count (`"2"`) or a share (`"0.5"`)."""
    return f"{Decimal(millis) / MILLI:f}"


def gib(size: float) -> str:
    """Return bytes as people read them in a reason: `"12.5 GiB"`."""
    return f"{size / GIB:.1f} GiB"
