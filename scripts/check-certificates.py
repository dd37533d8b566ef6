#!/usr/bin/env python3
"""List the TLS certificates that are expired or soon will be.

Looks at certificate files (PEM or DER) below some folders and, if asked, at what
servers present. The system's own certificate authorities are left out.

Settings, by environment:
  CERT_DAYS        alert when fewer days are left (30)
  CERT_PATHS       files and folders, separated by ":" (those of Let's Encrypt, nginx,
                   Apache, HAProxy, Postfix, Dovecot, Caddy, Kubernetes, /etc/ssl...)
  CERT_HOSTS       servers to ask, HOST:PORT separated by spaces (none)
  CRON_PARAM_DAYS  the number of days for this run only; wins over the setting

Exit status: 0 all well, 1 a certificate is expired, soon will be, or can't be had from
its server, or something in CERT_PATHS can't be read, 64 wrong call, 78 a setting that
does not hold. Of the usual places, what only root may read is listed, and is no fault
as long as there is a certificate to look at.
"""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import socket
import ssl
import stat
import sys
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from typing import Any, NamedTuple

EX_USAGE, EX_CONFIG = 64, 78

DEFAULT_DAYS, MAX_DAYS = 30, 3650
DEFAULT_PATHS = (
    "/etc/letsencrypt/live:/etc/ssl:/etc/pki/tls:/etc/nginx:/etc/apache2:/etc/httpd:"
    "/etc/haproxy:/etc/postfix:/etc/dovecot:/etc/caddy:/etc/kubernetes/pki:"
    "/var/lib/caddy/.local/share/caddy/certificates"
)
SUFFIXES = (".pem", ".crt", ".cer", ".cert", ".der")
#: Where distributions keep the authorities, which are theirs to renew.
AUTHORITIES = (
    "/usr/share/ca-certificates/",
    "/etc/ca-certificates/",
    "/etc/pki/ca-trust/",
    "/var/lib/ca-certificates/",
)
#: A file with more certificates than a chain ever has is a list of authorities.
MAX_CHAIN = 10
MAX_FILE_BYTES = 1024 * 1024
TIMEOUT_S = 10

PEM = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
#: Tags of DER, the binary form of X.509 (RFC 5280 section 4.1, X.690)
SEQUENCE, VERSION, UTC_TIME, GENERALIZED_TIME = 0x30, 0xA0, 0x17, 0x18
COMMON_NAME = b"\x55\x04\x03"


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Certificate(NamedTuple):
    name: str
    expires: datetime


# --- X.509 ------------------------------------------------------------------------


def children(der: bytes) -> list[tuple[int, bytes]]:
    """Split DER into (tag, contents); raises ValueError if it is cut short."""
    found = []
    position = 0
    while position < len(der):
        try:
            tag, length = der[position], der[position + 1]
        except IndexError:
            raise ValueError("DER is cut short") from None
        position += 2
        if length & 0x80:
            count = length & 0x7F
            length = int.from_bytes(der[position : position + count], "big")
            position += count
        if position + length > len(der):
            raise ValueError("DER is cut short")
        found.append((tag, der[position : position + length]))
        position += length
    return found


def certificate(der: bytes) -> Certificate:
    """Read subject and end of validity; raises ValueError if it is no certificate.

    The standard library decodes a certificate only while it verifies it, which an
    expired one does not survive.
    """
    try:
        (_, whole), *_ = children(der)
        (_, body), *_ = children(whole)
        fields = children(body)
        if fields[0][0] == VERSION:
            del fields[0]
        # serialNumber, signature, issuer, validity, subject, ...
        (_, _), (tag, not_after) = children(fields[3][1])
        return Certificate(subject_name(fields[4][1]), time_of(tag, not_after))
    except (IndexError, TypeError):
        raise ValueError("not a certificate") from None


def time_of(tag: int, value: bytes) -> datetime:
    text = value.decode("ascii")
    if tag == UTC_TIME:  # two digits: 50 to 99 are the 20th century (RFC 5280)
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != GENERALIZED_TIME:
        raise ValueError("not a time")
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=timezone.utc)


def subject_name(subject: bytes) -> str:
    for _, names in children(subject):
        for _, pair in children(names):
            (_, kind), (_, value) = children(pair)
            if kind == COMMON_NAME:
                return value.decode("utf-8", "replace")
    return "sans nom"


# --- where certificates are -------------------------------------------------------


def places() -> list[str]:
    """Return CERT_PATHS, all of which must be there, or the usual places."""
    text = os.environ.get("CERT_PATHS")
    if not text:
        return DEFAULT_PATHS.split(":")
    paths = list(filter(None, text.split(":"))) or [text]
    for path in paths:
        try:
            os.stat(path)
        except PermissionError:
            continue  # counted where it is to be read
        except OSError as error:
            raise Fault(
                f"CERT_PATHS contient « {shown(path)} » ({error.strerror}) : donnez "
                "des fichiers et des dossiers qui existent, séparés par « : ».",
                EX_CONFIG,
            ) from None
    return paths


def files(paths: list[str], note: Callable[[OSError], None]) -> Iterator[str]:
    """Yield candidates. Links to files are followed (Let's Encrypt's are links), links
    to folders are not."""
    for path in paths:
        if not os.path.isdir(path):
            yield path
            continue
        for parent, folders, names in os.walk(path, onerror=note):
            folders.sort()
            for name in sorted(names):
                if name.lower().endswith(SUFFIXES):
                    yield os.path.join(parent, name)


def certificates_in(path: str) -> list[bytes]:
    """Return the file's certificates as DER, none if it is not ours to look at.

    Raises OSError if it can't be read.
    """
    if os.path.realpath(path).startswith(AUTHORITIES):
        return []
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            return []
        data = file.read(MAX_FILE_BYTES)
    blocks = PEM.findall(data)
    if len(blocks) > MAX_CHAIN:
        return []
    if not blocks and data[:1] == bytes([SEQUENCE]):
        return [data]
    return [der for der in map(der_of, blocks) if der]


def der_of(block: bytes) -> bytes:
    try:
        return ssl.PEM_cert_to_DER_cert(block.decode("ascii"))
    except ValueError:
        return b""


def certificate_of(host: str, port: int) -> bytes:
    """Return what the server presents, unverified: only its date is wanted."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    plain = socket.create_connection((host, port), timeout=TIMEOUT_S)
    with plain, context.wrap_socket(plain, server_hostname=host) as secured:
        return secured.getpeercert(binary_form=True) or b""


# --- the report -------------------------------------------------------------------


def alert_days() -> int:
    name = "CRON_PARAM_DAYS" if os.environ.get("CRON_PARAM_DAYS") else "CERT_DAYS"
    text = os.environ.get(name) or str(DEFAULT_DAYS)
    if not re.fullmatch("[0-9]{1,4}", text) or int(text) > MAX_DAYS:
        raise Fault(
            f"{name} vaut « {shown(text)} » : donnez un nombre de jours de 0 à "
            f"{MAX_DAYS}.",
            EX_CONFIG,
        )
    return int(text)


def servers() -> list[tuple[str, int]]:
    return [server(item) for item in os.environ.get("CERT_HOSTS", "").split()]


def server(item: str) -> tuple[str, int]:
    host, _, port = item.rpartition(":")
    try:
        host.encode("idna")  # as the resolver does, and may refuse to
    except UnicodeError:
        host = ""
    if not host or not re.fullmatch("[0-9]{1,5}", port) or int(port) > 65535:
        raise Fault(
            f"CERT_HOSTS contient « {shown(item)} » : écrivez HÔTE:PORT, par "
            "exemple www.example.org:443.",
            EX_CONFIG,
        )
    return host.strip("[]"), int(port)


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def judge(der: bytes, place: str, days: int, now: datetime) -> bool | None:
    """Print one line. Return True for an alert, None if it is no certificate."""
    try:
        found = certificate(der)
    except ValueError:
        return None
    left = (found.expires - now).days
    if found.expires <= now:
        word, when = "EXPIRÉ", "depuis le"
    elif left < days:
        word, when = "BIENTÔT", f"dans {left} jour(s), le"
    else:
        word, when = "OK", "le"
    name = shown(found.name)
    print(f"{word:8} {name} : expire {when} {found.expires:%d/%m/%Y} ({shown(place)})")
    return word != "OK"


class Survey:
    """Prints a line per certificate, once each, and per place that can't be read."""

    def __init__(self, days: int, now: datetime) -> None:
        self.days = days
        self.now = now
        self.count = 0
        self.alerts = 0
        self.unreadable = 0

    def look_at_files(self, paths: list[str]) -> None:
        seen = set()
        for path in files(paths, self.note):
            try:
                found = certificates_in(path)
            except OSError as error:
                self.note(error, path)
                continue
            for der in found:
                digest = hashlib.sha256(der).digest()
                alert = None if digest in seen else self._judge(der, path)
                seen.add(digest)
                self.count += alert is not None
                self.alerts += bool(alert)

    def look_at_servers(self, hosts: list[tuple[str, int]]) -> None:
        for host, port in hosts:
            place = f"{host}:{port}"
            try:
                alert = self._judge(certificate_of(host, port), place)
            except (OSError, ValueError) as error:
                print(f"ERREUR   {shown(place)} : pas de certificat ({error})")
                alert = True
            self.count += 1
            self.alerts += alert is not False

    def note(self, error: OSError, path: str | None = None) -> None:
        # What is not there, or is no file (a socket), holds no certificate.
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ENXIO):
            print(f"ILLISIBLE {shown(path or error.filename)} ({error.strerror})")
            self.unreadable += 1

    def _judge(self, der: bytes, place: str) -> bool | None:
        return judge(der, place, self.days, self.now)


def conclude(survey: Survey, demanded: bool) -> int:
    """Print what it comes to; return the exit status. Demanded: CERT_PATHS is set."""
    count, unreadable = survey.count, survey.unreadable
    if unreadable:
        print(f"{unreadable} endroit(s) illisible(s), non vérifiés : relancez en root.")
    if survey.alerts:
        print(f"{survey.alerts} certificat(s) à renouveler ou à vérifier, sur {count}.")
        return 1
    if not count:
        print(
            "Aucun certificat trouvé : nommez les vôtres dans CERT_PATHS ou CERT_HOSTS."
        )
        return 1 if unreadable else 0
    start = "Le reste va bien" if unreadable else "Tout va bien"
    end = f"tous valables {survey.days} jours au moins."
    print(f"{start} : {count} certificat(s), {end}")
    # That only root may read some of the usual places is as it should be: an alert
    # about it on every run would only teach not to read alerts.
    return 1 if unreadable and demanded else 0


def main(argv: list[str]) -> int:
    if argv:
        raise Fault("Ce script ne prend pas d'argument.", EX_USAGE)
    days, hosts, paths = alert_days(), servers(), places()
    survey = Survey(days, datetime.now(timezone.utc))
    survey.look_at_files(paths)
    survey.look_at_servers(hosts)
    return conclude(survey, demanded=bool(os.environ.get("CERT_PATHS")))


class Output(io.FileIO):
    """A stream that drops what it can't write: on a full disk, or once the reader of a
    pipe has left, the work goes on and the exit status tells how it ended."""

    def write(self, data: Any) -> int:
        try:
            # None: its pipe is full, and whoever made it wanted no waiting
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def output(number: int) -> io.TextIOWrapper:
    """Return the standard stream of this number, for any text, in UTF-8."""
    file = io.BufferedWriter(Output(number, "wb", closefd=False))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def open_outputs() -> None:
    # Closed ones first lead nowhere, or the next file opened would take their place.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    sys.stdout, sys.stderr = output(1), output(2)


def cli() -> int:
    open_outputs()
    try:
        return main(sys.argv[1:])
    except Fault as fault:
        print(f"check-certificates : {fault}", file=sys.stderr)
        return fault.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(cli())
