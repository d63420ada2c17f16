"""The form of API keys: what is written is read, and no typo gets past the checksum."""

import string

from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.apikey import (
    ID_LENGTH,
    SECRET_LENGTH,
    format_key,
    is_key_id,
    key_digest,
    parse_key,
    without_secrets,
)

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
ids = st.text(ALPHABET, min_size=ID_LENGTH, max_size=ID_LENGTH)
secrets = st.text(ALPHABET, min_size=SECRET_LENGTH, max_size=SECRET_LENGTH)


@given(ids, secrets)
def test_a_key_that_was_written_is_read_back(key_id, secret):
    text = format_key(key_id, secret)

    assert parse_key(text) == (key_id, secret)
    assert text.startswith(f"prsm_{key_id}_{secret}")


@given(ids, secrets, st.data())
def test_a_single_wrong_character_is_refused(key_id, secret, data):
    text = format_key(key_id, secret)
    position = data.draw(st.integers(0, len(text) - 1))
    wrong = data.draw(st.sampled_from(string.printable + "é").filter(lambda c: c != text[position]))

    assert parse_key(text[:position] + wrong + text[position + 1 :]) is None


@given(ids, secrets, st.data())
def test_two_characters_in_the_wrong_order_are_refused(key_id, secret, data):
    text = format_key(key_id, secret)
    at = data.draw(st.integers(0, len(text) - 2))
    swapped = text[:at] + text[at + 1] + text[at] + text[at + 2 :]

    assert (parse_key(swapped) is None) == (swapped != text)


@given(ids, secrets, st.integers(1, 60))
def test_a_key_that_is_cut_off_is_refused(key_id, secret, missing):
    assert parse_key(format_key(key_id, secret)[:-missing]) is None


@given(st.text())
def test_any_other_text_is_refused(text):
    assert parse_key(text) is None


def test_a_secret_has_at_least_160_bits():
    assert SECRET_LENGTH * 5 >= 160


def test_what_is_stored_depends_on_the_pepper_and_does_not_hold_the_secret():
    one, two = (key_digest(pepper, "secret") for pepper in (b"a" * 32, b"b" * 32))

    assert one != two
    assert len(one) == 32
    assert b"secret" not in one


@given(ids, secrets)
def test_a_whole_key_is_no_id(key_id, secret):
    assert is_key_id(key_id)
    assert not is_key_id(format_key(key_id, secret))


@given(ids, secrets, st.integers(min_value=1, max_value=38), st.sampled_from(["_", "%5F", "%5f"]))
def test_of_a_key_in_a_text_only_its_id_is_left(key_id, secret, length, mark):
    whole = format_key(key_id, secret)
    cut = whole[: len(f"prsm_{key_id}_") + length].replace("_", mark)
    text = without_secrets(f"GET /v1/models/{cut}?x={whole} 404")

    assert text == f"GET /v1/models/prsm{mark}{key_id}{mark}***?x=prsm_{key_id}_*** 404"


def test_a_text_without_a_key_stays_as_it_is():
    for text in ("", "prsm", "prsmd key:abc", "prsm_0123456789", "a/prsm_model:v1"):
        assert without_secrets(text) == text
