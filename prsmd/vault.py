"""Makes what keeps secrets and what gives leave to run, from their sections of the settings."""

import dataclasses
import logging
from pathlib import Path

from prsmd.config import ConfigurationError
from prsmd.core.guard import ContainerRules
from prsmd.domain.errors import PrsmdError
from prsmd.engine.provisions import Provisions, SignedImages
from prsmd.keyfiles import EnvelopeKeys
from prsmd.service.secrets import resealed
from prsmd.settings import Settings
from prsmd.store import attestations, registries, secrets
from prsmd.store.db import Database
from prsmd.store.sealing import Sealer

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Vault:
    """The seal, where its key is kept, and what launches are given."""

    sealer: Sealer
    envelope: EnvelopeKeys
    provisions: Provisions


async def vault_of(settings: Settings, database: Database) -> Vault:
    """Return the vault. A change of its key that was cut off is finished."""
    access = settings.access
    envelope = EnvelopeKeys(
        access.envelope_key_file, access.previous_envelope_key_file, settings.daemon.state_dir
    )
    sealer = Sealer(envelope.current, *envelope.earlier)
    await _refuse_another_key(database, sealer, envelope.path)
    if envelope.unfinished:
        try:
            await database.write(lambda tx: resealed(tx, sealer, made_here=True))
        except PrsmdError as error:  # both keys stay, and open what each sealed
            log.warning("the change of the envelope key is not finished: %s", error.message)
        else:
            envelope.adopt()
            sealer.forget_earlier()
    signed = await signed_of(settings, database)
    provisions = Provisions(database, sealer, rules_of(settings), signed)
    return Vault(sealer=sealer, envelope=envelope, provisions=provisions)


async def _refuse_another_key(database: Database, sealer: Sealer, path: Path) -> None:
    """Raise ConfigurationError where the key opens nothing of what is stored."""
    async with database.read() as tx:
        names = [*await secrets.key_ids(tx), *await registries.key_ids(tx)]
    closed = [name for name in names if not sealer.knows(name)]
    if closed and len(closed) == len(names):
        problem = (
            f"access.envelope_key_file: {path}: opens none of the {len(names)} secrets and registry"
            f" passwords that are stored: they were sealed with {closed[0]}, and this is"
            f" {sealer.key_id}; put the key back that belongs to this state, or name it in"
            " access.previous_envelope_key_file (if it is lost: docs/security.md)"
        )
        raise ConfigurationError([problem])
    if closed:
        log.warning(
            "%d of %d secrets and registry passwords cannot be opened with %s: set them again",
            *(len(closed), len(names), path),
        )


def rules_of(settings: Settings) -> ContainerRules:
    """Return what the operator allows."""
    return ContainerRules(
        egress=frozenset(settings.security.allow_egress),
        writable_root=frozenset(settings.security.allow_writable_root),
        registries=settings.images.allowed_registries,
        require_digest=settings.images.require_digest,
        runtime_classes=settings.runtime.classes,
    )


async def signed_of(settings: Settings, database: Database) -> SignedImages:
    """Return which images may run. ConfigurationError where the keys cannot be used."""
    async with database.read() as tx:
        checkpoint = await attestations.last_checkpoint(tx)
    latest = 0.0 if checkpoint is None else checkpoint.at
    images = settings.images
    try:
        return SignedImages(images.trusted_keys, images.signed_lists, latest=latest)
    except (OSError, ValueError) as error:
        raise ConfigurationError([f"images.trusted_keys: {error}"]) from None
