"""Bodies of requests about secrets."""

import base64
import binascii
from typing import Annotated

from pydantic import Field, model_validator

from prsmd.api.identity_schemas import OrganizationName
from prsmd.api.schemas import Body, Name
from prsmd.domain.errors import InvalidInputError

MOST_BYTES = 256 * 1024
_LONGEST = -(-MOST_BYTES // 3) * 4


class SecretValueBody(Body):
    """PUT /v1/secrets/{name}. Exactly one of the two values."""

    value: Annotated[str, Field(max_length=MOST_BYTES)] | None = Field(default=None, repr=False)
    value_base64: Annotated[str, Field(max_length=_LONGEST)] | None = Field(
        default=None, repr=False
    )
    organization: OrganizationName | None = None

    @model_validator(mode="after")
    def _one(self) -> "SecretValueBody":
        if (self.value is None) == (self.value_base64 is None):
            raise ValueError("give exactly one of value and value_base64")
        return self

    def content(self) -> bytes:
        """Return the value. InvalidInputError names the field where it cannot be used."""
        field = "value" if self.value_base64 is None else "value_base64"
        try:
            found = (
                (self.value or "").encode()
                if self.value_base64 is None
                else base64.b64decode(self.value_base64, validate=True)
            )
        except (binascii.Error, ValueError):
            raise InvalidInputError.field(field, "is not base64") from None
        if not 0 < len(found) <= MOST_BYTES:
            raise InvalidInputError.field(field, f"must be 1 to {MOST_BYTES} bytes")
        return found


class SecretBody(SecretValueBody):
    """POST /v1/secrets."""

    name: Name
