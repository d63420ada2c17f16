"""How often somebody may fail to prove who they are: by address, and by the id of the key.

An address that failed too often waits, whatever it sends next, unless that was proven from there
before. A key that is guessed from many addresses leaves one attempt to each address that has not
failed lately: so guessing is slow, and who holds the key is not locked out from elsewhere.
"""

import collections
import hashlib
import ipaddress
import secrets

from prsmd.core.gcra import Limited, spend

_LEAVE = 0.75  # of the buckets when there are too many: those that failed most stay
_IPV6_PREFIX = 64  # one customer has at least as many addresses


class Attempts:
    """Buckets of failures, of at most `most` addresses and as many keys. `now`: monotonic seconds.

    Each takes `per_minute` failures at once, and fills up again within a minute.
    """

    def __init__(self, per_minute: int, most: int = 16384) -> None:
        self.per_minute = per_minute
        self._addresses = _Buckets(per_minute, most)
        self._keys = _Buckets(per_minute, most)
        self._most = most
        self._salt = secrets.token_bytes(16)
        self._proven: collections.OrderedDict[bytes, None] = collections.OrderedDict()

    def wait(self, address: str, credential: str, now: float, key_id: str | None = None) -> float:
        """Return how many seconds to wait before what is sent may be looked at; 0: none."""
        where = network_of(address)
        seconds = self._addresses.wait(where, now)
        if seconds == 0 and key_id is not None and self._addresses.has_failed(where, now):
            seconds = self._keys.wait(key_id, now)
        if seconds > 0 and self._name(where, credential) in self._proven:
            return 0.0
        return seconds

    def failed(self, address: str, credential: str, now: float, key_id: str | None = None) -> None:
        """Count a failure."""
        where = network_of(address)
        self._proven.pop(self._name(where, credential), None)
        self._addresses.count(where, now)
        if key_id is not None:
            self._keys.count(key_id, now)

    def proven(self, address: str, credential: str) -> None:
        """Remember what proved somebody from there: failures of their neighbours do not hurt it."""
        name = self._name(network_of(address), credential)
        self._proven[name] = None
        self._proven.move_to_end(name)
        if len(self._proven) > self._most:
            self._proven.popitem(last=False)

    def __len__(self) -> int:
        """Return how many buckets are kept."""
        return len(self._addresses) + len(self._keys)

    def _name(self, where: str, credential: str) -> bytes:
        text = f"{where}\n{credential}".encode(errors="surrogateescape")
        return hashlib.blake2b(text, key=self._salt, digest_size=16).digest()


class _Buckets:
    """Of each name only the time is kept at which its bucket will be full again."""

    def __init__(self, per_minute: int, most: int) -> None:
        self._per_minute = per_minute
        self._most = most
        self._kept: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._kept)

    def wait(self, name: str, now: float) -> float:
        outcome = spend(self._kept.get(name, 0), self._per_minute, now)
        return outcome.retry_at - now if isinstance(outcome, Limited) else 0.0

    def has_failed(self, name: str, now: float) -> bool:
        """Tell whether the bucket of this name is not full."""
        outcome = spend(self._kept.get(name, 0), self._per_minute, now)
        return isinstance(outcome, Limited) or outcome.remaining < self._per_minute - 1

    def count(self, name: str, now: float) -> None:
        outcome = spend(self._kept.get(name, 0), self._per_minute, now)
        if name not in self._kept and len(self._kept) >= self._most:
            self._make_room()
        self._kept[name] = outcome.kept

    def _make_room(self) -> None:
        """Forget the quarter that failed least: to be among them again costs others' failures."""
        ordered = sorted(self._kept.items(), key=lambda item: item[1], reverse=True)
        self._kept = dict(ordered[: int(self._most * _LEAVE)])


def network_of(address: str) -> str:
    """Return whose failures count together: an address, or an IPv6 network of one customer."""
    try:
        found = ipaddress.IPv6Address(address)
    except ValueError:
        return address
    return str(ipaddress.IPv6Network((found, _IPV6_PREFIX), strict=False))
