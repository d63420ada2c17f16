"""Bodies of partial changes: an absent field means unchanged, so that no field has a default.

Neither a value here nor a `default` in the OpenAPI document, which generated clients would send.
"""

import copy
import enum
from typing import Any

from pydantic import Field

from prsmd.api.schemas import Body


class Absent(enum.Enum):
    """The value of a field that was not sent; it is no value of any field."""

    ABSENT = "absent"


def absent() -> Any:
    """Return the declaration of a field that may be left out of a `PatchBody`."""
    return Field(default_factory=lambda: Absent.ABSENT)


def otherwise(value: Any) -> Any:
    """Return the declaration of an option that comes to `value` where it is left out.

    The document says so in words only: a client that sends what nobody asked for would be refused
    where an option does not fit the others.
    """
    words = f"{value!r} where it is left out" if isinstance(value, str | int | float | list) else ""
    return Field(default_factory=lambda: copy.copy(value), description=words or None)


class PatchBody(Body):
    """A partial change. Null takes a value away, where the field can be without one."""

    def given(self) -> dict[str, Any]:
        """Return what was sent, nested objects too, and nothing else."""
        return {name: _given(getattr(self, name)) for name in self.model_fields_set}


def _given(value: Any) -> Any:
    return value.given() if isinstance(value, PatchBody) else value
