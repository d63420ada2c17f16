"""A former signing key counts where its successor says so, up to there, and nowhere else."""

import json

import pytest

from prsmd.core.chain import CHECKPOINT, Head, ProblemKind, canonical, signed_text
from prsmd.core.key_rotation import SUCCESSION, TrustedKeys
from prsmd.core.signing import Signer, Trust
from prsmd.engine.notary import Notary, NotarySettings
from prsmd.engine.rotation import Formers, Rotation
from prsmd.service.proof import Prover
from prsmd.store.checkpoint_file import CheckpointFile
from prsmd.store.db import Database
from tests.service.proving import Ledger, read

FIRST, SECOND, THIRD = (Signer(letter * 32) for letter in (b"k", b"l", b"m"))


@pytest.fixture
async def ledger(tmp_path):
    database = await Database.open(tmp_path / "state")
    made = Ledger(database, tmp_path)
    await made.fill(last=100)
    yield made
    await database.close()


def sign_with(ledger, signer, folder, *, vouched=(), key=None, known=b""):
    """The daemon, restarted with another key."""
    file = CheckpointFile(ledger.path)
    ledger.notary = Notary(
        [ledger.log], signer, Trust(signer.public_pem), file,
        NotarySettings(instance="instance_1"), lambda: ledger.now,
    )  # fmt: skip
    ledger.prover = Prover(ledger.notary)
    formers = Formers(fingerprints=vouched, key=key, public_keys=known)
    successions = CheckpointFile(folder / "successions.jsonl")
    return Rotation(
        signer, ledger.notary.keys, successions, formers, "instance_1", lambda: ledger.now
    )


async def refuses(ledger, caplog):
    before = len(ledger.filed())
    ledger.now += 10_000
    await ledger.notary.attest()
    return len(ledger.filed()) == before and "nobody vouches" in caplog.text


async def test_a_key_that_nobody_vouches_for_counts_no_more_whatever_the_folder_says(
    ledger, tmp_path, caplog
):
    rotation = sign_with(ledger, SECOND, tmp_path, known=FIRST.public_pem)
    assert await rotation.begin([ledger.log]) == []
    problem = (await ledger.verdict()).problem
    assert (problem.kind, problem.sequence) == (ProblemKind.FORGED, 100)
    assert await refuses(ledger, caplog)
    exported = read(await ledger.export(), Trust(SECOND.public_pem)).problem
    assert exported.kind is ProblemKind.FORGED


@pytest.mark.parametrize("how", ["fingerprint", "key"])
async def test_with_the_operators_word_the_log_goes_on_and_is_proven_by_the_new_key_alone(
    ledger, tmp_path, how
):
    given = {"vouched": (FIRST.fingerprint,), "known": FIRST.public_pem}
    rotation = sign_with(
        ledger, SECOND, tmp_path, **(given if how == "fingerprint" else {"key": FIRST})
    )
    [made] = await rotation.begin([ledger.log])
    assert made["through"]["changes"]["sequence"] == 100
    assert ("former_signature" in made) == (how == "key")
    await ledger.notary.attest()
    await ledger.fill(101, 200)
    assert (await ledger.verdict()).problem is None
    assert (await ledger.verdict()).proven == 200
    assert read(await ledger.export(), Trust(SECOND.public_pem)).problem is None
    assert read(await ledger.export(), Trust(FIRST.public_pem)).problem.kind is ProblemKind.FORGED
    again = sign_with(ledger, SECOND, tmp_path)  # the setting was taken away
    assert await again.begin([ledger.log]) == []
    assert (await ledger.verdict()).problem is None


async def test_keys_are_followed_back_over_several_successions(ledger, tmp_path):
    await sign_with(ledger, SECOND, tmp_path, key=FIRST).begin([ledger.log])
    await ledger.fill(101, 200)
    await sign_with(ledger, THIRD, tmp_path, key=SECOND).begin([ledger.log])
    await ledger.fill(201, 300)
    assert (await ledger.verdict()).problem is None
    assert set(ledger.notary.keys.formers) == {FIRST.fingerprint, SECOND.fingerprint}
    assert read(await ledger.export(), Trust(THIRD.public_pem)).problem is None


async def test_a_fingerprint_whose_key_is_not_known_is_said_and_vouched_for_nothing(
    ledger, tmp_path, caplog
):
    rotation = sign_with(ledger, SECOND, tmp_path, vouched=("0" * 64,), known=FIRST.public_pem)
    assert await rotation.begin([ledger.log]) == []
    assert "0" * 64 in caplog.text


async def test_whoever_stole_a_former_key_can_sign_nothing_after_it_was_followed(ledger, tmp_path):
    await sign_with(ledger, SECOND, tmp_path, key=FIRST).begin([ledger.log])
    await ledger.notary.attest()
    thief = Ledger(ledger.database, tmp_path, FIRST)
    forged = thief.notary.statement(CHECKPOINT, ledger.log, Head(150, "0" * 64))
    assert not ledger.notary.trusts(forged)
    await ledger.rewrite({"principal": "key:b"})
    assert (await ledger.verdict()).problem.kind is ProblemKind.ALTERED


def succession(signer, former, through, instance="instance_1"):
    public = Trust(former.public_pem).raw(former.fingerprint)
    bare = {
        "kind": SUCCESSION, "instance": instance, "former": former.fingerprint,
        "former_public_key": public, "through": through, "at": 1.0, "key": signer.fingerprint,
    }  # fmt: skip
    return {**bare, "signature": signer.sign(signed_text(bare))}


PLACE = {"changes": {"sequence": 10, "hash": "a" * 64}}


@pytest.mark.parametrize(
    "said",
    [
        succession(FIRST, FIRST, PLACE),  # of a key that nobody trusts, about itself
        succession(THIRD, FIRST, PLACE),  # of a stranger
        succession(SECOND, FIRST, PLACE, "instance_2"),
        {**succession(SECOND, FIRST, PLACE), "through": {"changes": {"sequence": 99}}},
        {**succession(SECOND, FIRST, PLACE), "former_public_key": "00" * 32},
        {**succession(SECOND, FIRST, PLACE), "at": 2.0},
        {**succession(SECOND, FIRST, PLACE), "through": None},
        {**succession(SECOND, FIRST, PLACE), "signature": 5},
        succession(SECOND, FIRST, {"changes": {"sequence": True, "hash": "a"}}),
        {},
    ],
)
def test_a_succession_that_is_not_the_trusted_keys_own_is_left_out(said):
    keys = TrustedKeys(Trust(SECOND.public_pem).check, "instance_1")
    keys.accept([said])
    assert keys.formers == {}


def test_a_former_key_cannot_vouch_for_one_further_than_itself():
    keys = TrustedKeys(Trust(THIRD.public_pem).check, "instance_1")
    further = {"changes": {"sequence": 11, "hash": "a" * 64}}
    keys.accept([succession(THIRD, SECOND, PLACE), succession(SECOND, FIRST, further)])
    assert set(keys.formers) == {SECOND.fingerprint}
    other_log = {"inferences": {"sequence": 1, "hash": "a" * 64}}
    keys.accept([succession(SECOND, FIRST, other_log)])
    assert set(keys.formers) == {SECOND.fingerprint}


def test_what_a_former_key_signed_counts_up_to_its_place_in_that_log_only():
    keys = TrustedKeys(Trust(SECOND.public_pem).check, "instance_1")
    keys.accept([succession(SECOND, FIRST, PLACE)])

    def signed(log, sequence):
        bare = {"kind": "checkpoint", "log": log, "instance": "instance_1", "sequence": sequence,
                "hash": "b", "key": FIRST.fingerprint}  # fmt: skip
        return {**bare, "signature": FIRST.sign(signed_text(bare))}

    assert keys.trusts(signed("changes", 10))
    assert not keys.trusts(signed("changes", 11))
    assert not keys.trusts(signed("inferences", 5))
    assert not keys.trusts(signed("changes", "10"))
    assert not keys.trusts({"key": FIRST.fingerprint, "signature": "0"})
    assert keys.commitments("changes") == {10: "a" * 64}


def test_successions_are_read_as_they_were_written(tmp_path):
    file = CheckpointFile(tmp_path / "f")
    file.append([canonical(succession(SECOND, FIRST, PLACE)), b"{", b"[]"])
    keys = TrustedKeys(Trust(SECOND.public_pem).check, "instance_1")
    keys.accept(file.statements())
    assert json.loads(json.dumps(keys.successions[0]))["former"] == FIRST.fingerprint
