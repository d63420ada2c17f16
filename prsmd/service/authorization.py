"""Whether a caller may ask for a change at all: asked before anything of the request is parsed.

The use cases decide again, in the transaction that writes, on what the request turns out to say.
"""

from prsmd.core.permit import Allow, possible
from prsmd.domain.access import Permission
from prsmd.service.caller import Caller, require_recorded
from prsmd.service.deployments import find_changeable
from prsmd.store.db import Database


class Authorization:
    """Answers by role, and by model where one is named."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def require(
        self, caller: Caller, permission: Permission, subject: str, model: str | None = None
    ) -> None:
        """Return if the caller may change what is named; a denial is audited.

        `model` is an id or a name of a model; None: `subject` is no model, and whether the caller
        may change just that one is for its use case to say.

        Raises:
            PermissionDeniedError: the caller may not.
            ModelNotFoundError: there is no such model for the caller.
        """
        if model is None:
            await require_recorded(self._database, caller, permission, subject)
        else:
            await find_changeable(self._database, caller, model, permission)


def may_ask(caller: Caller, permission: Permission | None) -> bool:
    """Tell whether the caller has a permission (None: none is needed) anywhere at all."""
    return permission is None or isinstance(possible(caller.principal, permission), Allow)
