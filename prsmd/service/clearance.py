"""Refuses, before anything is stored, what could not be launched later for want of leave.

The same is asked at each launch (engine/provisions.py); here it is told to who asks.
"""

from prsmd.core.guard import breach
from prsmd.domain.errors import ConflictError, InvalidInputError, PermissionDeniedError
from prsmd.domain.spec import Spec
from prsmd.engine.provisions import Provisions, binary_words, missing_words
from prsmd.store import organizations, secrets
from prsmd.store.db import Tx

_SECRETS = "deployment_config.secrets"


async def refuse_uncleared(tx: Tx, provisions: Provisions, organization: str, spec: Spec) -> None:
    """Return if the organization may run this now and has every secret that it names.

    Raises:
        PermissionDeniedError: the operator's rules do not allow it to this organization, or it was
            removed while the request was under way.
        InvalidInputError: the operator's rules allow it to nobody.
        ConflictError: a secret is not there, or cannot stand where it is wanted.
    """
    owner = await organizations.get(tx, organization)
    if owner is not None and owner.removed_at is not None:
        raise PermissionDeniedError(f"Organization {organization} was removed.")
    found = breach(provisions.rules, organization, spec)
    if found is not None and found.forbidden:
        raise PermissionDeniedError(f"{found.field}: {found.reason}.", field=found.field)
    if found is not None:
        raise InvalidInputError.field(found.field, found.reason)
    if "@" in spec.image:
        refusal = provisions.signed.refusal({spec.image})
        if refusal is not None:
            message = f"{spec.image} may not run here: {refusal}."
            raise PermissionDeniedError(message, field="deployment_config.container_image")
    for variable, use in spec.secrets.items():
        stored = await secrets.get(tx, organization, use.name)
        field = f"{_SECRETS}.{variable}"
        if stored is None:
            raise ConflictError(f"{field}: {missing_words(organization, use.name)}.", field=field)
        if use.in_environment and not stored.textual:
            raise ConflictError(f"{field}: {binary_words(use.name)}.", field=field)
