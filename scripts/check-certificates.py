#!/usr/bin/env python3
"""List the TLS certificates that are expired or soon will be, as openssl reads them.

Settings, by environment:
  CERT_DAYS        alert when fewer days are left (30)
  CERT_PATHS       files and folders, separated by ":" (the usual ones, see USUAL)
  CERT_HOSTS       servers to ask, HOST:PORT separated by spaces (none)
  CRON_PARAM_DAYS  the number of days for this run only; wins over the setting

Exit status: 0 all well, 1 a certificate is expired, soon will be or cannot be had (what
only root may read is no fault in USUAL), 78 invalid setting, no openssl.
"""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

USUAL = "/etc/letsencrypt/live:/etc/ssl:/etc/pki/tls:/etc/nginx:/etc/apache2:/etc/httpd"
USUAL += ":/etc/haproxy:/etc/postfix:/etc/dovecot:/etc/caddy:/etc/kubernetes/pki"
USUAL += ":/var/lib/caddy/.local/share/caddy/certificates"
ENDING = re.compile("[.](pem|crt|cer|cert)$", re.IGNORECASE)
#: Where distributions keep the authorities, which are theirs to renew.
AUTHORITIES = re.compile("/(usr/share|etc|etc/pki|var/lib)/ca-(certificates|trust)/")
PEM = re.compile(b"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def fail(status: int, sentence: str) -> NoReturn:
    print(f"check-certificates : {sentence}", file=sys.stderr)
    sys.exit(status)


def openssl(command: str, given: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    words = ["timeout", "10", "openssl", *command.split()]
    return subprocess.run(words, input=given, capture_output=True, check=False)


def in_files(paths: list[str]) -> tuple[dict[bytes, str], list[OSError]]:
    """Return certificates (PEM) and their places, and what could not be read."""
    faults: list[OSError] = []
    steps = (step for path in paths for step in os.walk(path, onerror=faults.append))
    below = [f"{parent}/{name}" for parent, _, names in steps for name in names]
    found: dict[bytes, str] = {}
    for path in filter(os.path.isfile, paths + sorted(filter(ENDING.search, below))):
        if AUTHORITIES.match(os.path.realpath(path)):
            continue
        try:
            certificates = PEM.findall(Path(path).read_bytes())
            if len(certificates) <= 10:  # more than any chain: a list of authorities
                found.update(dict.fromkeys(certificates, path))
        except OSError as error:
            faults.append(error)
    ordinary = (FileNotFoundError, NotADirectoryError)  # usual places that are not here
    return found, [fault for fault in faults if not isinstance(fault, ordinary)]


def is_alert(certificate: bytes, place: str, days: int) -> bool:
    show = "x509 -noout -nameopt oneline,-esc_msb -subject -enddate"
    done = openssl(f"{show} -checkend {days * 86_400}", certificate)
    lines = done.stdout.decode(errors="replace").splitlines()[:2]
    text = " ".join(lines) or "pas de certificat, qu'openssl sache lire"
    print(f"{'ALERTE' if done.returncode else 'OK':6} {text} ({place!r})")
    return done.returncode != 0


def main() -> int:
    days = os.environ.get("CRON_PARAM_DAYS") or os.environ.get("CERT_DAYS") or "30"
    hosts = os.environ.get("CERT_HOSTS", "").split()
    given = os.environ.get("CERT_PATHS")
    if openssl("version").returncode:
        fail(78, "Il faut la commande openssl : installez-la.")
    if not re.fullmatch("[0-9]{1,4}", days):
        fail(78, f"CERT_DAYS (ou CRON_PARAM_DAYS) vaut {days!r} : donnez 0 à 9999.")
    for host in hosts:
        if not re.fullmatch(r"\S+:[0-9]{1,5}", host):
            fail(78, f"CERT_HOSTS contient {host!r} : écrivez HÔTE:PORT.")
    for path in given.split(":") if given else []:
        if not os.path.exists(path):
            fail(78, f"CERT_PATHS contient {path!r}, qui n'existe pas.")
    found, faults = in_files((given or USUAL).split(":"))
    for host in hosts:  # its name, too: two servers may give the same answer
        found[openssl(f"s_client -connect {host}").stdout + host.encode()] = host
    alerts = [is_alert(*each, int(days)) for each in found.items()]
    for fault in faults:
        print(f"ILLISIBLE {fault.filename!r} : {fault.strerror}")
    return 1 if any(alerts) or (faults and (given or not alerts)) else 0


if __name__ == "__main__":
    sys.tracebacklimit = 0  # what nobody foresaw is one line, and exit status 1
    sys.exit(main())
