"""Which errors say nothing about who was asked."""

import errno
import os

import pytest

from prsmd.core.exhaustion import unknown_by


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EADDRNOTAVAIL"])
def test_an_error_of_this_process_or_machine_says_nothing(name):
    code = getattr(errno, name)
    unknown = unknown_by(OSError(code, os.strerror(code)))
    assert unknown is not None
    assert unknown.reason == f"this daemon could not ask: {os.strerror(code)}"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionRefusedError(errno.ECONNREFUSED, "refused"),
        ConnectionResetError(errno.ECONNRESET, "reset"),
        TimeoutError(),
        ValueError("not HTTP"),
    ],
)
def test_any_other_error_is_the_other_side_s(error):
    assert unknown_by(error) is None
