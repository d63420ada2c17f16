"""What a launch needs besides its image: leave to run as asked, and its secrets.

Leave is asked again at each launch: the operator's rules may have become stricter since the deploy.
"""

import logging
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path

from prsmd.core.exhaustion import is_exhausted
from prsmd.core.guard import ContainerRules, breach
from prsmd.core.manifest import ManifestError, read
from prsmd.core.signing import Trust
from prsmd.domain.errors import EngineError, EngineUnreachableError, ImageUnavailableError
from prsmd.domain.spec import Spec
from prsmd.store import secrets
from prsmd.store.db import Database
from prsmd.store.sealing import SealBrokenError, Sealer

log = logging.getLogger(__name__)


class SignedImages:
    """Which images may run by their signed lists. Without trusted keys, all may.

    The lists are read each time they are asked, so that a new one holds at once. One that cannot
    be trusted allows nothing. `latest` is the latest time that is known to have been: a clock that
    was set back makes no list good again.
    """

    def __init__(
        self,
        trusted_keys: Sequence[Path] = (),
        lists: Sequence[Path] = (),
        *,
        latest: float = 0.0,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._lists = lists
        self._latest = latest
        self._clock = clock
        pems = b"".join(path.read_bytes() for path in trusted_keys)
        self._trust = Trust(pems) if trusted_keys else None

    def refusal(self, names: Collection[str]) -> str | None:
        """Return why an image with these digests may not run; None where it may.

        EngineUnreachableError where this process has no descriptor left to look.
        """
        if self._trust is None:
            return None
        self._latest = max(self._latest, self._clock())
        wanted = {name.rpartition("@")[2] for name in names}
        troubles = []
        for path in self._lists:
            try:
                if wanted & read(path.read_bytes(), self._trust, self._latest):
                    return None
            except (OSError, ManifestError) as error:
                if is_exhausted(error):
                    raise EngineUnreachableError(f"{path} cannot be read now: {error}") from error
                troubles.append(f"{path}: {error}")
        for trouble in troubles:
            log.warning("list of signed images not used: %s", trouble)
        why = f" ({'; '.join(troubles)})" if troubles else ""
        return f"no list of [images] signed_lists names {', '.join(sorted(wanted))}{why}"


class Provisions:
    """Gives launches what they need, or says why not."""

    def __init__(
        self, database: Database, sealer: Sealer, rules: ContainerRules, signed: SignedImages
    ) -> None:
        self._database = database
        self._sealer = sealer
        self.rules = rules
        self.signed = signed

    def apply(self, rules: ContainerRules) -> None:
        """Go by these rules from now on; what runs goes on."""
        self.rules = rules

    def apply_signed(self, signed: SignedImages) -> None:
        """Let only the images run that these lists name, from the next launch on."""
        self.signed = signed

    def refuse_broken_rules(self, organization: str, spec: Spec) -> None:
        """Raise EngineError where the rules of today do not let it run as asked."""
        found = breach(self.rules, organization, spec)
        if found is not None:
            raise EngineError(f"{found.field}: {found.reason}")

    def refuse_unsigned(self, reference: str, names: Collection[str]) -> None:
        """Raise ImageUnavailableError for an image that no signed list names."""
        refusal = self.signed.refusal(names)
        if refusal is not None:
            raise ImageUnavailableError(f"{reference} may not run here: {refusal}")

    async def secrets(self, organization: str, spec: Spec) -> Mapping[str, bytes]:
        """Return the values that a container gets, by its variables.

        Raises:
            EngineError: one is gone, cannot be opened, or does not fit where it is wanted.
        """
        found = {}
        async with self._database.read() as tx:
            for variable, use in spec.secrets.items():
                try:
                    value = await secrets.value(tx, organization, use.name, self._sealer)
                except SealBrokenError as error:
                    raise EngineError(f"secret {use.name}: {error.message}") from None
                if value is None:
                    raise EngineError(missing_words(organization, use.name))
                if use.in_environment and not is_textual(value):
                    raise EngineError(binary_words(use.name))
                found[variable] = value
        return found


def is_textual(value: bytes) -> bool:
    """Tell whether a value can stand in an environment variable."""
    try:
        return len(value.decode()) <= 32768 and b"\0" not in value
    except UnicodeDecodeError:
        return False


def missing_words(organization: str, name: str) -> str:
    """Return how a secret that is not there is told."""
    return f"{organization} has no secret {name}: set it with `prsmctl secret set {name}`"


def binary_words(name: str) -> str:
    """Return how a secret that cannot stand in a variable is told."""
    return f"secret {name} is binary or too long for a variable: give it as a file"
