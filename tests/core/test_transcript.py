"""An exported audit log proves itself: whatever is done to a copy, the first bad line is named."""

import dataclasses
import json
import random

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from prsmd.core.chain import Head, ProblemKind, canonical, link, signed_text
from prsmd.core.signing import Signer, Trust
from prsmd.core.transcript import Kept
from tests.core.exports import (
    INSTANCE,
    SIGNER,
    STRANGER,
    Checked,
    chained,
    checkpoint,
    expected_of,
    export,
    signed_anew,
    verified,
)

TRUST = Checked(Trust(SIGNER.public_pem))
RECORDS = chained(40)
WHOLE = export(RECORDS)
PARTLY = export(RECORDS, organization="rival")
MUTATIONS = 10_000


def flip(lines, chance):
    """Change one byte anywhere, newlines included."""
    raw = bytearray(b"".join(lines))
    raw[chance.randrange(len(raw))] ^= chance.randrange(1, 256)
    return bytes(raw).splitlines(keepends=True) if b"\r" not in raw else _split(bytes(raw))


def _split(raw):
    parts = raw.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def delete(lines, chance):
    gone = chance.randrange(len(lines))
    return lines[:gone] + lines[gone + 1 :]


def reorder(lines, chance):
    one, other = sorted(chance.sample(range(len(lines)), 2))
    mixed = list(lines)
    mixed[one], mixed[other] = mixed[other], mixed[one]
    return mixed


def move(lines, chance):
    mixed = list(lines)
    taken = mixed.pop(chance.randrange(len(lines)))
    mixed.insert(chance.randrange(len(lines)), taken)
    return mixed


def truncate(lines, chance):
    raw = b"".join(lines)
    return _split(raw[: chance.randrange(len(raw))])


def repeat(lines, chance):
    at = chance.randrange(len(lines))
    return lines[: at + 1] + lines[at:]


MUTATE = (flip, flip, flip, delete, reorder, move, truncate, repeat)


def first_difference(original, mutated):
    """The line, from 1, at which a copy is no more what it was; None when it is."""
    for number, line in enumerate(original, 1):
        if number > len(mutated) or mutated[number - 1] != line:
            return number
    return len(original) + 1 if len(mutated) > len(original) else None


@pytest.mark.parametrize("original", [WHOLE, PARTLY], ids=["everything", "one organization's"])
def test_what_was_exported_is_whole(original):
    verdict = verified(original, TRUST)
    assert verdict.problem is None
    assert (verdict.first, verdict.last, verdict.proven) == (1, 40, 40)
    assert verdict.records + verdict.foreign == 40
    assert verdict.checkpoints == 5


@pytest.mark.slow
@pytest.mark.parametrize("original", [WHOLE, PARTLY], ids=["everything", "one organization's"])
def test_of_thousands_of_mutations_each_is_found_where_it_begins(original):
    chance = random.Random(20)
    done = 0
    while done < MUTATIONS // 2:
        mutate = chance.choice(MUTATE)
        mutated = mutate(original, chance)
        where = first_difference(original, mutated)
        if where is None:
            continue
        done += 1
        problem = verified(mutated, TRUST).problem
        named = f"{mutate.__name__}: {problem}"
        assert problem is not None, named
        if _only_checkpoints_moved(original, mutated):
            assert problem.line >= where, named
            continue
        assert problem.line == where, named
        expected = expected_of(original[where - 1]) if where <= len(original) else 41
        if expected is not None:
            assert problem.sequence in {expected, expected + 1}, named


def _only_checkpoints_moved(original, mutated):
    """A chain is whole without a checkpoint; that it is gone, or stood elsewhere, shows later."""
    places = [line for line in original if b'"kind":"checkpoint"' in line]
    records = [line for line in original if line not in places]
    return [line for line in mutated if line not in places] == records


def _lines_without(sequence):
    return [line for line in WHOLE if expected_of(line) != sequence or b'"record"' not in line]


def test_each_kind_of_harm_has_its_own_name():
    at = {expected_of(line): n for n, line in enumerate(WHOLE) if b'"kind":"record"' in line}
    altered = list(WHOLE)
    altered[at[12]] = altered[at[12]].replace(b"allowed", b"denied!")
    swapped = list(WHOLE)
    swapped[at[12]], swapped[at[13]] = swapped[at[13]], swapped[at[12]]
    found = {
        "altered": verified(altered, TRUST).problem,
        "missing": verified(_lines_without(12), TRUST).problem,
        "reordered": verified(swapped, TRUST).problem,
        "truncated": verified(WHOLE[: at[12]], TRUST).problem,
    }
    assert {name: (p.kind.value, p.sequence) for name, p in found.items()} == {
        name: (name, 12) for name in found
    }
    assert "record 12 was altered" in found["altered"].message


def test_whoever_links_everything_anew_is_betrayed_by_the_next_checkpoint():
    forged = export(chained(40, organizations="xy"))
    true = iter([line for line in WHOLE if b'"kind":"checkpoint"' in line])
    lines = [next(true) if b'"kind":"checkpoint"' in line else line for line in forged]
    problem = verified(lines, TRUST).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.ALTERED, 1)
    assert "not those that were signed" in problem.message


def test_a_log_that_another_key_signed_proves_nothing():
    problem = verified(export(RECORDS, signer=STRANGER), TRUST).problem
    assert (problem.kind, problem.line) == (ProblemKind.FORGED, 1)


def test_a_single_checkpoint_of_another_key_is_forged():
    lines = list(WHOLE)
    place = next(n for n, line in enumerate(lines) if b'"kind":"checkpoint"' in line)
    at = Head(7, RECORDS[6][2])
    lines[place] = canonical(checkpoint(at, signer=STRANGER)) + b"\n"
    problem = verified(lines, TRUST).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 7)


def test_a_chain_that_was_pruned_is_proven_from_its_signed_anchor():
    anchor = checkpoint(Head(25, RECORDS[24][2]), kind="anchor")
    verdict = verified(export(RECORDS[25:], start=anchor), TRUST)
    assert verdict.problem is None
    assert (verdict.first, verdict.last) == (26, 40)


def test_a_beginning_that_nobody_signed_is_no_anchor():
    anchor = {**checkpoint(Head(25, RECORDS[24][2]), kind="anchor"), "sequence": 24}
    problem = verified(export(RECORDS[25:], start=anchor), TRUST).problem
    assert problem.kind is ProblemKind.FORGED
    without = verified(export(RECORDS[25:]), TRUST).problem
    assert (without.kind, without.sequence) == (ProblemKind.MISSING, 1)


def test_the_checkpoints_of_another_log_do_not_serve():
    lines = list(WHOLE)
    place = next(n for n, line in enumerate(lines) if b'"kind":"checkpoint"' in line)
    at = Head(7, RECORDS[6][2])
    lines[place] = canonical(checkpoint(at, log="inferences")) + b"\n"
    assert verified(lines, TRUST).problem.kind is ProblemKind.FORGED


def test_the_end_of_another_export_does_not_serve():
    assert verified([*WHOLE[:-1], PARTLY[-1]], TRUST).problem.kind is ProblemKind.FORGED


def test_the_head_of_a_later_export_does_not_serve():
    problem = verified([signed_anew(WHOLE[0], at=20.0), *WHOLE[1:]], TRUST).problem
    assert (problem.kind, problem.line) == (ProblemKind.FORGED, len(WHOLE))
    assert problem.message == "the end is of another export"


@pytest.mark.parametrize("at", [9.0, 8.0], ids=["same moment", "another moment"])
def test_no_other_head_serves_an_end_that_names_its_own(at):
    successions = [{"kind": "succession"}]
    other = signed_anew(WHOLE[0], at=at, successions=successions)
    assert verified([other, *WHOLE[1:]], TRUST).problem.kind is ProblemKind.FORGED


def test_an_export_of_an_earlier_release_whose_end_names_no_head_is_whole():
    older = [*WHOLE[:-1], signed_anew(WHOLE[-1], without=["export"], at=9.5)]
    assert verified(older, TRUST).problem is None
    problem = verified([signed_anew(WHOLE[0], at=20.0), *older[1:]], TRUST).problem
    assert (problem.kind, problem.line) == (ProblemKind.FORGED, len(WHOLE))


def test_a_copy_of_checkpoints_kept_elsewhere_finds_what_the_owner_of_the_key_rewrote():
    rewritten = export(chained(40, organizations="xy"))
    assert verified(rewritten, TRUST).problem is None
    problem = verified(rewritten, TRUST, [kept(20)]).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.ALTERED, 8 + 7)


def kept(sequence, at=1.0, log="changes", instance=INSTANCE):
    hashed = RECORDS[sequence - 1][2]
    return Kept(log=log, instance=instance, sequence=sequence, hash=hashed, at=at)


def test_an_export_that_ends_before_what_was_signed_before_it_was_made_is_truncated():
    older = export(RECORDS[:30])
    assert verified(older, TRUST).problem is None
    problem = verified(older, TRUST, [kept(20), kept(38, at=8.9)]).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.TRUNCATED, 31)
    assert verified(older, TRUST, [kept(20), kept(38, at=9.1)]).problem is None


def test_checkpoints_of_another_log_or_instance_are_nothing_to_this_one():
    rewritten = export(chained(40, organizations="xy"))
    others = [kept(20, log="inferences"), kept(20, instance="instance_2")]
    assert verified(rewritten, TRUST, others).problem is None


def test_of_two_checkpoints_that_contradict_each_other_the_one_signed_first_counts():
    other = chained(40, organizations="xy")
    later = dataclasses.replace(kept(20, at=2.0), hash=other[19][2])
    assert verified(WHOLE, TRUST, [kept(20), later]).problem is None
    assert verified(export(other), TRUST, [kept(20), later]).problem is not None


@pytest.mark.parametrize(
    "line",
    [b"\n", b"[]\n", b"null\n", b"{\n", b'{"kind":["record"]}\n', b"[" * 100_000 + b"\n"],
)
def test_lines_that_are_nothing_of_the_kind_are_named_not_tripped_over(line):
    assert verified([WHOLE[0], line, *WHOLE[1:]], TRUST).problem.line == 2
    assert verified([line, *WHOLE], TRUST).problem.line == 1


def test_types_that_compare_equal_do_not_pass_for_each_other():
    for wrong in (1.0, True, "1", None):
        value = json.loads(WHOLE[1])
        value["record"]["sequence"] = wrong
        assert verified([WHOLE[0], canonical(value) + b"\n"], TRUST).problem.line == 2


def test_an_organizations_own_view_cannot_hide_its_record_as_a_foreign_one():
    """It can: a digest says nothing of whose it is. But the signed counts then differ."""
    lines = list(PARTLY)
    place = next(n for n, line in enumerate(lines) if b'"kind":"record"' in line)
    record, digest, hashed = RECORDS[expected_of(lines[place]) - 1]
    stub = {"kind": "foreign", "sequence": record.sequence, "digest": digest, "hash": hashed}
    lines[place] = canonical(stub) + b"\n"
    problem = verified(lines, TRUST).problem
    assert problem.kind is ProblemKind.MISSING
    assert "record lines" in problem.message


def test_an_empty_log_is_whole():
    verdict = verified(export([]), TRUST)
    assert verdict.problem is None
    assert (verdict.first, verdict.last, verdict.records) == (1, 0, 0)


def test_nothing_is_not_a_log():
    assert verified([], TRUST).problem.kind is ProblemKind.TRUNCATED


def test_no_two_places_of_a_chain_have_one_hash():
    hashes = {
        link(log, sequence, previous, digest)
        for log in ("changes", "inferences")
        for sequence in (1, 2, 11)
        for previous in ("0" * 64, "1" * 64)
        for digest in ("a" * 64, "b" * 64)
    }
    assert len(hashes) == 24


def test_a_signature_covers_every_field():
    place = checkpoint(Head(7, RECORDS[6][2]))
    trust = Trust(SIGNER.public_pem)
    assert trust.check(place["key"], signed_text(place), place["signature"])
    for name in place.keys() - {"signature"}:
        changed = signed_text({**place, name: "x"})
        assert not trust.check(place["key"], changed, place["signature"])


@pytest.mark.parametrize("content", [b"", b"k" * 31, b"-----BEGIN PRIVATE KEY-----\nx\n"])
def test_what_is_no_key_signs_nothing(content):
    with pytest.raises(ValueError, match=r"key|PEM"):
        Signer(content)


def test_a_key_in_a_pem_file_signs_as_its_seed_does():
    pem = Ed25519PrivateKey.from_private_bytes(b"k" * 32).private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    )
    assert Signer(pem).sign(b"text") == SIGNER.sign(b"text")


def test_several_public_keys_are_trusted_after_a_key_was_changed():
    both = Trust(STRANGER.public_pem + SIGNER.public_pem)
    assert both.fingerprints == {SIGNER.fingerprint, STRANGER.fingerprint}
    assert verified(WHOLE, both.check).problem is None
    with pytest.raises(ValueError, match="no public key"):
        Trust(b"nothing")
