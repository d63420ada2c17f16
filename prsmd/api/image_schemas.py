"""Bodies of requests about images and registries."""

from typing import Annotated

from pydantic import Field

from prsmd.api.schemas import Body


class PruneBody(Body):
    """POST /v1/images/prune."""

    keep_revisions: Annotated[int, Field(ge=1, le=1000)] | None = None
    dry_run: bool = False


class LoginBody(Body):
    """PUT /v1/registries/{server}."""

    username: Annotated[str, Field(min_length=1, max_length=256, pattern="^[^\\x00-\\x1f:]*$")]
    password: Annotated[str, Field(min_length=1, max_length=16384, pattern="^[^\\x00]*$")]
    organization: Annotated[str, Field(pattern="^[a-z0-9][a-z0-9-]{0,62}$")] | None = None


class RegistryBody(LoginBody):
    """POST /v1/registries."""

    server: Annotated[str, Field(min_length=1, max_length=300)]
