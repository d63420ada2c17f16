"""Networks that keys are held to: what is inside, what is outside, and what is none."""

import pytest

from prsmd.core.networks import allows, canonical, within


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
