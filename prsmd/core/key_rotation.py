"""Which signing keys are trusted beside those that an operator gave, and how far.

A key that signed before counts only where the key after it says so in a signed succession, back to
a key that was given; and only up to the place where it was followed. What it would sign beyond that
is worth nothing, whoever has it by then.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from prsmd.core.chain import Head, signed_text
from prsmd.core.signing import check_raw, fingerprint_of

SUCCESSION = "succession"
SignatureCheck = Callable[[str, bytes, str], bool]
"""Tells whether the key of this fingerprint signed the text so: (fingerprint, text, signature)."""
_MOST = 1000


class TrustedKeys:
    """The keys that were given, as `check` knows them, and those that successions lead back to."""

    def __init__(self, check: SignatureCheck, instance: str | None = None) -> None:
        self._check = check
        self._instance = instance
        self._formers: dict[str, tuple[str, Mapping[str, Head]]] = {}
        self.successions: tuple[Mapping[str, Any], ...] = ()

    def accept(self, statements: Iterable[Mapping[str, Any]], instance: str | None = None) -> None:
        """Believe the successions that lead back to a key that was given; leave out all others."""
        self._instance = instance or self._instance
        waiting = list(statements)[:_MOST]
        while True:
            taken = [each for each in waiting if self._believes(each)]
            if not taken:
                return
            for each in taken:
                through = dict(_places(each["through"]))
                self._formers[each["former"]] = (each["former_public_key"], through)
                self.successions += (each,)
            waiting = [each for each in waiting if each not in taken]

    def trusts(self, statement: Mapping[str, Any]) -> bool:
        """Tell whether a key that is trusted, and was until there, signed the statement."""
        key, signature = statement.get("key"), statement.get("signature")
        if not isinstance(key, str) or not isinstance(signature, str):
            return False
        former = self._formers.get(key)
        if former is None or self._given(key, statement, signature):
            return self._given(key, statement, signature)
        public, through = former
        until, sequence = through.get(str(statement.get("log"))), statement.get("sequence")
        if until is None or not isinstance(sequence, int) or sequence > until.sequence:
            return False
        return check_raw(public, signed_text(statement), signature)

    def commitments(self, log: str) -> dict[int, str]:
        """Return the places of a log up to which former keys signed: its records lead there."""
        found = [through[log] for _, through in self._formers.values() if log in through]
        return {head.sequence: head.hash for head in found}

    @property
    def formers(self) -> Mapping[str, str]:
        """The former keys by fingerprint: their 32 bytes in hexadecimal."""
        return {name: public for name, (public, _) in self._formers.items()}

    def _given(self, key: str, statement: Mapping[str, Any], signature: str) -> bool:
        return self._check(key, signed_text(statement), signature)

    def _believes(self, said: Mapping[str, Any]) -> bool:
        if not _is_succession(said) or said["instance"] != self._instance:
            return False
        if said["former"] in self._formers:
            return False
        key, text, signature = said["key"], signed_text(said), said["signature"]
        if self._check(key, text, signature):
            return True
        former = self._formers.get(key)
        if former is None or not check_raw(former[0], text, signature):
            return False
        until = former[1]
        places = _places(said["through"])
        return all(log in until and head.sequence <= until[log].sequence for log, head in places)


def _is_succession(said: Mapping[str, Any]) -> bool:
    names = ("former", "former_public_key", "instance", "key", "signature")
    if said.get("kind") != SUCCESSION or not all(isinstance(said.get(n), str) for n in names):
        return False
    try:
        list(_places(said.get("through")))
    except (AttributeError, KeyError, TypeError, ValueError):
        return False
    return str(said["former"]) == fingerprint_of(said["former_public_key"])


def _places(through: Any) -> Iterable[tuple[str, Head]]:
    for log, place in through.items():
        if type(place["sequence"]) is not int or not isinstance(place["hash"], str):
            raise TypeError(log)
        yield log, Head(place["sequence"], place["hash"])
