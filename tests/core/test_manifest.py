"""Signed lists of images: what was signed is what is read, and nothing else is believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.manifest import Listed, ManifestError, read, write
from prsmd.core.signing import Signer, Trust

SIGNER, OTHER = Signer(b"s" * 32), Signer(b"o" * 32)
TRUST = Trust(SIGNER.public_pem)
A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
LIST = write([Listed(A, "company/legal:v2"), Listed(B)], SIGNER, 1000.0, 2000.0)


def test_it_is_text_that_people_can_read():
    lines = LIST.decode().splitlines()
    assert lines[:3] == [
        "prsmd signed images 1",
        "issued 1000",
        "expires 2000",
    ]
    assert lines[3:5] == [f"{A}  company/legal:v2", B]
    assert lines[5].startswith(f"-- signed {SIGNER.fingerprint} ")


def test_what_a_trusted_key_signed_is_believed_until_it_expires():
    assert read(LIST, TRUST, 1999.0) == {A, B}
    with pytest.raises(ManifestError, match="expired at 2000"):
        read(LIST, TRUST, 2000.0)
    assert read(write([Listed(A)], SIGNER, 0.0, None), TRUST, 1e12) == {A}


def test_a_list_from_the_future_tells_that_a_clock_is_wrong():
    later = write([Listed(A)], SIGNER, 100_000.0, None)
    assert read(later, TRUST, 100_000.0 - 86400) == {A}
    with pytest.raises(ManifestError, match="issued at 100000, and here it is only 1000"):
        read(later, TRUST, 1000.0)


def test_two_signatures_are_none():
    text, _, line = LIST.rpartition(b"-- signed ")
    again = write([Listed(A)], SIGNER, 1000.0, 2000.0)
    for twice in (LIST + b"-- signed " + line, text + b"-- signed " + line + again):
        with pytest.raises(ManifestError):
            read(twice, TRUST, 1000.0)
    unended = LIST.removesuffix(b"\n")
    assert read(unended, TRUST, 1000.0) == {A, B}


def test_another_key_is_not_believed_and_more_than_one_can_be():
    with pytest.raises(ManifestError, match=r"none of \[images\] trusted_keys"):
        read(LIST, Trust(OTHER.public_pem), 1000.0)
    assert read(LIST, Trust(OTHER.public_pem + SIGNER.public_pem), 1000.0) == {A, B}


@given(st.integers(0, len(LIST) - 1), st.integers(0, 255))
def test_no_byte_can_be_changed(position, byte):
    changed = LIST[:position] + bytes([byte]) + LIST[position + 1 :]
    if changed == LIST:
        return
    with pytest.raises(ManifestError):
        read(changed, TRUST, 1000.0)


@given(st.integers(0, len(LIST) - 2))
def test_no_part_of_a_list_is_a_list(length):
    with pytest.raises(ManifestError):
        read(LIST[:length], TRUST, 1000.0)


@given(st.binary(max_size=300))
def test_anything_else_is_refused_in_words(content):
    for whole in (content, LIST + content[:1] + b"x", content + LIST):
        if whole != LIST:
            with pytest.raises(ManifestError):
                read(whole, TRUST, 1000.0)


def test_an_appended_line_after_the_signature_is_refused():
    with pytest.raises(ManifestError):
        read(LIST + f"sha256:{'c' * 64}\n".encode(), TRUST, 1000.0)


def test_the_key_of_another_list_does_not_sign_this_one():
    other = write([Listed(A)], OTHER, 1000.0, None)
    forged = LIST.rpartition(b"-- signed ")[0] + b"-- signed " + other.rpartition(b"-- signed ")[2]
    with pytest.raises(ManifestError):
        read(forged, Trust(OTHER.public_pem), 1000.0)


@pytest.mark.parametrize(
    "image",
    [Listed("sha256:short"), Listed(A, "x\n" + B), Listed("company/legal:v1"), Listed(A + "b")],
)
def test_what_is_no_digest_is_not_signed(image):
    with pytest.raises(ManifestError, match="is not a digest"):
        write([image], SIGNER, 0.0, None)
