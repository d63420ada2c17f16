"""Bodies of requests about images and registries."""

from typing import Annotated

from pydantic import Field

from prsmd.api import patterns
from prsmd.api.identity_schemas import OrganizationName
from prsmd.api.schemas import Body


class PruneBody(Body):
    """POST /v1/images/prune."""

    keep_revisions: Annotated[int, Field(ge=1, le=1000)] | None = None
    dry_run: bool = False


class LoginBody(Body):
    """PUT /v1/registries/{server}."""

    username: Annotated[str, Field(min_length=1, max_length=256, pattern=patterns.USER)]
    password: Annotated[str, Field(min_length=1, max_length=16384, pattern=patterns.WITHOUT_NUL)]
    organization: OrganizationName | None = None


class RegistryBody(LoginBody):
    """POST /v1/registries."""

    server: Annotated[str, Field(min_length=1, max_length=300)]
