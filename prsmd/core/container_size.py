"""Decides whether what a container is started with is small enough for the kernel to take.

`execve` refuses one text of the environment or the arguments that is longer than MAX_ARG_STRLEN
(32 pages), and all of them together beyond a quarter of the stack's limit (execve(2)): without
these bounds that would be seen as a crash loop, "argument list too long". Counts bytes as the
kernel does: each text with its ending NUL and its pointer.
"""

import dataclasses
from collections.abc import Iterable, Mapping

from prsmd.domain.quantity import format_memory
from prsmd.domain.spec import Spec

MOST_TEXT_BYTES = 32 * 4096
MOST_TOTAL_BYTES = 2 * 2**20  # a quarter of the usual stack limit of 8 MiB
_MARGIN_BYTES = 128 * 1024  # what the engine and its init put beside it: paths, names, padding
_POINTER_BYTES = 8
_SECRET_PATH_BYTES = 256  # NAME_FILE=/run/secrets/NAME
_CONFIG = "deployment_config"
TOO_LONG = (
    f"must be shorter than {MOST_TEXT_BYTES} bytes with its name: the kernel takes no longer one"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Oversize:
    """Which field is too large, and why, in words."""

    field: str
    reason: str


def oversize(spec: Spec, secret_bytes: Mapping[str, int], most: int | None) -> Oversize | None:
    """Return what of a spec is too large, or None.

    `secret_bytes` are the sizes of the secrets that stand in variables, by variable. `most` is the
    bound of everything together; None: only the kernel's.
    """
    for name, size in secret_bytes.items():
        if _text_bytes(name) + 1 + size > MOST_TEXT_BYTES:
            return Oversize(f"{_CONFIG}.secrets.{name}", f"{TOO_LONG}; give it as a file")
    for name, value in spec.environment.items():
        if not fits(f"{name}={value}"):
            return Oversize(f"{_CONFIG}.environment.{name}", TOO_LONG)
    for field in ("command", "args"):
        for at, text in enumerate(getattr(spec, field)):
            if not fits(text):
                return Oversize(f"{_CONFIG}.{field}[{at}]", TOO_LONG)
    parts = parts_of(spec, secret_bytes)
    total, bound = sum(parts.values()), MOST_TOTAL_BYTES - _MARGIN_BYTES
    if most is not None:
        bound = min(bound, most)
    if total <= bound:
        return None
    largest = max(parts, key=lambda name: parts[name])
    told = ", ".join(f"{name} {size} bytes" for name, size in parts.items() if size)
    return Oversize(
        f"{_CONFIG}.{largest}",
        f"environment, secrets in variables, command and args may have {format_memory(bound)}"
        f" together (quota.environment_per_model), and have {total} bytes ({told}). Put large"
        " values into a file of the image or a secret",
    )


def parts_of(spec: Spec, secret_bytes: Mapping[str, int]) -> dict[str, int]:
    """Return the bytes that each part of a spec takes of the kernel's bound."""
    plain = (f"{name}={value}" for name, value in spec.environment.items())
    secrets = sum(
        _text_bytes(name) + 1 + size + _POINTER_BYTES for name, size in secret_bytes.items()
    )
    files = sum(not use.in_environment for use in spec.secrets.values()) * _SECRET_PATH_BYTES
    return {
        "environment": total_bytes(plain),
        "secrets": secrets + files,
        "command": total_bytes(spec.command),
        "args": total_bytes(spec.args),
    }


def launch_refusal(environment: Iterable[str], arguments: Iterable[str]) -> str | None:
    """Return why the kernel would not start a container with these texts; None: it will.

    Here everything is known: also what the image sets and what prsmd adds.
    """
    variables, arguments = list(environment), list(arguments)
    for text in variables:
        if not fits(text):
            return f"variable {text.partition('=')[0][:128]}: {TOO_LONG}"
    if any(not fits(text) for text in arguments):
        return f"an argument: {TOO_LONG}"
    total, bound = total_bytes(variables) + total_bytes(arguments), MOST_TOTAL_BYTES - _MARGIN_BYTES
    if total <= bound:
        return None
    return (
        f"its environment and arguments have {total} bytes, with what the image sets, and the"
        f" kernel takes {bound}"
    )


def total_bytes(texts: Iterable[str]) -> int:
    """Return the bytes that these texts take of the kernel's bound."""
    return sum(_text_bytes(text) + _POINTER_BYTES for text in texts)


def fits(text: str) -> bool:
    """Tell whether the kernel takes one text of the environment or the arguments."""
    return _text_bytes(text) <= MOST_TEXT_BYTES


def _text_bytes(text: str) -> int:
    return len(text.encode(errors="surrogatepass")) + 1
