"""Networks that keys are held to: what is inside, what is outside, and what is none."""

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prsmd.core.networks import AllowList, allows, canonical, within
from tests.support.calls import calls_of

# Few addresses and all lengths, so that networks often lie in each other.
BITS = st.tuples(st.integers(0, 15), st.integers(0, 8))
V4 = BITS.map(lambda bits: ipaddress.ip_network((bits[0] << 24, bits[1]), strict=False))
V6 = BITS.map(lambda bits: ipaddress.ip_network((bits[0] << 120, bits[1]), strict=False))
NETWORKS = st.lists(st.one_of(V4, V6), max_size=8)


@pytest.mark.parametrize(
    ("networks", "address", "allowed"),
    [
        (["10.0.0.0/8"], "10.255.0.1", True),
        (["10.0.0.0/8"], "11.0.0.1", False),
        (["10.0.0.0/8", "192.0.2.7/32"], "192.0.2.7", True),
        (["10.0.0.0/8"], "::ffff:10.1.2.3", True),
        (["10.0.0.0/8"], "::ffff:11.1.2.3", False),
        (["fd00::/8"], "fd12::1", True),
        (["fe80::/10"], "fe80::1%eth0", True),
        (["fd00::/8"], "10.0.0.1", False),
        (["0.0.0.0/0"], "::1", False),
        (["127.0.0.0/8"], None, True),
        (["::1/128"], None, True),
        (["10.0.0.0/8"], None, False),
        ([], "10.0.0.1", False),
        (["10.0.0.0/8"], "", False),
        (["10.0.0.0/8"], "not an address", False),
    ],
)
def test_an_address_is_inside_or_not(networks, address, allowed):
    assert allows(networks, address) is allowed


@pytest.mark.parametrize(
    ("text", "stored"),
    [("10.0.0.0/8", "10.0.0.0/8"), ("192.0.2.7", "192.0.2.7/32"), ("FD00::1", "fd00::1/128")],
)
def test_a_network_is_stored_in_one_form(text, stored):
    assert canonical(text) == stored


@pytest.mark.parametrize("text", ["", "10.0.0.1/8", "10.0.0.0/33", "host", "10.0.0", "1/2/3"])
def test_what_is_no_network_is_refused(text):
    with pytest.raises(ValueError, match=r".*"):
        canonical(text)


@pytest.mark.parametrize(
    ("inner", "outer", "inside"),
    [
        (["10.1.0.0/16"], ["10.0.0.0/8"], True),
        (["10.0.0.0/8"], ["10.0.0.0/8"], True),
        (["10.0.0.0/7"], ["10.0.0.0/8"], False),
        (["10.1.0.0/16", "fd00::/8"], ["10.0.0.0/8"], False),
        (["fd00::1/128"], ["10.0.0.0/8", "fd00::/8"], True),
        ([], ["10.0.0.0/8"], True),
        (["10.0.0.0/8"], [], False),
    ],
)
def test_networks_lie_within_others_or_not(inner, outer, inside):
    assert within(inner, outer) is inside


@given(inner=NETWORKS, outer=NETWORKS)
def test_each_inner_network_lies_in_one_of_the_outer_ones(inner, outer):
    expected = all(
        any(one.version == other.version and one.subnet_of(other) for other in outer)
        for one in inner
    )

    assert within(map(str, inner), map(str, outer)) is expected


@given(networks=NETWORKS, address=st.one_of(V4, V6).map(lambda network: network[0]))
def test_an_address_is_allowed_by_any_network_that_has_it(networks, address):
    expected = any(address in network for network in networks)

    assert AllowList(map(str, networks)).allows(str(address)) is expected


def test_twice_the_networks_are_twice_the_work():
    def work(count):
        outer = [f"10.{n // 256}.{n % 256}.0/24" for n in range(count)]
        inner = [f"10.{n // 256}.{n % 256}.{count % 256}/32" for n in reversed(range(count))]
        return calls_of(lambda: within(inner, outer))

    assert work(400) < 3 * work(200)


def test_a_list_that_is_made_once_compares_an_address_with_few_of_its_networks():
    few, many = (
        AllowList(f"10.{n // 256}.{n % 256}.0/24" for n in range(count)) for count in (1, 1000)
    )

    work = calls_of(lambda: few.allows("10.3.231.1"))
    assert calls_of(lambda: many.allows("10.3.231.1")) < work + 20
