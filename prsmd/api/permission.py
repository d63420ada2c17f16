"""Permission before the body: who may not is refused before a byte of the body is parsed or kept.

What is asked is read from the route table and the path, for every operation alike.
"""

from collections.abc import Mapping

from aiohttp import web

from prsmd.api.operations import Operation, Services
from prsmd.api.request_body import refuse_coded
from prsmd.domain.access import Permission
from prsmd.service.authorization import may_ask
from prsmd.service.belonging import Needs
from prsmd.service.caller import Caller, require_own
from prsmd.service.shares import SHAREABLE

_MODELS = ("model_id", "deployment_id")
_KINDS: Mapping[str, str] = {
    "key_id": "key",
    "member_id": "member",
    "organization_id": "organization",
    "server": "registry",
}
_MANAGING = frozenset(
    {
        Permission.KEYS_MANAGE,
        Permission.MEMBERS_MANAGE,
        Permission.SECRETS_MANAGE,
        Permission.NODE_MANAGE,
    }
)
_KEY_MARK = "prsm_"  # API keys begin so; one that is pasted into a path is not to be recorded


async def require_permission(
    operation: Operation, services: Services, request: web.Request, caller: Caller
) -> None:
    """Return if the caller may carry out an operation that changes something; else audit and raise.

    What needs only an identity is about the caller's own, and decided by whose it is.

    Raises:
        PermissionDeniedError: the caller may not.
        ModelNotFoundError: there is no such model for the caller.
    """
    if operation.needs is Needs.IDENTITY or operation.permission is None:
        return
    model = next((request.match_info[n] for n in _MODELS if n in request.match_info), None)
    await services.authorization.require(
        caller, operation.permission, subject_of(operation.path, request.match_info), model
    )


async def require_reading(
    operation: Operation, services: Services, request: web.Request, caller: Caller
) -> None:
    """Return if the caller may have what changes nothing, as far as the route table tells.

    What a share can give is decided where the share is looked for. A denial is audited where who
    may read may also change.

    Raises:
        PermissionDeniedError: the caller may not, whatever their query says.
        UnsupportedMediaTypeError: they may, and send a coded body.
    """
    permission = operation.permission
    if may_ask(caller, permission):
        refuse_coded(request)
    elif permission in _MANAGING:
        await require_permission(operation, services, request, caller)
    elif permission is not None and permission not in SHAREABLE.values():
        require_own(caller, permission)


def subject_of(path: str, named: Mapping[str, str]) -> str:
    """Return what an operation would change, as the audit log names it before the body is known.

    `named` are the parameters of the path.
    """
    subject = path.removeprefix("/v1/")
    for parameter, value in named.items():
        kind = _KINDS.get(parameter) or ("role" if "/roles/" in path else "secret")
        return f"{kind}:{'unknown' if _KEY_MARK in value else value[:100]}"
    return subject
