"""The next free version label."""

import pytest

from prsmd.service.labels import next_free


@pytest.mark.parametrize(
    ("version", "taken", "found"),
    [
        ("2.1.0", (), "2.1.1"),
        ("2.1.0", ("2.1.1", "2.1.2", "2.1.4"), "2.1.3"),
        ("0.0.9", ("0.0.9",), "0.0.10"),
        ("1.0.0-rc.1", (), "1.0.1"),
        ("1.0.0+build.5", (), "1.0.1"),
        ("1.2.3-a.b+c.d", ("1.2.4",), "1.2.5"),
    ],
)
def test_the_next_label_is_a_higher_patch_that_is_free(version, taken, found):
    assert next_free(version, taken) == found
