"""What can name an image on an engine, and the parts of such a name."""

import re

_PART = r"[a-z0-9]+(?:[._-]+[a-z0-9]+)*"
_REFERENCE = re.compile(
    rf"(?:[a-zA-Z0-9.-]+(?::[0-9]+)?/)?{_PART}(?:/{_PART})*"
    r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?(?:@sha256:[0-9a-f]{64})?|sha256:[0-9a-f]{64}"
)


def is_reference(text: str) -> bool:
    """Tell whether `text` can name an image; anything else must not reach the engine's URLs."""
    return len(text) <= 512 and ".." not in text and _REFERENCE.fullmatch(text) is not None


def split_reference(reference: str) -> tuple[str, str]:
    """Return (repository, tag or digest); without either it is `latest`."""
    repository, at, digest = reference.partition("@")
    head, colon, tag = repository.rpartition(":")
    if colon and "/" not in tag:
        repository = head
    else:
        tag = "latest"
    return repository, digest if at else tag
