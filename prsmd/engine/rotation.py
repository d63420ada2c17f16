"""The change of the signing key: has the new key vouch for the one before it, and where it ended.

Only for a key that an operator names by its fingerprint, or still has. What stands in the state
folder decides nothing: its public keys are only looked up by that fingerprint.
"""

import asyncio
import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prsmd.core.chain import Head, canonical, signed_text, start_head
from prsmd.core.key_rotation import SUCCESSION, TrustedKeys
from prsmd.core.signing import Signer, Trust, check_raw
from prsmd.domain.errors import PrsmdError
from prsmd.engine.audit_log import AuditLog
from prsmd.store import attestations
from prsmd.store.attestations import Chain
from prsmd.store.checkpoint_file import CheckpointFile

log = logging.getLogger("prsmd.audit")


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Formers:
    """The keys that signed before: by fingerprint, and the last of them itself where it is there.

    `public_keys` are PEM blocks of whatever origin in which those of the fingerprints are sought.
    """

    fingerprints: Sequence[str] = ()
    key: Signer | None = None
    public_keys: bytes = b""


class Rotation:
    """Reads the successions of the file into `keys`, and writes those that are missing."""

    def __init__(
        self,
        signer: Signer,
        keys: TrustedKeys,
        file: CheckpointFile,
        formers: Formers,
        instance: str,
        clock: Callable[[], float],
    ) -> None:
        self._signer = signer
        self._keys = keys
        self._file = file
        self._formers = formers
        self._instance = instance
        self._clock = clock

    async def begin(self, logs: Sequence[AuditLog]) -> list[Mapping[str, Any]]:
        """Return the successions that were written now. PrsmdError where they cannot be kept."""
        known = await asyncio.to_thread(self._file.statements)
        self._keys.accept(known)
        made: list[Mapping[str, Any]] = []
        for fingerprint, public in self._wanted().items():
            statement = await self._succession(fingerprint, public, logs)
            try:
                await asyncio.to_thread(self._file.append, [canonical(statement)])
            except OSError as error:
                raise PrsmdError(f"the succession of keys cannot be kept: {error}") from error
            known = [statement, *known]  # with it, what the former key said counts too
            self._keys.accept(known)
            log.warning("audit succession %s", canonical(statement).decode())
            made.append(statement)
        return made

    def _wanted(self) -> dict[str, str]:
        """Return the former keys for which nobody vouches yet, by fingerprint."""
        formers, found = self._formers, dict[str, str]()
        known = Trust(formers.public_keys) if formers.public_keys else None
        if formers.key is not None:
            public = Trust(formers.key.public_pem).raw(formers.key.fingerprint)
            found[formers.key.fingerprint] = public or ""
        for fingerprint in formers.fingerprints:
            public = None if known is None else known.raw(fingerprint)
            if public is not None:
                found[fingerprint] = public
            elif fingerprint not in self._keys.formers and fingerprint not in found:
                log.error("audit_former_keys: the public key of %s is not known here", fingerprint)
        trusted = {self._signer.fingerprint, *self._keys.formers}
        return {name: public for name, public in found.items() if name not in trusted}

    async def _succession(
        self, fingerprint: str, public: str, logs: Sequence[AuditLog]
    ) -> dict[str, Any]:
        ends = {audited.name: await self._end(audited, fingerprint, public) for audited in logs}
        whole = {
            "kind": SUCCESSION,
            "instance": self._instance,
            "former": fingerprint,
            "former_public_key": public,
            "through": {
                name: {"sequence": end.sequence, "hash": end.hash}
                for name, end in ends.items()
                if end is not None
            },
            "at": self._clock(),
            "key": self._signer.fingerprint,
        }
        former = self._formers.key
        if former is not None and former.fingerprint == fingerprint:
            whole["former_signature"] = former.sign(signed_text(whole))
        return {**whole, "signature": self._signer.sign(signed_text(whole))}

    async def _end(self, audited: AuditLog, fingerprint: str, public: str) -> Head | None:
        """Return the last place of a log that the former key signed and that is still so."""
        async with audited.database.read() as tx:
            chain = await attestations.chain(tx, audited.table)
            last = await attestations.last_checkpoint_by(tx, fingerprint, audited.table)
            found = None
            if last is not None:
                statement = last.statement(audited.name, self._instance)
                stands = await attestations.hash_of(tx, last.sequence, audited.table) == last.hash
                if stands and check_raw(public, signed_text(statement), last.signature):
                    found = Head(last.sequence, last.hash)
        begin = _anchored(chain, fingerprint, public)
        if begin is not None and (found is None or found.sequence < begin.sequence):
            return begin
        return found


def _anchored(chain: Chain, fingerprint: str, public: str) -> Head | None:
    """Return where a log begins that the former key pruned."""
    anchor = chain.anchor
    if anchor is None or anchor["key"] != fingerprint:
        return None
    if not check_raw(public, signed_text(anchor), str(anchor["signature"])):
        return None
    return start_head(anchor)
