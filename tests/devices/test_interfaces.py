"""By which interface an address is reached, as the kernel's routes say."""

import pytest

from prsmd.devices.interfaces import interface_to

ROUTES = """Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
eth0 00000000 010200C0 0003 0 0 0 00000000 0 0 0
eth0 000200C0 00000000 0001 0 0 0 00FFFFFF 0 0 0
prsmi-1 0000D50A 00000000 0001 0 0 0 C0FFFFFF 0 0 0
prsmx-2 4000D50A 00000000 0001 0 0 0 C0FFFFFF 0 0 0
"""


@pytest.mark.parametrize(
    ("address", "interface"),
    [
        ("10.213.0.2", "prsmi-1"),
        ("10.213.0.63", "prsmi-1"),
        ("10.213.0.64", "prsmx-2"),
        ("10.213.0.128", "eth0"),
        ("192.0.2.7", "eth0"),
        ("198.51.100.1", "eth0"),
        ("2001:db8::1", None),
        ("", None),
        ("no address", None),
    ],
)
def test_the_longest_route_wins(tmp_path, address, interface):
    (tmp_path / "route").write_text(ROUTES)
    assert interface_to(address, tmp_path / "route") == interface


def test_without_routes_nothing_is_reached(tmp_path):
    (tmp_path / "route").write_text(ROUTES.splitlines()[0])
    assert interface_to("10.213.0.2", tmp_path / "route") is None
    assert interface_to("10.213.0.2", tmp_path / "missing") is None
