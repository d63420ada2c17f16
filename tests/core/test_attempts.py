"""Who failed too often waits; nobody else does, and nobody gets out of it by sending more."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.attempts import Attempts, network_of

LIMIT = 5


def fail(attempts, address, count=1, now=100.0, key=None):
    for _ in range(count):
        attempts.failed(address, "wrong", now, key)


def test_an_address_that_fails_too_often_waits_and_then_may_again():
    attempts = Attempts(LIMIT)
    fail(attempts, "192.0.2.1", LIMIT)
    wait = attempts.wait("192.0.2.1", "any", 100.0)
    assert 0 < wait <= 60 / LIMIT
    assert attempts.wait("192.0.2.1", "any", 100.0 + wait) == 0
    assert attempts.wait("192.0.2.2", "any", 100.0) == 0


def test_a_key_guessed_from_many_addresses_leaves_each_new_one_a_single_attempt():
    attempts = Attempts(LIMIT)
    for n in range(LIMIT):
        fail(attempts, f"192.0.2.{n}", key="victim")
    assert attempts.wait("192.0.2.1", "x", 100.0, "victim") > 0
    assert attempts.wait("192.0.2.1", "x", 100.0, "other") == 0
    assert attempts.wait("198.51.100.1", "x", 100.0, "victim") == 0  # the holder, from elsewhere
    fail(attempts, "198.51.100.1", key="victim")
    assert attempts.wait("198.51.100.1", "x", 100.0, "victim") > 0


def test_what_was_proven_from_an_address_passes_though_neighbours_fail():
    attempts = Attempts(LIMIT)
    attempts.proven("192.0.2.1", "right")
    fail(attempts, "192.0.2.1", LIMIT, key="k")
    assert attempts.wait("192.0.2.1", "right", 100.0, "k") == 0
    assert attempts.wait("192.0.2.1", "guess", 100.0, "k") > 0
    assert attempts.wait("192.0.2.9", "right", 100.0, "k") == 0
    attempts.failed("192.0.2.1", "right", 100.0, "k")  # it was revoked meanwhile
    assert attempts.wait("192.0.2.1", "right", 100.0, "k") > 0


def test_addresses_of_one_ipv6_customer_fail_together():
    attempts = Attempts(LIMIT)
    for n in range(LIMIT):
        fail(attempts, f"2001:db8::{n + 1}")
    assert attempts.wait("2001:db8::ffff", "x", 100.0) > 0
    assert attempts.wait("2001:db8:0:1::1", "x", 100.0) == 0


@pytest.mark.parametrize("address", ["", "unix:uid=5", "peer unix:uid=5", "192.0.2.1"])
def test_whatever_is_no_ipv6_address_stands_for_itself(address):
    assert network_of(address) == address


def test_a_bucket_is_not_emptied_by_filling_the_memory_with_others():
    attempts = Attempts(LIMIT, most=100)
    fail(attempts, "192.0.2.1", LIMIT, key="victim")
    for n in range(10_000):
        fail(attempts, f"10.0.{n // 250}.{n % 250}", key=f"key-{n}")
        assert len(attempts) <= 200
    assert attempts.wait("192.0.2.1", "x", 100.0) > 0


@given(st.lists(st.tuples(st.integers(0, 50), st.floats(0, 20)), max_size=300))
def test_no_address_has_more_failures_than_its_limit_in_a_minute(tries):
    attempts = Attempts(LIMIT, most=1000)
    now, passed = 0.0, {}
    for who, seconds in tries:
        now += seconds
        address = f"192.0.2.{who}"
        if attempts.wait(address, "x", now) == 0:
            attempts.failed(address, "x", now)
            passed.setdefault(address, []).append(now)
    for times in passed.values():
        for at in times:
            assert sum(at <= other < at + 59.9 for other in times) <= 2 * LIMIT
