"""How limits are written and read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.domain.resource_quota import PER_MODEL, Dimension, format_amount, parse_amount
from prsmd.settings import QuotaSection

D = Dimension


@given(st.sampled_from([one for one in D if one not in PER_MODEL]), st.integers(0, 10**6))
def test_what_is_written_of_an_amount_is_read_as_the_same(dimension, amount):
    assert parse_amount(dimension, format_amount(dimension, amount)) == amount


@pytest.mark.parametrize("dimension", list(D))
@pytest.mark.parametrize(
    "wrong",
    ["", "-1", -1, "0.12345Q", True, None, 1.5, "many", "9" * 40, [], {}, "1e9", "\u0661", "0x10"],
)
def test_what_is_no_amount_of_a_dimension_is_refused_in_words(dimension, wrong):
    with pytest.raises(ValueError, match=r"must|has no unit"):
        parse_amount(dimension, wrong)


@pytest.mark.parametrize("dimension", list(D))
def test_only_what_holds_for_each_model_cannot_be_unlimited(dimension):
    if dimension in PER_MODEL:
        with pytest.raises(ValueError, match="cannot be unlimited"):
            parse_amount(dimension, "unlimited")
    else:
        assert parse_amount(dimension, "unlimited") is None


def test_every_dimension_has_a_finite_default():
    assert set(QuotaSection().hard) == set(D)
    assert all(hard for hard in QuotaSection().hard.values())


def test_a_default_of_the_settings_that_is_no_amount_is_refused():
    with pytest.raises(ValueError, match="cores"):
        QuotaSection(cpu="8 cores")
