"""Makes the parts of the audit from its settings and connects them. Starts nothing."""

import dataclasses
import functools
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from prsmd import __version__, keyfiles
from prsmd.config import ConfigurationError
from prsmd.core.coalesce import Shares
from prsmd.core.signing import Signer, Trust, pem_of
from prsmd.domain.errors import PrsmdError
from prsmd.domain.events import AuditRecord, own_record
from prsmd.domain.quantity import parse_memory
from prsmd.engine.audit_log import AuditLog
from prsmd.engine.denials import TABLE, Denials
from prsmd.engine.flusher import Flushable, Flusher
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.engine.retention import Retention
from prsmd.engine.rotation import Formers, Rotation
from prsmd.engine.witness import Witness
from prsmd.gateway.refusals import Refusals
from prsmd.gateway.tape import Notes, Tally, Tape
from prsmd.service.audit import Audit
from prsmd.service.proof import Prover
from prsmd.settings import AuditSection, Settings
from prsmd.store import audit, meta
from prsmd.store.checkpoint_file import CheckpointFile, keep_public_key
from prsmd.store.continuity import CHECKPOINTS
from prsmd.store.db import Database, Tx
from prsmd.store.errors import StoreDamagedError, damaged

log = logging.getLogger(__name__)
_DAY_SECONDS = 86400.0


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """The audit's parts, and the flusher of all that the data path keeps in memory.

    `notes` is where the gateway tells of inferences (None: nobody asks).
    """

    notes: Notes | None
    denials: Denials
    flusher: Flusher
    notary: Notary
    retention: Retention
    service: Audit
    beginning: Callable[[], Awaitable[None]]

    async def begin(self) -> None:
        """Have it on record from when on what is recorded, and which key signs.

        Raises:
            StoreDamagedError: a file of the state is not what prsmd wrote.
        """
        try:
            await self.beginning()
        except StoreDamagedError:
            raise
        except PrsmdError as error:
            log.error("the audit's begin is not on record: %s", error.message)  # noqa: TRY400

    async def settle(self) -> None:
        """Write what is only in memory yet, and sign where the audit ends."""
        await self.flusher.flush()
        if self.notes:
            log.error("%d inferences are not on record: the daemon ends", len(self.notes))
        await self.notary.attest()


@dataclasses.dataclass(frozen=True, slots=True)
class Books:
    """What the audit is written to. `usage` None: inferences are not recorded here."""

    changes: Database
    usage: Database | None
    instance: str
    clock: Callable[[], float]


def auditing_of(settings: Settings, books: Books) -> Auditing:
    """Return the audit's parts. ConfigurationError when its key cannot be used."""
    section, state = settings.audit, settings.daemon.state_dir
    signer = _signer(settings)
    logs = _logs(section, books)
    checkpoints = CheckpointFile(state / "audit-checkpoints.jsonl", section.checkpoint_copy)
    _tell_lacking(checkpoints)
    notary = Notary(
        logs,
        signer,
        Trust(signer.public_pem),
        checkpoints,
        NotarySettings(
            instance=books.instance,
            every_records=section.checkpoint_records,
            every_seconds=section.checkpoint_seconds,
        ),
        books.clock,
    )
    organization = settings.access.organization
    rotation = Rotation(
        signer,
        notary.keys,
        CheckpointFile(state / "audit-successions.jsonl"),
        _formers(settings, signer),
        books.instance,
        books.clock,
    )
    details = {"inferences": section.inferences, "key": signer.fingerprint, "version": __version__}

    async def beginning() -> None:
        await notary.load()
        made = await rotation.begin(logs)
        record = own_record(books.clock(), organization, "audit.begin", "audit", details)
        followed = [_followed(each, books.clock(), organization) for each in made]
        await books.changes.write(lambda tx: _begin(tx, [record, *followed]))

    notes = _notes(section) if books.usage is not None else None
    shares = Shares(each=section.denials_per_minute, caller=6 * section.denials_per_minute)
    denials = Denials(books.changes, organization, shares, clock=books.clock)
    sources = (denials, *_flushables(section, books, notes))
    return Auditing(
        notes=notes,
        denials=denials,
        flusher=Flusher(sources, section.flush_seconds),
        notary=notary,
        retention=Retention(logs, notary, books.changes, organization, books.clock),
        service=Audit(logs, Prover(notary), functools.partial(_trusted, signer, notary), notes),
        beginning=beginning,
    )


def _tell_lacking(file: CheckpointFile) -> None:
    """Log that the copy of the checkpoints lost some. It goes on: new ones are still worth it."""
    try:
        lacking = file.lacking()
    except OSError as error:
        log.error("audit.checkpoint_copy cannot be read: %s", error)  # noqa: TRY400
        return
    if lacking:
        log.error(
            "audit.checkpoint_copy: %s lacks %d statements that %s has: it was emptied, its disk is"
            " not mounted, or it is new. Put it back, or add what it lacks: docs/audit.md",
            *(file.copy, lacking, file.path),
        )


def _followed(succession: Mapping[str, Any], at: float, organization: str) -> AuditRecord:
    """Return the record of a key that the present one vouches for from now on."""
    details = {"key": succession["key"], "through": succession["through"]}
    subject = f"audit-key:{succession['former']}"
    return own_record(at, organization, "audit.succeed", subject, details)


async def _begin(tx: Tx, records: Sequence[AuditRecord]) -> None:
    """Append the first records, after that of a control.db which somebody had taken as it is."""
    made, first = await meta.take_accepted(tx), records[0]
    if made is not None:
        details = {"commits": await meta.commits(tx), "commits_before": made}
        taken = own_record(first.at, first.organization, "state.accept", "control.db", details)
        await audit.append(tx, taken)
    await audit.append_all(tx, records)


def _trusted(signer: Signer, notary: Notary) -> bytes:
    """Return the public keys that count, the present one's first."""
    formers = [pem_of(public) for public in notary.keys.formers.values()]
    return b"".join([signer.public_pem, *formers])


def _formers(settings: Settings, signer: Signer) -> Formers:
    """Return the keys that the operator says signed before; the folder's file only has them."""
    section, key = settings.access, None
    if section.audit_former_key_file is not None:
        try:
            key = Signer(section.audit_former_key_file.read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError([f"access.audit_former_key_file: {error}"]) from None
    known = _public_keys(settings.daemon.state_dir / "audit-public-keys.pem", signer)
    return Formers(fingerprints=section.audit_former_keys, key=key, public_keys=known)


def _logs(section: AuditSection, books: Books) -> list[AuditLog]:
    changes = AuditLog(
        name="changes",
        database=books.changes,
        keep_seconds=section.keep_days * _DAY_SECONDS,
        keep_bytes=parse_memory(section.keep_bytes),
    )
    denials = AuditLog(
        name="denials",
        database=books.changes,
        keep_seconds=section.denials_keep_days * _DAY_SECONDS,
        keep_bytes=parse_memory(section.denials_keep_bytes),
        table=TABLE,
    )
    if books.usage is None:
        return [changes, denials]
    inferences = AuditLog(
        name="inferences",
        database=books.usage,
        keep_seconds=section.inferences_keep_days * _DAY_SECONDS,
        keep_bytes=parse_memory(section.inferences_keep_bytes),
    )
    return [changes, denials, inferences]


def _notes(section: AuditSection) -> Notes | None:
    if section.inferences == "each":
        return Refusals(Tape())
    return Refusals(Tally()) if section.inferences == "summary" else None


def _flushables(section: AuditSection, books: Books, notes: Notes | None) -> tuple[Flushable, ...]:
    if notes is None or books.usage is None:
        return ()
    due = section.summary_seconds if section.inferences == "summary" else 0.0
    return (Witness(notes, books.usage, due, books.clock),)


def _public_keys(path: Path, signer: Signer) -> bytes:
    try:
        return keep_public_key(path, signer)
    except (OSError, ValueError) as error:
        raise damaged(path, str(error)) from error


def _signer(settings: Settings) -> Signer:
    configured: Path | None = settings.access.audit_key_file
    state = settings.daemon.state_dir
    signed = (state / CHECKPOINTS).exists()
    needed = "what the audit has was signed with it (docs/audit.md: former keys)" if signed else ""
    key = keyfiles.secret("audit-key", configured, state, needed)
    try:
        return Signer(key)
    except ValueError as error:
        raise ConfigurationError([f"access.audit_key_file: {error}"]) from None
