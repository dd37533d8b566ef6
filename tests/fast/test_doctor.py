"""`doctor`: each thing that goes wrong is named, with its remedy."""

from __future__ import annotations

import ipaddress
import unittest

from cron_trigger.doctor.containers import ufw_admits

# What `ufw status` of ufw 0.36 prints.
UFW_STATUS = """\
Status: active

To                         Action      From
--                         ------      ----
22/tcp                     ALLOW       Anywhere
9998/tcp                   ALLOW       172.16.0.0/12              # crons
9997                       ALLOW       Anywhere
9996/tcp                   DENY        Anywhere
9995/udp                   ALLOW       Anywhere
9994/tcp on docker0        ALLOW       172.17.0.0/16
Anywhere                   ALLOW       172.30.0.0/16
22/tcp (v6)                ALLOW       Anywhere (v6)
"""


class Firewall(unittest.TestCase):
    """What `ufw status` says about a network and a port."""

    def admits(self, port: int, network: str = "172.18.0.0/16") -> bool:
        return ufw_admits(UFW_STATUS, ipaddress.IPv4Network(network), port)

    def test_rule_for_dockers_networks(self) -> None:
        self.assertTrue(self.admits(9998))
        self.assertFalse(self.admits(9998, "192.168.16.0/20"))

    def test_rule_for_all(self) -> None:
        self.assertTrue(self.admits(9997))

    def test_rules_that_do_not_let_in(self) -> None:
        for port in (9995, 9996, 80, 2):
            self.assertFalse(self.admits(port), port)

    def test_rule_for_one_interface(self) -> None:
        self.assertTrue(self.admits(9994, "172.17.0.0/16"))
        self.assertFalse(self.admits(9994))

    def test_rule_for_every_port(self) -> None:
        self.assertTrue(self.admits(80, "172.30.0.0/16"))


if __name__ == "__main__":
    unittest.main()
