"""Exported audit logs, made as the daemon makes them but from values alone."""

import hashlib
import json

from prsmd.core.chain import Head, canonical, content_of, digest_of, link, signed_text
from prsmd.core.signing import Signer
from prsmd.core.transcript import Transcript
from prsmd.domain.events import AuditRecord

SIGNER = Signer(b"k" * 32)
STRANGER = Signer(b"s" * 32)
INSTANCE = "instance_1"


class Checked:
    """The signatures of one key, each text looked at once: thousands of copies share them."""

    def __init__(self, trust):
        self._trust = trust
        self._seen = {}

    def __call__(self, key, text, signature):
        asked = (key, text, signature)
        if asked not in self._seen:
            self._seen[asked] = self._trust.check(*asked)
        return self._seen[asked]


def signed(statement, signer=SIGNER):
    """The statement as this signer signs it."""
    whole = {**statement, "key": signer.fingerprint}
    return {**whole, "signature": signer.sign(signed_text(whole))}


def chained(count, log="changes", start=None, organizations=("acme", "rival")):
    """Records that follow each other after `start`."""
    found, head = [], start or Head()
    for number in range(head.sequence + 1, head.sequence + count + 1):
        bare = AuditRecord(
            sequence=number,
            at=1_767_225_600.5 + number,
            principal="uid:0",
            organization=organizations[number % 3 == 0],
            action="models.deploy",
            subject=f"deploy_{number}",
            outcome="denied" if number % 5 == 0 else "allowed",
            request_id=f"req_{number}",
            details={"image": "müller/legal:2", "replicas": number},
            salt=hashlib.sha256(b"salt %d" % number).hexdigest()[:32],
        )
        digest = digest_of(canonical(content_of(bare)))
        found.append((bare, digest, link(log, number, head.hash, digest)))
        head = Head(number, found[-1][2])
    return found


def checkpoint(head, log="changes", signer=SIGNER, kind="checkpoint"):
    """A signed place of the chain."""
    place = {"sequence": head.sequence, "hash": head.hash}
    return signed({"kind": kind, "log": log, "instance": INSTANCE, "at": 5.0, **place}, signer)


def export(records, *, every=7, organization=None, start=None, log="changes", signer=SIGNER):
    """The lines of an export, each with its newline."""
    context = {"log": log, "instance": INSTANCE, "organization": organization}
    head = {"kind": "export", "format": 1, "at": 9.0, "start": start, **context}
    first = signed(head, signer)
    lines, counts = [first], {"records": 0, "foreigns": 0, "checkpoints": 0}
    at = Head() if start is None else Head(start["sequence"], start["hash"])
    for record, digest, hashed in records:
        at = Head(record.sequence, hashed)
        if organization in {None, record.organization}:
            lines.append({"kind": "record", "record": content_of(record), "hash": hashed})
            counts["records"] += 1
        else:
            place = {"sequence": record.sequence, "digest": digest, "hash": hashed}
            lines.append({"kind": "foreign", **place})
            counts["foreigns"] += 1
        if record.sequence % every == 0:
            lines.append(checkpoint(at, log, signer))
            counts["checkpoints"] += 1
    place = {"sequence": at.sequence, "hash": at.hash}
    end = {"kind": "end", "at": 9.0, "export": digest_of(canonical(first)), **context}
    lines.append(signed({**end, **place, **counts}, signer))
    return [canonical(line) + b"\n" for line in lines]


def signed_anew(line, without=(), **changes):
    """A statement's line as it is signed with these changes."""
    left_out = {"key", "signature", *without}
    said = {name: value for name, value in json.loads(line).items() if name not in left_out}
    return canonical(signed({**said, **changes})) + b"\n"


def verified(lines, check, kept=()):
    """The verdict on lines."""
    transcript = Transcript(check, kept)
    for line in lines:
        transcript.feed(line)
    return transcript.verdict()


def expected_of(line):
    """The sequence that a line of an export is about; None for its head."""
    value = json.loads(line)
    return value.get("record", value).get("sequence")
