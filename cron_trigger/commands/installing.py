"""What `install.sh` asks of a host that a shell cannot tell.

Knows /proc, folders, the history and renameat2(2), nothing of commands.  Each question
is a public function, whose lines are printed; what cannot be told is an exit status
other than 0.  Called by install.sh alone, from the checkout, with whatever Python the
host has: nothing here needs the rest of the program but the networks.
"""

from __future__ import annotations

import contextlib
import ctypes
import glob
import ipaddress
import json
import os
import pwd
import re
import sqlite3
import stat
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Iterator

from cron_trigger import SERVICE
from cron_trigger.host.networks import address_of, container_bridges

ENTRY = "cron_trigger_server.py"
#: State LISTEN of a socket in /proc/net/tcp: proc(5).
LISTEN = "0A"
#: fcntl.h, linux/fs.h.
AT_FDCWD, RENAME_EXCHANGE = -100, 2
#: How large a network is proposed for an address that called.
PREFIX = {4: 24, 6: 64}


def port_fault(port: str, *own: str) -> Iterator[str]:
    """Yield who else listens on a TCP port; `own` processes may.

    Where one of them does, so does each child of it for a moment, before its exec.
    Not systemd's, number 1, which holds the sockets of many.
    """
    if not port.isdecimal():
        yield f"CRON_TRIGGER_PORT must be a number from 1 to 65535, got {port!a}."
        return
    sockets = set(_listening(int(port)))
    holders: set[int] = set()
    for link in glob.glob("/proc/[0-9]*/fd/*"):
        with contextlib.suppress(OSError):
            if os.readlink(link) in sockets:
                holders.add(int(link.split("/")[2]))
    strangers = {pid for pid in holders if str(pid) not in own}
    if strangers and not holders - strangers - {1}:
        # Beside a server, systemd may hold the socket too: name the server.
        pid = max(strangers)
        name = "a process that has ended"
        with contextlib.suppress(OSError):
            # Any user's process names itself: terminal codes, bytes that are no text.
            comm = Path(f"/proc/{pid}/comm").read_bytes()
            name = comm.strip().decode("latin-1")
            name = name.encode("unicode_escape").decode()
        yield (
            f"Port {port} is used by {name} (process {pid}): stop that, or choose "
            "another port with --port N."
        )
    elif sockets and not holders and os.geteuid() == 0:
        yield (
            f"Port {port} is used by another process, which cannot be seen from here: "
            "choose another port with --port N."
        )
    elif sockets and not holders:
        _note(f"can't tell who uses port {port}: only root can see it")


def _note(text: str) -> None:
    """Tell what is no reason to end; in install.sh, answers are."""
    with contextlib.suppress(OSError):
        os.write(3, f"{text}\n".encode())


def _listening(port: int) -> Iterator[str]:
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(FileNotFoundError), open(table) as lines:
            next(lines)
            for line in lines:
                fields = line.split()
                if fields[3] == LISTEN and int(fields[1][-4:], 16) == port:
                    yield f"socket:[{fields[9]}]"


def new_program(new: str, old: str, force: str = "") -> Iterator[str]:
    """Yield why a program would not do here what the one in use does."""
    status, lines = _checked(new)
    warnings = [line for line in lines if line.startswith("warning: ")]
    if status:
        fault = next((line for line in lines if line not in warnings), "")
        yield (
            "This version would not run here, so nothing was changed: "
            f"{fault.replace(f'{SERVICE}: ', '', 1)}"
        )
    elif not force and os.path.exists(os.path.join(old, ENTRY)):
        before = "\n".join(_checked(old)[1])
        for line in warnings:
            name = re.search('"[^"]*": ', line)
            if name and name[0] not in before:
                yield (
                    "This version would not start a cron that works now, so nothing "
                    f"was changed (--force upgrades all the same): {line}"
                )
                return


def _checked(folder: str) -> tuple[int, list[str]]:
    """Return what the program in a folder says of this host: status and lines."""
    words = [sys.executable, "-IB", os.path.join(folder, ENTRY), "check"]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.returncode, (done.stdout + done.stderr).splitlines()


def callers(history: str, settings: str) -> Iterator[str]:
    """Yield who called lately and would be refused, and the setting that lets them in.

    It has the containers' networks as well, which a CRON_TRIGGER_ALLOW replaces.
    """
    try:
        clients = _clients(history)
    except sqlite3.Error:
        return _note(f"can't tell who called lately: {history} can't be read")
    containers = [interface.network for _, interface in container_bridges()]
    refused = []
    for client in clients:
        with contextlib.suppress(ValueError):  # the user of the command line
            address = address_of(client)
            if not address.is_loopback and not any(address in n for n in containers):
                refused.append(address)
    if refused:
        networks = [
            ipaddress.ip_network(f"{address}/{PREFIX[address.version]}", strict=False)
            for address in refused
        ]
        allowed = ",".join(dict.fromkeys(map(str, [*networks, *containers])))
        yield (
            "These called within the last 14 days and would be refused, so nothing was "
            f"changed: {', '.join(sorted(map(str, refused)))}; to let them in, set in "
            f"{settings}: CRON_TRIGGER_ALLOW={allowed} (--force upgrades all the same)"
        )
    return None


def _clients(history: str) -> list[str]:
    place = f"file:{urllib.parse.quote(history)}?mode=ro"
    with contextlib.closing(sqlite3.connect(place, uri=True, timeout=10)) as database:
        rows = database.execute(
            "select distinct client from cron_executions where client is not null"
            " and started_at > strftime('%Y-%m-%dT%H:%M:%S', 'now', '-14 days')"
        )
        return [client for (client,) in rows]


def older(pid: str, program: str, *files: str) -> Iterator[str]:
    """Yield "older" where a process began before a file that it is made from came.

    Whoever put that there: an installation that was interrupted, a package, a person.
    """
    paths = [program, *files]
    for folder, folders, names in os.walk(program):
        # The server writes there, where Python is another one than at the installation.
        folders[:] = set(folders) - {"__pycache__"}
        paths += [os.path.join(folder, name) for name in names]
    with open(f"/proc/{pid}/stat") as line:
        ticks = int(line.read().rpartition(")")[2].split()[19])
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    # The folder itself, too: its rename is later than its files.
    if max(os.lstat(path).st_ctime for path in paths) >= time.time() - age_s:
        yield "older"


def exchange(one: str, other: str) -> Iterator[str]:
    """Have two folders change places, in one step where the file system can."""
    rename = getattr(ctypes.CDLL(None), "renameat2", lambda *_: -1)
    paths = os.fsencode(one), os.fsencode(other)
    if rename(AT_FDCWD, paths[0], AT_FDCWD, paths[1], RENAME_EXCHANGE) != 0:
        # install.sh knows this name, should it be interrupted here.
        os.rename(one, f"{other}.old")
        os.rename(other, one)
        os.rename(f"{other}.old", other)
    yield from ()


def folder_fault(who: str, folder: str) -> Iterator[str]:
    """Yield why others could put links there that root follows, and the remedy.

    The first one is looked at strictly (`go`: nor may its group write) where `who` says
    so; those above may be their group's, and the sticky ones everybody's (/tmp).
    """
    danger = "who could put links there that root would follow"
    for place in (folder, *map(str, Path(folder).parents)):
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(place)
            if status.st_uid != 0:
                owner = _user(status.st_uid)
                yield f"{place} belongs to {owner}, {danger}: sudo chown root {place}."
                return
            sticky = status.st_mode & stat.S_ISVTX and who == "o"
            if status.st_mode & (0o022 if who == "go" else 0o002) and not sticky:
                remedy = f"sudo chmod {who}-w {place}"
                yield f"Others than root may write {place}, {danger}: {remedy}."
                return
        who = "o"


def _user(number: int) -> str:
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return str(number)


def other_program(one: str, other: str) -> Iterator[str]:
    """Yield "other" where two folders differ: names, kinds, modes, owners, contents."""
    if _fingerprint(one) != _fingerprint(other):
        yield "other"


def _fingerprint(folder: str) -> list[tuple[object, ...]]:
    as_root = os.geteuid() == 0  # a packager leaves the owner to the package
    found: list[tuple[object, ...]] = []
    for place, folders, names in os.walk(folder):
        folders[:] = sorted(set(folders) - {"__pycache__"})
        for path in (os.path.join(place, name) for name in ["", *folders, *names]):
            status = os.lstat(path)
            owner = (status.st_uid, status.st_gid) if as_root else ()
            said: object = os.readlink(path) if os.path.islink(path) else ""
            if stat.S_ISREG(status.st_mode):
                said = Path(path).read_bytes()
            name = os.path.relpath(path, folder)
            found.append((name, status.st_mode, owner, said))
    return sorted(found, key=lambda one: str(one[0]))


def logs(folder: str, registry: str) -> Iterator[str]:
    """Yield the server's log and each cron's in the log folder, rotated ones, too.

    Not one elsewhere; and the folder may hold other programs' logs.
    """
    log_dir = os.path.normpath(folder)
    names = [f"{SERVICE}.log"]
    with contextlib.suppress(OSError, ValueError, AttributeError):
        crons = json.loads(Path(registry).read_text("utf-8"))
        for name, cron in crons.items():
            log_file = cron.get("logFile") if isinstance(cron, dict) else None
            log_file = log_file if isinstance(log_file, str) else f"{name}.log"
            path = os.path.normpath(os.path.join(log_dir, log_file))
            if os.path.dirname(path) == log_dir and path.isprintable():
                names.append(os.path.basename(path))
    for name in names:
        # What logrotate makes of it: NAME.log.1, NAME.log.2.gz.
        path = os.path.join(log_dir, name)
        yield from filter(os.path.lexists, [path])
        yield from glob.glob(f"{glob.escape(path)}.[0-9]*")


def health(url: str) -> Iterator[str]:
    """Yield what a server answers, asked without a proxy."""
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(url, timeout=10) as answer:
        yield answer.read().decode()


def main(question: str, *arguments: str) -> int:
    """Print the answer to a question, a line each.  Return 0; 1 where it has none."""
    try:
        for line in globals()[question](*arguments):
            print(line)
    except (OSError, ValueError, AttributeError, sqlite3.Error) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0
