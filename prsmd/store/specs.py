"""How specs are written down: as JSON through pydantic, and named by a hash of their content."""

import hashlib
import json

from pydantic import TypeAdapter

from prsmd.domain.spec import Spec

_SPEC = TypeAdapter(Spec)


def encode(spec: Spec) -> str:
    """Return the spec as JSON."""
    return _SPEC.dump_json(spec).decode()


def decode(text: str) -> Spec:
    """Return the spec that `encode` wrote; fields that it did not know get their defaults."""
    return _SPEC.validate_json(text)


def spec_hash(spec: Spec) -> str:
    """Return the SHA-256, in hexadecimal, of the spec's canonical JSON.

    Equal specs have equal hashes, whatever the order of their fields or variables, and whether a
    number was written `300` or `300.0`.
    """
    plain = _SPEC.dump_python(spec, mode="json")
    canonical = json.dumps(plain, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()
