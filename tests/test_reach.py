"""Which addresses are public."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from dalga.model.reach import is_public

PRIVATE = """
    0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254
    172.16.0.1 172.31.255.255 192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1
    239.255.255.255 240.0.0.1 255.255.255.255
    :: ::1 ::ffff:0:1 fe80::1 fe80::1%eth0 fe80::1%2 fec0::1 fc00::1 fd00::1 ff02::1 100::1
    2001:db8::1 2001::1
    ::127.0.0.1 ::ffff:127.0.0.1 ::ffff:a00:1 ::ffff:0:127.0.0.1
    64:ff9b::127.0.0.1 64:ff9b::a9fe:a9fe 64:ff9b:1::1 2002:7f00:1:: 2002:a00:1::1 2002:c0a8:1::
"""

PUBLIC = """
    1.1.1.1 8.8.8.8 93.184.216.34 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 192.167.1.1
    2606:4700:4700::1111 2a00:1450:4001:80b::200e 2001:4860:4860::8888
    ::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1
"""


class ReachTests(SynchronousTestCase):
    def test_private(self) -> None:
        for address in PRIVATE.split():
            self.assertFalse(is_public(address), address)

    def test_public(self) -> None:
        for address in PUBLIC.split():
            self.assertTrue(is_public(address), address)

    def test_no_address(self) -> None:
        for text in ("", "localhost", "127.1", "1.2.3.4/32", "::1]"):
            self.assertRaises(ValueError, is_public, text)
