"""Whose address counts: what trusted proxies added, and nothing that stands left of it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.forwarding import client_address, hops_of, plain

PROXIES = ("10.0.0.0/8", "fd00::/8")


@pytest.mark.parametrize(
    ("peer", "header", "client"),
    [
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.0.0.1", "198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "127.0.0.1, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "198.51.100.1, 10.0.0.2", "198.51.100.1"),
        ("10.0.0.1", "127.0.0.1, 198.51.100.1, 10.0.0.2, 10.9.9.9", "198.51.100.1"),
        ("10.0.0.1", "10.0.0.7, 10.0.0.2", "10.0.0.7"),
        ("10.0.0.1", "198.51.100.1:4711", "198.51.100.1"),
        ("10.0.0.1", "[2001:db8::1]:4711", "2001:db8::1"),
        ("10.0.0.1", "2001:DB8:0::1", "2001:db8::1"),
        ("fd00::1", "::ffff:198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "nonsense, 198.51.100.1", "198.51.100.1"),
        ("10.0.0.1", "unknown", None),
        ("10.0.0.1", "", None),
        ("10.0.0.1", "198.51.100.1,", None),
        ("10.0.0.1", "198.51.100.1 10.0.0.2", None),
        ("10.0.0.1", "198.51.100.256", None),
        ("10.0.0.1", "198.51.100.1, _hidden, 10.0.0.2", None),
    ],
)
def test_the_rightmost_hop_that_is_no_trusted_proxy_is_the_client(peer, header, client):
    assert client_address(peer, hops_of("X-Forwarded-For", [header]), PROXIES) == client


@pytest.mark.parametrize(
    ("header", "client"),
    [
        ("for=198.51.100.1", "198.51.100.1"),
        ("For=198.51.100.1;proto=https;by=10.0.0.1", "198.51.100.1"),
        ("proto=https; for=198.51.100.1", "198.51.100.1"),
        ('for="[2001:db8::1]:4711"', "2001:db8::1"),
        ('for=127.0.0.1, for="198.51.100.1:80"', "198.51.100.1"),
        ('for="127.0.0.1, for=198.51.100.1', "198.51.100.1"),
        ("for=unknown", None),
        ("for=_secret", None),
        ("by=198.51.100.1", None),
        ("xfor=198.51.100.1", None),
        ("198.51.100.1", None),
    ],
)
def test_the_standard_header_is_read_alike(header, client):
    assert client_address("10.0.0.1", hops_of("Forwarded", [header]), PROXIES) == client


def test_without_a_header_a_trusted_proxy_speaks_for_itself():
    assert client_address("10.0.0.1", [], PROXIES) == "10.0.0.1"


def test_several_lines_of_the_header_are_one_row():
    hops = hops_of("x-forwarded-for", ["198.51.100.1", "10.0.0.3, 10.0.0.2"])
    assert client_address("10.0.0.1", hops, PROXIES) == "198.51.100.1"


@given(st.lists(st.text(max_size=30), max_size=50), st.ip_addresses().map(str))
def test_whatever_a_client_sends_its_proxys_word_of_it_counts(sent, client):
    known = plain(client)
    hops = hops_of("X-Forwarded-For", [*sent, client])
    found = client_address("10.0.0.1", hops, ("10.0.0.1/32",))
    assert known in {found, "10.0.0.1"}


@given(st.lists(st.text(max_size=30), max_size=50))
def test_what_a_stranger_writes_is_not_looked_at(sent):
    assert client_address("203.0.113.9", hops_of("Forwarded", sent), PROXIES) == "203.0.113.9"
