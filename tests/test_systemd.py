"""The service under a systemd that was really booted, in a Debian of its own.

A Debian bookworm (made once by debootstrap, then cached) is booted by systemd-nspawn on
a throw-away overlay, without network. Each test acts on it as an administrator would:
install.sh, systemctl, pkill, logrotate, a reboot. Takes a few minutes and needs root.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from functools import partial
from pathlib import Path
from typing import Any

from beside import beside
from support import (
    CACHE,
    REPOSITORY,
    Server,
    limited,
    need,
    need_full,
    slow,
    wait_until,
)
from test_documentation import BOOTED, DOCUMENTS, Step, blocks, difference, steps

SERVICE = "cron-trigger-server"
PACKAGES = (
    "systemd,systemd-sysv,dbus,python3,logrotate,procps,curl,bsdutils,iproute2,ufw,"
    "sudo,sqlite3,git"
)
UBUNTU = "noble"
UBUNTU_ARCHIVE = "https://archive.ubuntu.com/ubuntu"
UBUNTU_SCRIPT = "/usr/share/debootstrap/scripts/gutsy"
TOOLS = ("systemd-nspawn", "debootstrap", "nsenter", "unshare", "setpriv")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

# Runs in namespaces of its own for mounts and processes, so that neither can be left
# behind: they end with the test, however that ends.
BOOT = """
set -e
base=$1 work=$2 name=$3 repository=$4
for folder in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    if [ -e "$folder/cgroup.procs" ]; then
        mkdir -p "$folder/$name"
        echo 0 >"$folder/$name/cgroup.procs"
    fi
done
layers=lowerdir=$base,upperdir=$work/changes,workdir=$work/overlay
[ -e "$work/root/usr" ] ||
    mount -t overlay overlay -o "$layers" "$work/root" 2>/dev/null ||
    cp -a "$base/." "$work/root"
exec systemd-nspawn --quiet --boot --register=no \
    --keep-unit --private-network --link-journal=no --resolv-conf=off \
    --timezone=off --settings=no --console=pipe --machine="$name" \
    --bind-ro="$repository:/src" --directory="$work/root"
"""

# A cron that runs until it is told to end, and one that writes without a pause, but
# does not end while it is held.
WAITER = """#!/bin/sh
echo waiting
until [ -e /tmp/go ]; do sleep 0.1; done
echo went
exit 7
"""
WRITER = """#!/bin/sh
i=0
while [ $i -lt 1500 ]; do
    i=$((i + 1))
    echo "line $i"
    [ $((i % 5)) != 0 ] || sleep 0.01
    while [ $i = 1400 ] && [ -e /tmp/hold ]; do sleep 0.1; done
done
"""


class Machine:
    """A Debian, once `boot` was called. `close` leaves nothing of it."""

    def __init__(self, suite: str = "bookworm") -> None:
        self._base = base_of(suite)
        self._name = f"cron-trigger-test-{os.getpid()}-{time.monotonic_ns() % 10**6}"
        self._work = Path(tempfile.mkdtemp(prefix=self._name))
        for folder in ("root", "changes", "overlay"):
            (self._work / folder).mkdir()
        self._log = (self._work / "console").open("wb")
        self._nspawn: subprocess.Popen[bytes] | None = None

    def boot(self) -> None:
        command = ["setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid"]
        command += ["--fork", "--kill-child=KILL", "--mount-proc", "sh", "-c", BOOT]
        command += ["boot", str(self._base), str(self._work), self._name]
        self._nspawn = subprocess.Popen(
            [*command, str(REPOSITORY)],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
        )
        wait_until(self._is_up, timeout_s=60, what="a booted container")

    def _is_up(self) -> bool:
        assert self._nspawn
        if self._nspawn.poll() is not None:
            console = (self._work / "console").read_text(errors="replace")
            raise AssertionError(f"the container ended: {console[-2000:]}")
        if not self._leader():
            return False
        state = self.run("systemctl", "is-system-running", check=False).stdout
        return state.strip() in ("running", "degraded")

    def _leader(self) -> int | None:
        """The PID, on this host, of the container's systemd."""
        assert self._nspawn
        nspawn = child_of(self._nspawn.pid)
        leader = nspawn and child_of(nspawn)
        # It calls itself systemd only after nspawn set up the container's inside.
        return leader if leader and name_of(leader) == "systemd" else None

    def run(
        self, *command: str, check: bool = True, given: str = "", timeout_s: float = 90
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the container, as root, and wait for it."""
        leader = self._leader()
        assert leader, "the container is down"
        done = subprocess.run(
            [
                "nsenter",
                "--target",
                str(leader),
                "--all",
                "--",
                "env",
                "-i",
                f"PATH={SYSTEM_PATH}",
                "HOME=/root",
                "LC_ALL=C.UTF-8",
                *command,
            ],
            input=given,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if check and done.returncode != 0:
            raise AssertionError(
                f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}"
            )
        return done

    def sh(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check).stdout.strip()

    def write(self, path: str, text: str, mode: str = "0644") -> None:
        self.run("mkdir", "-p", os.path.dirname(path))
        self.run("sh", "-c", 'cat >"$1" && chmod "$2" "$1"', "", path, mode, given=text)

    def reboot(self) -> None:
        assert self._nspawn
        self.run("systemctl", "reboot", check=False)
        # With --keep-unit, nspawn asks for the next boot by this exit status.
        ended = self._nspawn.wait(60)
        assert ended == 133, f"the container did not ask for a reboot: {ended}"
        self._remove_cgroups()
        self.boot()

    def unpack(self, archive: bytes, folder: str) -> None:
        """Make a folder in the container from a tar archive."""
        self.run("mkdir", "-p", folder)
        leader = self._leader()
        command = ["nsenter", f"--target={leader}", "--all", "--", "tar", "-xC", folder]
        subprocess.run(command, input=archive, check=True, timeout=60)

    def close(self) -> None:
        if self._nspawn:
            self._shut_down(self._nspawn)
        self._log.close()
        self._remove_cgroups()
        shutil.rmtree(self._work)
        for folder in ("propagate", "unix-export"):
            shutil.rmtree(f"/run/systemd/nspawn/{folder}/{self._name}", True)

    def _shut_down(self, nspawn: subprocess.Popen[bytes]) -> None:
        child = child_of(nspawn.pid)
        if child:
            os.kill(child, signal.SIGTERM)  # an orderly one
        try:
            nspawn.wait(20)
        except subprocess.TimeoutExpired:
            nspawn.kill()
            nspawn.wait()

    def _remove_cgroups(self) -> None:
        tops = ("systemd", "unified", ".")
        for top in (Path("/sys/fs/cgroup", top, self._name) for top in tops):
            if top.is_dir():
                # A group can be removed once the last of its processes is reaped.
                wait_until(partial(remove_group, top), what=f"{top} empty")


def child_of(pid: int) -> int | None:
    """The first child of a process, if it has one."""
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def name_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""


def remove_group(top: Path) -> bool:
    try:
        for folder, _, _ in os.walk(top, topdown=False):
            os.rmdir(folder)
    except OSError:
        return False
    return True


def base_of(suite: str) -> Path:
    """The folder of a system that was never booted; made at the first call."""
    CACHE.mkdir(parents=True, exist_ok=True)
    tag = hashlib.sha256(PACKAGES.encode()).hexdigest()[:12]
    made = CACHE / f"{suite}-{tag}"
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not made.is_dir():
            make_base(made, suite)
    return made


def make_base(made: Path, suite: str) -> None:
    half = made.with_suffix(".half")
    shutil.rmtree(half, ignore_errors=True)
    options, source = [], debian_mirror()
    if suite == UBUNTU:
        # Debian's debootstrap has neither its keys nor, under this name, its script.
        options, source = ["--no-check-gpg"], [UBUNTU_ARCHIVE, UBUNTU_SCRIPT]
    done = subprocess.run(
        [
            "debootstrap",
            "--variant=minbase",
            f"--include={PACKAGES}",
            *options,
            suite,
            str(half),
            *source,
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise AssertionError(f"debootstrap: {done.stdout[-2000:]}")
    half.rename(made)


def debian_mirror() -> list[str]:
    """The mirror that this host's apt uses, if it has one of Debian."""
    targets = subprocess.run(
        [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
            "Component: main",
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        check=False,
    )
    return targets.stdout.split()[:1]


# Starts the server so that one of its two threads hangs once a file is there.
HANGING = """
import os, sys, time
sys.path.insert(0, {repository!r})
from flat import m as server

def hanging(method):
    def wrapper(*arguments):
        if os.path.exists({flag!r}):
            time.sleep(1000)
        return method(*arguments)
    return wrapper

server.{name} = hanging(server.{name})
sys.exit(server.main(sys.argv[1:]))
"""


class Protocol(unittest.TestCase):
    """What the server tells systemd: sd_notify(3), without systemd."""

    def setUp(self) -> None:
        folder = tempfile.mkdtemp(prefix="cron-trigger-notify-")
        self.addCleanup(shutil.rmtree, folder)
        self.flag = f"{folder}/hang"
        self.environ = {"NOTIFY_SOCKET": f"{folder}/notify"}
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.socket.close)
        self.socket.bind(self.environ["NOTIFY_SOCKET"])
        self.socket.settimeout(10)

    def serve(self, **options: Any) -> Server:
        registry = {"quick": {"description": "is over at once", "command": "/bin/true"}}
        server = Server(registry, self.environ, start=False, **options)
        self.addCleanup(server.__exit__)
        return server.start()

    def message(self) -> dict[str, str]:
        """The next message, as its assignments."""
        lines = self.socket.recv(4096).decode().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def message_with(self, key: str) -> dict[str, str]:
        while True:
            message = self.message()
            if key in message:
                return message

    def is_silent(self) -> bool:
        """Return True where nothing comes while several pings were due."""
        self.socket.settimeout(1.5)
        try:
            self.message()
        except socket.timeout:
            return True
        return False

    def test_ready_reloading_and_stopping(self) -> None:
        server = self.serve()
        ready = self.message_with("READY")
        self.assertEqual(ready, {"READY": "1", "STATUS": "1 crons, 0 running"})
        assert server.process
        server.process.send_signal(signal.SIGHUP)
        reloading = self.message_with("RELOADING")
        self.assertGreater(int(reloading["MONOTONIC_USEC"]), 0)
        self.message_with("READY")
        self.assertEqual(server.stop(), 0)
        self.message_with("STOPPING")

    @slow
    def test_a_stop_serves_whoever_it_let_in(self) -> None:
        server = self.serve(program=limited("arrival_s=60.0"))
        assert server.process
        with socket.create_connection(("127.0.0.1", server.port), 10) as late:
            server.get("/health")  # came later, and is answered: both were let in
            server.process.send_signal(signal.SIGTERM)
            self.message_with("STOPPING")
            time.sleep(0.3)
            late.sendall(
                b"POST /trigger HTTP/1.1\r\nHost: localhost\r\nContent-Length: 20\r\n"
                b'Content-Type: application/json\r\n\r\n{"cronName":"quick"}'
            )
            self.assertIn(b"HTTP/1.1 202", late.recv(4096))

    def test_the_listening_socket_is_handed_over(self) -> None:
        server = self.serve()
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
        self.assertEqual(data, b"FDSTORE=1\nFDNAME=http")
        ((_, _, descriptor),) = ancillary
        with socket.socket(fileno=int.from_bytes(descriptor, sys.byteorder)) as kept:
            self.assertEqual(kept.getsockname(), ("127.0.0.1", server.port))

    def test_watchdog_hears_nothing_while_the_accepting_loop_hangs(self) -> None:
        need_full()
        self.check_hang("HttpServer.accept")

    def test_watchdog_hears_nothing_while_the_waiting_thread_hangs(self) -> None:
        need_full()
        self.check_hang("Loop.step")

    def check_hang(self, name: str) -> None:
        self.environ["WATCHDOG_USEC"] = "600000"
        code = HANGING.format(
            repository=str(REPOSITORY / "tests"), flag=self.flag, name=name
        )
        server = self.serve(program=("-c", code))
        self.message_with("READY")
        for _ in range(3):
            self.message_with("WATCHDOG")
        Path(self.flag).touch()
        with contextlib.suppress(OSError):
            server.request("GET", "/health", timeout_s=0.5)
        wait_until(self.is_silent)  # what was on its way still comes

    @slow
    def test_without_systemd_nothing_is_said(self) -> None:
        del self.environ["NOTIFY_SOCKET"]
        self.serve()
        self.socket.settimeout(0.2)
        with self.assertRaises(socket.timeout):
            self.message()


#: All that a script finds around itself, but what names this very run.
SHOWS = """#!/bin/sh
set -u
cd "$HOME"
env | grep -v '^CRON_RUN_ID=\\|^CRON_TRIGGER=\\|^SHLVL=\\|^_=\\|^OLDPWD=' | sort
umask; id -G; tty; ulimit -S -a
"""


class OnAMachine(unittest.TestCase):
    """What the tests do on their machine, in an administrator's words."""

    machine: Machine
    suite = "bookworm"

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        need(os.geteuid() == 0, "booting a container needs root")
        for tool in TOOLS:
            need(shutil.which(tool, path=SYSTEM_PATH), f"{tool} is not installed")
        cls.machine = Machine(cls.suite)
        cls.addClassCleanup(cls.machine.close)
        cls.machine.boot()

    def systemctl(self, *arguments: str) -> str:
        return self.machine.run("systemctl", *arguments).stdout.strip()

    def show(self, key: str) -> str:
        return self.systemctl("show", "--property", key, "--value", SERVICE)

    def install(self, *options: str, source: str = "/src") -> str:
        return self.machine.run(f"{source}/install.sh", *options).stdout

    def http(
        self,
        path: str,
        body: dict[str, Any] | None = None,
        method: str = "",
        headers: tuple[str, ...] = (),
        port: int = 9998,
    ) -> tuple[int, Any]:
        """One request from within the container: (status, JSON or text).

        Status 0 is a connection that was refused or broke off, with what curl says.
        """
        command = ["curl", "-sS", "-m", "60", "-w", "\n%{http_code}"]
        for header in headers:
            command += ["-H", header]
        if body is not None:
            command += ["-H", "Content-Type: application/json", "-d", json.dumps(body)]
        if method:
            command += ["-X", method]
        url = f"http://127.0.0.1:{port}{path}"
        done = self.machine.run(*command, url, check=False)
        text, _, status = done.stdout.rpartition("\n")
        text = text or done.stderr
        try:
            return int(status), json.loads(text)
        except ValueError:
            return int(status), text

    def trigger(self, cron: str) -> tuple[int, Any]:
        return self.http("/trigger", {"cronName": cron})

    def start(self, cron: str) -> int:
        self.machine.run("rm", "-f", "/tmp/go")
        # A test that fails leaves no cron to the next.
        self.addCleanup(self.machine.run, "touch", "/tmp/go")
        status, answer = self.trigger(cron)
        self.assertEqual(status, 202, answer)
        return int(answer["runId"])

    def run_of(self, run_id: int) -> dict[str, Any]:
        status, answer = self.http(f"/runs/{run_id}")
        self.assertEqual(status, 200, answer)
        run: dict[str, Any] = answer["run"]
        return run

    def ended(self, run_id: int) -> dict[str, Any]:
        """Wait for the end of a run and return its record."""
        wait_until(
            lambda: self.run_of(run_id)["status"] != "running",
            timeout_s=60,
            what=f"the end of run {run_id}",
        )
        return self.run_of(run_id)

    def assert_goes_on(self, run_id: int) -> None:
        """The waiter still runs, is still locked, and its end is still recorded."""
        self.assertEqual(self.run_of(run_id)["status"], "running")
        status, answer = self.trigger("waiter")
        self.assertEqual((status, answer["code"]), (409, "already_running"))
        self.assertEqual(answer["runId"], run_id)
        self.machine.run("touch", "/tmp/go")
        run = self.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 7))
        log = self.http(f"/runs/{run_id}/log")[1]
        self.assertEqual(log.splitlines(), ["waiting", "went"])

    def wait_for_another_server(self, old_pid: str, timeout_s: float) -> None:
        def is_back() -> bool:
            return (
                self.show("ActiveState") == "active"
                and self.show("SubState") == "running"
                and self.show("MainPID") not in ("0", old_pid)
            )

        wait_until(is_back, timeout_s=timeout_s, what="an active service again")

    def add_crons(self) -> None:
        """Put the tests' crons into the installed registry, beside the shipped ones."""
        folder = "/usr/local/lib/crons"
        self.machine.write(f"{folder}/waiter.sh", WAITER, "0755")
        self.machine.write(f"{folder}/writer.sh", WRITER, "0755")
        self.machine.write(f"{folder}/shows.sh", SHOWS, "0755")
        path = "/etc/cron-trigger-server/crons.json"
        registry = json.loads(self.machine.sh(f"cat {path}"))
        registry.update(
            waiter={"description": "waits", "command": f"{folder}/waiter.sh"},
            writer={"description": "writes", "command": f"{folder}/writer.sh"},
            quick={"description": "is over at once", "command": "/bin/true"},
            surroundings={"description": "shows", "command": f"{folder}/shows.sh"},
        )
        self.machine.write(path, json.dumps(registry))
        self.systemctl("reload", SERVICE)
        wait_until(
            lambda: self.http("/health")[1]["available_crons"] == len(registry),
            what="the crons of the tests",
        )

    def set_drop_in(self, text: str) -> None:
        """What `systemctl edit` does; undone after the test."""
        path = f"/etc/systemd/system/{SERVICE}.service.d/test.conf"
        self.machine.write(path, text)
        self.addCleanup(self.restart)
        self.addCleanup(self.machine.run, "rm", "-f", path)
        self.restart()

    def restart(self) -> None:
        self.systemctl("daemon-reload")
        self.systemctl("restart", SERVICE)


class Callers:
    """Clients that keep coming, each with a new connection."""

    def __init__(self, test: OnAMachine, every_s: float = 0.5) -> None:
        self._test = test
        self._every_s = every_s
        self._enough = threading.Event()
        self._threads: list[threading.Thread] = []
        self._come = threading.Thread(target=self._keep_coming, name="callers")
        self.answered = 0
        self.not_served: list[object] = []

    def __enter__(self) -> Callers:
        self._come.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop coming, and wait until the last one was served."""
        self._enough.set()
        self._come.join()
        for thread in self._threads:
            thread.join()

    def _keep_coming(self) -> None:
        while not self._enough.wait(self._every_s):
            thread = threading.Thread(target=self._call, name="caller")
            self._threads.append(thread)
            thread.start()

    def _call(self) -> None:
        """Look whether it is well, then start a cron, or be told that it runs."""
        for status, answer in (self._test.http("/health"), self._test.trigger("quick")):
            self.answered += 1
            if status not in (200, 202, 409):
                self.not_served.append((status, answer))


#: Calls without a pause, from within the machine, and prints who was not served.
HAMMER = """
import http.client, os, threading, time
count, failed = 0, []

def work():
    global count
    while not os.path.exists("/tmp/enough"):
        call = http.client.HTTPConnection("127.0.0.1", 9998, timeout=60)
        try:
            call.request("GET", "/health")
            call.getresponse().read()
            count += 1
            count > 10 and open("/tmp/called", "w").close()
        except Exception as error:
            failed.append(repr(error))
        call.close()

threads = [threading.Thread(target=work) for _ in range(3)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print(count, len(failed), *failed[:5])
"""


class Hammer:
    """As many callers as the machine takes; at the end, all of them were served."""

    def __init__(self, test: OnAMachine) -> None:
        self._test = test

    def __enter__(self) -> None:
        machine = self._test.machine
        machine.run("rm", "-f", "/tmp/enough", "/tmp/hammered", "/tmp/called")
        machine.write("/tmp/hammer.py", HAMMER)
        machine.sh("setsid python3 /tmp/hammer.py >/tmp/hammered 2>&1 &")
        called = partial(machine.run, "test", "-e", "/tmp/called", check=False)
        wait_until(lambda: called().returncode == 0, what="the first callers")

    def __exit__(self, *_: object) -> None:
        machine = self._test.machine
        time.sleep(0.5)  # some more, of the server as it is now
        machine.run("touch", "/tmp/enough")
        told = wait_until(
            lambda: machine.sh("cat /tmp/hammered"), timeout_s=70, what="the callers"
        )
        count, failed = map(int, told.split()[:2])
        self._test.assertGreater(count, 10, told)
        self._test.assertEqual(failed, 0, told)


class Service(OnAMachine):
    """An installed service, from its installation to the reboot of its host."""

    installation: str

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.installation = cls.machine.run("/src/install.sh").stdout
        cls().add_crons()

    def test_installation_shows_the_state_and_the_next_command(self) -> None:
        lines = self.installation.splitlines()
        self.assertIn("active (running)", self.installation)
        self.assertIn(
            '{"status": "healthy", "service": "cron-trigger-server", "port": 9998, '
            '"available_crons": 7}',
            lines,
        )
        self.assertEqual(lines[-1], "curl -s http://127.0.0.1:9998/crons")
        self.assertIn('"waiter"', self.machine.sh(lines[-1]))

    def test_service_is_enabled_and_tells_its_state_in_words(self) -> None:
        self.assertEqual(self.systemctl("is-enabled", SERVICE), "enabled")
        self.assertEqual(self.systemctl("is-active", SERVICE), "active")
        wait_until(
            lambda: self.show("StatusText") == "11 crons, 0 running",
            what="the status line of a server without a run",
        )
        self.assertEqual(self.show("NFileDescriptorStore"), "1")
        run_id = self.start("waiter")
        wait_until(
            lambda: self.show("StatusText") == "11 crons, 1 running",
            what="the run in the status line",
        )
        self.machine.run("touch", "/tmp/go")
        self.ended(run_id)

    def test_files_are_where_they_belong(self) -> None:
        places = {
            "/var/log/qadhya": "755",
            "/var/log/qadhya/cron-trigger-server.log": "644",
            "/var/lib/cron-trigger-server": "700",
            "/var/lib/cron-trigger-server/history.db": None,
            "/run/cron-trigger-server": "700",
            "/etc/cron-trigger-server/crons.json": "644",
            "/etc/default/cron-trigger-server": "600",
            "/etc/logrotate.d/cron-trigger-server": "644",
            "/etc/systemd/system/cron-trigger-server.service": "644",
            "/opt/cron-trigger-server/cron_trigger_server.py": "755",
            "/opt/cron-trigger-server/cron_trigger/__init__.py": "644",
            "/usr/local/bin/cron-trigger": None,
        }
        for path, mode in places.items():
            owner, found = self.machine.sh(f"stat -c '%U:%G %a' {path}").split()
            self.assertEqual(owner, "root:root", path)
            if mode:
                self.assertEqual(found, mode, path)

    def test_the_unit_passes_the_verification_of_systemd(self) -> None:
        done = self.machine.run("systemd-analyze", "verify", f"{SERVICE}.service")
        self.assertEqual(done.stdout + done.stderr, "")

    def test_the_shipped_crons_run(self) -> None:
        crons = self.http("/crons")[1]["crons"]
        shipped = [cron for cron in crons if cron["cronName"] not in TEST_CRONS]
        self.assertEqual(len(shipped), 7)
        runs = [self.start(cron["cronName"]) for cron in shipped]
        for run_id in runs:
            run = self.ended(run_id)
            log = self.http(f"/runs/{run_id}/log")[1]
            self.assertNotIn(run["exitCode"], (126, 127), (run, log))

    def test_a_script_finds_the_same_from_the_button_and_from_a_crontab(self) -> None:
        status, answer = self.trigger("surroundings")
        self.assertEqual(status, 202, answer)
        button = self.ended(answer["runId"])
        # What cron gives a line of /etc/cron.d: crontab(5).
        cron = "env -i HOME=/root LOGNAME=root SHELL=/bin/sh PATH=/usr/bin:/bin"
        run = "/usr/local/bin/cron-trigger run surroundings"
        line = f"umask 077; cd /root; exec {cron} X=of-the-crontab {run}"
        # As a service of its own, as cron is: with the limits that systemd gives.
        self.machine.sh(f"systemd-run -q --wait --collect sh -c '{line}'")
        runs = self.http("/runs?cron=surroundings&limit=1")[1]["runs"]
        outputs = [self.http(f"/runs/{r['id']}/log")[1] for r in (button, runs[0])]
        self.assertEqual(runs[0]["trigger"], "cli")
        self.assertEqual(*outputs)
        for line in ("HOME=/root", "LANG=C.UTF-8", "USER=root", "0022", "not a tty"):
            self.assertIn(line, outputs[0].splitlines())
        for name in ("INVOCATION_ID", "JOURNAL_STREAM", "STATE_DIRECTORY", "of-the-"):
            self.assertNotIn(name, outputs[0])

    def test_a_second_installation_restarts_nothing(self) -> None:
        pid = self.show("MainPID")
        output = self.install()
        self.assertIn(f"nothing changed: {SERVICE} was not restarted", output)
        self.assertEqual(self.show("MainPID"), pid)

    def test_an_upgrade_keeps_registry_settings_and_running_crons(self) -> None:
        kept = "md5sum /etc/cron-trigger-server/crons.json /etc/default/" + SERVICE
        self.machine.sh(f"echo '# mine' >>/etc/default/{SERVICE}")
        before = self.machine.sh(kept)
        run_id = self.start("waiter")
        pid = self.show("MainPID")
        self.machine.sh(
            "cp -r /src /root/newer && cd /root/newer && "
            "echo '# newer' >>cron_trigger_server.py"
        )
        with Callers(self, every_s=0.1) as callers:
            self.install(source="/root/newer")
            self.wait_for_another_server(pid, timeout_s=10)
        self.assertEqual(callers.not_served, [])
        self.assertEqual(self.machine.sh(kept), before)
        self.assertEqual(
            self.machine.sh("tail -n 1 /opt/cron-trigger-server/*.py"), "# newer"
        )
        self.assert_goes_on(run_id)

    def test_killed_server_is_back_in_15_s_and_refuses_no_one_meanwhile(self) -> None:
        run_id = self.start("waiter")
        pid = self.show("MainPID")
        died = time.monotonic()
        # Whoever it was answering just then has lost; whoever comes now waits.
        self.machine.run("pkill", "-9", "-f", "cron_trigger_server.py")
        with Callers(self) as callers:
            # A trigger that comes while nobody listens is served in the end, too.
            late = self.start("writer")
            self.wait_for_another_server(pid, timeout_s=15)
            away_s = time.monotonic() - died
        self.assertGreater(away_s, 9, "systemd restarted it sooner than RestartSec")
        self.assertGreater(callers.answered, 10)
        self.assertEqual(callers.not_served, [])
        self.assertEqual(self.ended(late)["status"], "completed")
        self.assert_goes_on(run_id)

    def test_a_server_that_dies_often_is_started_as_often(self) -> None:
        self.set_drop_in("[Service]\nRestartSec=100ms\n")
        run_id = self.start("waiter")
        for _ in range(8):
            pid = self.show("MainPID")
            self.machine.run("kill", "-KILL", pid)
            self.wait_for_another_server(pid, timeout_s=10)
        self.assert_goes_on(run_id)

    def test_end_of_a_run_while_the_server_is_away_is_recorded(self) -> None:
        run_id = self.start("waiter")
        self.systemctl("stop", SERVICE)
        self.machine.run("touch", "/tmp/go")
        wait_until(lambda: not self.waiter_runs(), what="the end of the cron")
        self.systemctl("start", SERVICE)
        run = self.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("failed", 7))

    def waiter_runs(self) -> bool:
        found = self.machine.run("pgrep", "-f", "crons/waiter.sh", check=False)
        return found.returncode == 0

    def test_restart_with_a_running_cron(self) -> None:
        run_id = self.start("waiter")
        with Callers(self, every_s=0.1) as callers:
            for _ in range(3):
                self.systemctl("restart", SERVICE)
        self.assertEqual(callers.not_served, [])
        self.assert_goes_on(run_id)

    def test_stop_and_start_with_a_running_cron(self) -> None:
        run_id = self.start("waiter")
        self.systemctl("stop", SERVICE)
        self.assertEqual(self.show("Result"), "success")
        self.assertTrue(self.waiter_runs())
        self.systemctl("start", SERVICE)
        self.assert_goes_on(run_id)

    def test_reload_reads_the_registry_without_a_restart(self) -> None:
        path = "/etc/cron-trigger-server/crons.json"
        registry = self.machine.sh(f"cat {path}")
        self.addCleanup(self.systemctl, "reload", SERVICE)
        self.addCleanup(self.machine.write, path, registry)
        pid = self.show("MainPID")
        more = json.loads(registry)
        more["another"] = {"description": "more", "command": "/bin/true"}
        self.machine.write(path, json.dumps(more))
        self.systemctl("reload", SERVICE)
        wait_until(
            lambda: self.http("/health")[1]["available_crons"] == len(more),
            what="the new cron",
        )
        self.assertEqual(self.show("MainPID"), pid)
        wait_until(
            lambda: self.show("ActiveState") == "active", what="the end of the reload"
        )

    def test_reload_of_a_registry_with_a_fault_fails_and_says_so(self) -> None:
        path = "/etc/cron-trigger-server/crons.json"
        registry = self.machine.sh(f"cat {path}")
        self.addCleanup(self.systemctl, "reload", SERVICE)
        self.addCleanup(self.machine.write, path, registry)
        self.machine.write(path, '{"broken": {}}')
        done = self.machine.run("systemctl", "reload", SERVICE, check=False)
        self.assertNotEqual(done.returncode, 0)
        said = f"journalctl -u {SERVICE} -n 20"
        wait_until(lambda: "broken" in self.machine.sh(said), what="the fault")
        self.assertEqual(self.show("ActiveState"), "active")
        self.assertEqual(self.http("/health")[1]["status"], "degraded")
        errors = f"journalctl -u {SERVICE} -p err -o cat"
        wait_until(lambda: "broken" in self.machine.sh(errors), what="the error")
        # The last good registry stays in force.
        self.ended(self.start("quick"))

    def test_a_process_older_than_its_files_is_restarted(self) -> None:
        run_id = self.start("waiter")
        for path in (
            "/opt/cron-trigger-server/cron_trigger/__init__.py",
            f"/etc/systemd/system/{SERVICE}.service",
        ):
            pid = self.show("MainPID")
            self.machine.run("touch", path)
            self.assertNotIn("nothing changed", self.install())
            self.assertNotIn(self.show("MainPID"), ("0", pid))
            self.assertIn("nothing changed", self.install())
        self.assert_goes_on(run_id)

    def test_a_start_compiles_nothing(self) -> None:
        compiled = "find /opt -name '*.pyc' -printf '%p %C@\\n' | sort"
        before = self.machine.sh(compiled)
        modules = self.machine.sh("find /opt/*/cron_trigger -name '*.py'")
        self.assertEqual(len(before.splitlines()), len(modules.splitlines()))
        self.restart()
        self.assertEqual(self.machine.sh(compiled), before)

    def test_a_bad_setting_fails_the_service_and_callers_are_refused(self) -> None:
        run_id = self.start("waiter")
        path = f"/etc/systemd/system/{SERVICE}.service.d/bad.conf"
        text = "[Service]\nEnvironment=CRON_TRIGGER_HISTORY_DAYS=forever\n"
        self.machine.write(path, text)
        self.systemctl("daemon-reload")
        done = self.machine.run("systemctl", "restart", SERVICE, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.show("ActiveState"), "failed")
        began = time.monotonic()
        self.assertEqual(self.http("/health")[0], 0)
        self.assertLess(time.monotonic() - began, 30)  # who waits does so for 60
        fault = "CRON_TRIGGER_HISTORY_DAYS must be a whole number"
        status = f"systemctl status {SERVICE}"
        wait_until(lambda: fault in self.machine.sh(status, False), what=fault)
        self.machine.run("rm", path)
        self.restart()
        self.assert_goes_on(run_id)

    def test_a_port_in_use_is_tried_again_and_callers_are_refused(self) -> None:
        run_id = self.start("waiter")
        self.machine.write("/root/taker.py", TAKER)
        taker = "systemd-run --unit=taker -q --property=Type=notify"
        self.machine.sh(f"{taker} python3 /root/taker.py")
        self.addCleanup(self.machine.run, "systemctl", "stop", "taker", check=False)
        path = f"/etc/systemd/system/{SERVICE}.service.d/busy.conf"
        text = "[Service]\nEnvironment=CRON_TRIGGER_PORT=9990\nRestartSec=1s\n"
        self.machine.write(path, text)
        self.addCleanup(self.restart)
        self.addCleanup(self.machine.run, "rm", path)
        self.systemctl("daemon-reload")
        done = self.machine.run("systemctl", "restart", SERVICE, check=False)
        self.assertNotEqual(done.returncode, 0)
        self.assertEqual(self.show("ActiveState"), "activating")
        # 0 while it tries.
        wait_until(lambda: self.show("ExecMainStatus") == "75", what="the exit status")
        # Nobody waits at the earlier port for a server that may never come.
        self.assertEqual(self.http("/health")[0], 0)
        said = f"systemctl status {SERVICE} | grep -o 'listens on .*ss -ltnp'"
        told = wait_until(lambda: self.machine.sh(said, False), what="the sentence")
        self.assertIn(":9990 already: end it", told)
        self.systemctl("stop", "taker")
        wait_until(
            lambda: self.http("/health", port=9990)[0] == 200, what="the free port"
        )
        self.machine.run("touch", "/tmp/go")
        run = f"/runs/{run_id}"
        wait_until(
            lambda: self.http(run, port=9990)[1]["run"]["status"] == "failed",
            what="the end of the cron",
        )

    def test_another_address_refuses_no_caller_either(self) -> None:
        path = f"/etc/systemd/system/{SERVICE}.service.d/host.conf"
        self.addCleanup(self.restart)
        self.addCleanup(self.machine.run, "rm", "-f", path)
        for host in ("127.0.0.1", "0.0.0.0", "::"):
            text = f"[Service]\nEnvironment=CRON_TRIGGER_HOST={host}\n"
            self.machine.write(path, text)
            self.systemctl("daemon-reload")
            with self.subTest(host), Hammer(self):
                self.systemctl("restart", SERVICE)
            listens = self.machine.sh("ss -Hltn 'sport = 9998'").splitlines()
            self.assertEqual(len(listens), 1, listens)
            self.assertIn({"::": "*"}.get(host, host) + ":9998", listens[0])
            self.assertEqual(self.show("NFileDescriptorStore"), "1")

    def test_a_stricter_log_folder_stays_so(self) -> None:
        logs = "/var/log/qadhya"
        self.addCleanup(self.machine.run, "chmod", "0755", logs)
        self.machine.run("chmod", "0750", logs)
        self.install()
        self.restart()
        self.machine.run("logrotate", "--force", f"/etc/logrotate.d/{SERVICE}")
        self.ended(self.start("quick"))
        self.assertEqual(self.machine.sh(f"stat -c %a {logs}"), "750")
        self.assertEqual(self.http("/health")[1]["status"], "healthy")

    def test_a_log_that_grows_fast_is_rotated_before_its_week(self) -> None:
        log = "/var/log/qadhya/huge.log"
        self.addCleanup(self.machine.sh, f"rm -f {log}*")
        self.machine.sh(f"truncate -s 101M {log}; touch -d yesterday {log}")
        rotation = f"logrotate --state /tmp/rotation /etc/logrotate.d/{SERVICE}"
        self.machine.sh(rotation)  # now logrotate knows the file
        self.machine.sh(rotation)
        self.assertEqual(
            self.machine.sh(f"stat -c '%s %a %U:%G' {log}"), "0 644 root:root"
        )

    def test_a_second_service_beside_the_first(self) -> None:
        """The recipe of docs/operations.md, word for word."""
        self.addCleanup(self.machine.sh, REMOVE_SECOND)
        self.machine.sh(second_service())
        self.machine.sh("systemctl start cron-trigger-second")
        answer = self.http("/trigger", {"cronName": "hello"}, port=9997)
        self.assertEqual(answer[0], 202, answer)
        wait_until(
            lambda: self.http("/runs/1", port=9997)[1]["run"]["status"] == "completed",
            what="the end of the second service's run",
        )
        self.assertEqual(self.http("/trigger", {"cronName": "hello"})[0], 404)
        self.assertIn(
            "hello", self.machine.sh("cat /var/log/cron-trigger-second/hello.log")
        )
        pid = self.show("MainPID")
        self.systemctl("restart", "cron-trigger-second")
        self.assertEqual(self.http("/health", port=9997)[1]["port"], 9997)
        self.assertEqual(self.http("/health")[1]["available_crons"], 11)
        self.assertEqual(self.show("MainPID"), pid)

    def test_watchdog_restarts_a_server_that_hangs(self) -> None:
        self.set_drop_in("[Service]\nWatchdogSec=8s\nRestartSec=1s\n")
        run_id = self.start("waiter")
        pid = self.show("MainPID")
        # Whoever it was answering just then has lost; whoever comes now waits.
        self.machine.run("kill", "-STOP", pid)
        with Callers(self) as callers:
            self.wait_for_another_server(pid, timeout_s=40)
        self.assertEqual(callers.not_served, [])
        journal = self.machine.sh(f"journalctl -u {SERVICE} -n 2000")
        self.assertIn("Watchdog timeout", journal)
        # Where it hung: every thread's traceback.
        self.assertIn("Fatal Python error: Aborted", journal)
        self.assert_goes_on(run_id)

    def test_watchdog_leaves_a_healthy_server_alone(self) -> None:
        self.set_drop_in("[Service]\nWatchdogSec=5s\n")
        pid = self.show("MainPID")
        time.sleep(11)
        self.assertEqual(self.show("MainPID"), pid)

    def test_another_port_drops_the_old_socket(self) -> None:
        settings = f"/etc/default/{SERVICE}"
        kept = self.machine.sh(f"cat {settings}")
        self.addCleanup(self.restart)
        self.addCleanup(self.machine.write, settings, kept, "0600")
        output = self.install("--port", "9997")
        self.assertIn('"port": 9997', output)
        self.assertEqual(self.http("/health", port=9997)[0], 200)
        self.assertEqual(self.http("/health")[0], 0)
        self.assertEqual(self.show("NFileDescriptorStore"), "1")

    def test_secret_comes_as_a_credential(self) -> None:
        self.machine.write("/root/secret", "from-a-credential-1234\n", "0600")
        self.set_drop_in("[Service]\nLoadCredential=secret:/root/secret\n")
        self.assertEqual(self.http("/health")[0], 200)
        self.assertEqual(self.http("/crons")[0], 401)
        right = ("X-Trigger-Secret: from-a-credential-1234",)
        self.assertEqual(self.http("/crons", headers=right)[0], 200)
        status, output = self.doctor()
        self.assertEqual(status, 0, output)
        self.assertRegex(output, "ok +secret +every request needs it")

    def test_systemctl_edit(self) -> None:
        self.machine.write("/root/editor", '#!/bin/sh\ncat /root/edit >"$1"\n', "0755")
        self.machine.write("/root/edit", "[Service]\nEnvironment=EDITED=1\n")
        self.addCleanup(self.systemctl, "revert", SERVICE)
        self.machine.sh(
            "SYSTEMD_EDITOR=/root/editor TERM=dumb "
            f"script -qec 'systemctl edit {SERVICE}' /dev/null"
        )
        self.assertEqual(self.show("Environment"), "EDITED=1")
        self.install()
        self.assertEqual(self.show("Environment"), "EDITED=1")

    def test_errors_can_be_told_apart_in_the_journal(self) -> None:
        since = self.machine.sh("date '+%Y-%m-%d %H:%M:%S'")
        self.machine.write(f"/etc/systemd/system/{SERVICE}.service.d/bad.conf", BAD)
        self.addCleanup(self.restart)
        self.addCleanup(
            self.machine.run, "rm", f"/etc/systemd/system/{SERVICE}.service.d/bad.conf"
        )
        self.systemctl("daemon-reload")
        self.machine.run("systemctl", "restart", SERVICE, check=False)
        own = f"journalctl -o cat -t {SERVICE} --since '{since}'"
        fault = "CRON_TRIGGER_PORT"
        wait_until(lambda: fault in self.machine.sh(own + " -p err"), what=fault)
        errors = self.machine.sh(own + " -p err").splitlines()
        everything = self.machine.sh(own).splitlines()
        self.assertGreater(len(everything), len(errors))
        self.assertFalse([line for line in everything if line.startswith("<")])

    def test_rotation_while_a_cron_writes_loses_no_line(self) -> None:
        self.machine.run("touch", "/tmp/hold")
        self.addCleanup(self.machine.run, "rm", "-f", "/tmp/hold")
        first = self.start("writer")
        log = f"/runs/{first}/log"
        wait_until(lambda: "line 20" in self.http(log)[1], what="a written line")
        self.machine.run("logrotate", "--force", f"/etc/logrotate.d/{SERVICE}")
        self.assertEqual(self.run_of(first)["status"], "running")
        self.machine.run("rm", "/tmp/hold")
        self.assertEqual(self.ended(first)["status"], "completed")
        wanted = [f"line {i}" for i in range(1, 1501)]
        self.assertEqual(self.http(f"/runs/{first}/log")[1].splitlines(), wanted)
        self.assertIn("line 1500", self.machine.sh("cat /var/log/qadhya/writer.log.1"))
        second = self.start("writer")
        self.ended(second)
        self.assertEqual(self.http(f"/runs/{second}/log")[1].splitlines(), wanted)
        self.assertEqual(self.http(f"/runs/{first}/log")[1].splitlines(), wanted)
        self.assertIn("line 1500", self.machine.sh("cat /var/log/qadhya/writer.log"))
        own = f"cat /var/log/qadhya/{SERVICE}.log"
        # Else the server goes on in the renamed file.
        wait_until(lambda: "writer" in self.machine.sh(own), what="the server's line")

    def doctor(self) -> tuple[int, str]:
        command = "/opt/cron-trigger-server/cron_trigger_server.py doctor"
        done = self.machine.run("python3", *command.split(), check=False)
        return done.returncode, done.stdout + done.stderr

    def test_doctor_finds_nothing_wrong(self) -> None:
        status, output = self.doctor()
        self.assertEqual(status, 0, output)

    def test_doctor_names_a_stopped_service_and_its_remedy(self) -> None:
        self.addCleanup(self.systemctl, "start", SERVICE)
        self.systemctl("stop", SERVICE)
        status, output = self.doctor()
        self.assertEqual(status, 1, output)
        self.assertIn(f"sudo systemctl restart {SERVICE}", output)

    def test_doctor_names_a_drop_in_that_would_kill_crons(self) -> None:
        self.set_drop_in("[Service]\nKillMode=mixed\n")
        status, output = self.doctor()
        self.assertEqual(status, 1, output)
        self.assertIn("KillMode=process", output)

    def test_firewall_admits_containers_by_the_rule_that_is_shown(self) -> None:
        self.machine.sh(DOCKER_BRIDGE)
        self.addCleanup(self.machine.sh, "ip link del docker0; kill $(cat /run/peer)")
        call = "nsenter -t $(cat /run/peer) -n curl -sS http://172.17.0.1:9998/health"
        self.assertIn("healthy", self.machine.sh(f"{call} -m 20"))
        self.assertEqual(self.doctor()[0], 0)

        self.machine.run("ufw", "--force", "enable")
        self.addCleanup(self.machine.run, "ufw", "--force", "reset")
        self.assertNotIn("healthy", self.machine.sh(f"{call} -m 2", check=False))
        rule = "sudo ufw allow from 172.17.0.0/16 to any port 9998 proto tcp"
        status, output = self.doctor()
        self.assertEqual(status, 1, output)
        self.assertIn(rule, output)
        shown = self.install()
        self.assertIn(rule, shown)
        self.assertIn('extra_hosts: ["host.docker.internal:host-gateway"]', shown)

        self.machine.sh(rule.replace("sudo ", ""))
        self.assertIn("healthy", self.machine.sh(f"{call} -m 20"))
        status, output = self.doctor()
        self.assertEqual(status, 0, output)

    def test_a_reboot_leaves_the_run_interrupted(self) -> None:
        run_id = self.start("waiter")
        self.machine.reboot()
        wait_until(
            lambda: self.show("ActiveState") == "active",
            what="the service after the boot",
        )
        run = self.ended(run_id)
        self.assertEqual((run["status"], run["exitCode"]), ("interrupted", None))
        again = self.start("waiter")
        self.machine.run("touch", "/tmp/go")
        self.assertEqual(self.ended(again)["exitCode"], 7)


REMOVE_SECOND = """
systemctl disable --now cron-trigger-second
rm -rf /etc/systemd/system/cron-trigger-second.service* /etc/cron-trigger-second
rm -rf /etc/default/cron-trigger-second /var/l*/cron-trigger-second
systemctl daemon-reload
"""


def second_service() -> str:
    """What an administrator pastes, from the document that has it."""
    for name in ("docs/operations.md", "docs-second-service-fragment.md"):
        path = REPOSITORY / name
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        _, found, rest = text.partition("second service")
        if found:
            return rest.partition("```sh\n")[2].partition("```")[0].replace("sudo ", "")
    raise AssertionError("no document has the recipe for a second service")


class Documents(OnAMachine):
    """What README and docs show of an installed service, as it appears on one.

    They are the blocks below the comment `in a booted Debian`.
    """

    CLONE = "/usr/local/src/cron-trigger-server"

    def try_document(self, name: str) -> int:
        tried = 0
        for block in blocks(DOCUMENTS[name], "console"):
            if block.comment == BOOTED:
                for step in steps(block):
                    with self.subTest(step.command):
                        self.compare(step)
                    tried += 1
        return tried

    def compare(self, step: Step) -> None:
        shown = f"cd {self.CLONE} && exec 2>&1 && {step.command}"
        got = self.machine.run("bash", "-c", shown, check=False).stdout
        fault = difference(step.output, got.strip())
        if fault:
            self.fail(fault)

    def test_what_is_shown_is_what_appears(self) -> None:
        """The README from the clone on, then what the operator's handbook has."""
        self.machine.sh(
            # sudo looks up the machine's name.
            f"echo 127.0.1.1 $(uname -n) >>/etc/hosts; "
            f"cp -r /src {self.CLONE} && cd {self.CLONE} && rm -rf .git && "
            "export GIT_AUTHOR_NAME=x GIT_COMMITTER_NAME=x EMAIL=x@example.org && "
            "git init -q && git add -A && git commit -qm 2.0.0 && "
            "git clone -q --bare . /root/origin && git remote add origin /root/origin "
            "&& git fetch -q && git branch -q -u origin/master"
        )
        self.assertGreater(self.try_document("README.md"), 3)
        self.machine.run(
            "cron-trigger", "trigger", "monitor-openai", "--wait", check=False
        )
        wait_until(
            lambda: self.show("StatusText") == "7 crons, 0 running",
            what="the run's end in the status line",
        )
        self.assertGreater(self.try_document("docs/operations.md"), 6)


# To be asked for: another system is fetched for it, which takes minutes.
if os.environ.get("CRON_TRIGGER_TEST_UBUNTU") == "1":

    class DocumentsOnUbuntu(Documents):
        suite = UBUNTU


class Upgrade(OnAMachine):
    """From version 1.0.0 to this one, on a host where crons run."""

    CLIENT = "172.31.10.99"

    @classmethod
    def setUpClass(cls) -> None:
        super().setUpClass()
        cls.machine.unpack(version_1(), "/old")

    def setUp(self) -> None:
        self.install(source="/old")
        self.add_crons()

    def tearDown(self) -> None:
        self.machine.run("/src/install.sh", "--purge")

    def test_a_running_cron_goes_on_and_what_it_was_is_kept(self) -> None:
        ended = self.start("quick")
        self.ended(ended)
        run_id = self.start("waiter")
        pid = self.show("MainPID")
        output = self.install()
        self.assertNotEqual(self.show("MainPID"), pid)
        self.assertIn("kept /opt/cron-trigger-server/scripts/backup-databases", output)
        self.assertEqual(self.run_of(ended)["status"], "completed")
        backup = self.ended(self.start("backup-databases"))
        self.assertEqual(backup["status"], "completed", backup)
        self.assertEqual(self.machine.sh("ls /opt/cron-trigger-server"), PROGRAM_FILES)
        self.assertIn("waiter", self.machine.sh("cron-trigger list"))
        self.assert_goes_on(run_id)
        self.assertIn("nothing changed", self.install())

    def test_no_caller_is_refused(self) -> None:
        """Though the old server listens on 0.0.0.0 and the new one on `::`."""
        pid = self.show("MainPID")
        with Hammer(self):
            self.install()
        self.assertNotEqual(self.show("MainPID"), pid)
        self.assertEqual(self.machine.sh("curl -s http://[::1]:9998/health")[:1], "{")

    def test_interrupted_anywhere_the_next_one_ends_it(self) -> None:
        run_id = self.start("waiter")
        self.machine.write("/root/bin/killer", KILLER, "0755")
        for name in ["mv", "cp", "rm", "ln", "mkdir", "mktemp", "chmod", "systemctl"]:
            self.machine.run("ln", "-s", "killer", f"/root/bin/{name}")
        number = 1
        while self.killed_at(number):
            # Whatever happened, the service answers, and its cron runs.
            self.assertEqual(self.http("/health")[0], 200, number)
            self.assertEqual(self.run_of(run_id)["status"], "running")
            number += 3
        self.assertGreater(number, 20)
        self.assertIn("nothing changed", self.install())
        # It is the new version that runs, not only lies there.
        self.assertIn("late", self.http("/crons")[1]["crons"][0])
        self.assertEqual(self.machine.sh(LEFTOVERS), "")
        self.assert_goes_on(run_id)

    def killed_at(self, number: int) -> bool:
        """Upgrade, killed before its Nth changing command.  False if it has less."""
        self.machine.write("/root/last", f"{number}\n")
        self.machine.write("/root/count", "0\n")
        path = f"PATH=/root/bin:{SYSTEM_PATH}"
        done = self.machine.run(
            "setsid", "--wait", "env", path, "/src/install.sh", check=False
        )
        return done.returncode != 0

    def test_settings_that_no_longer_hold_stop_it(self) -> None:
        settings = f"/etc/default/{SERVICE}"
        self.machine.sh(f"echo CRON_TRIGGER_SECRET=short >>{settings}")
        pid = self.show("MainPID")
        done = self.machine.run("/src/install.sh", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, "nothing was changed: CRON_TRIGGER_SECRET .* 16")
        self.assertEqual(self.show("MainPID"), pid)
        self.assertEqual(self.machine.sh("ls -A /opt"), SERVICE)
        self.machine.run("sed", "-i", "/SECRET=short/d", settings)
        self.machine.write(f"/etc/{SERVICE}/crons.json", '{"broken": {}}')
        done = self.machine.run("/src/install.sh", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertRegex(done.stderr, 'nothing was changed: crons.json: "broken": ')

    def test_a_client_that_would_be_locked_out_stops_it(self) -> None:
        self.machine.sh(
            f"ip link add lan0 type veth peer name lan1; ip link set lan0 up; "
            f"ip addr add {self.CLIENT}/20 dev lan0"
        )
        self.addCleanup(self.machine.sh, "ip link del lan0")
        command = ["curl", "-s", "--interface", self.CLIENT]
        command += [
            "-H",
            "Content-Type: application/json",
            "-d",
            '{"cronName": "quick"}',
        ]
        url = f"http://{self.CLIENT}:9998/trigger"
        self.assertIn("runId", self.machine.run(*command, url).stdout)
        done = self.machine.run("/src/install.sh", check=False)
        self.assertEqual(done.returncode, 1)
        line = "CRON_TRIGGER_ALLOW=172.31.10.0/24"
        self.assertIn(line, done.stderr)
        self.machine.sh(f"echo {line} >>/etc/default/{SERVICE}")
        self.install()
        wait_until(
            lambda: "runId" in self.machine.run(*command, url).stdout,
            what="the client, let in",
        )

    def test_a_version_that_does_not_start_is_taken_back(self) -> None:
        run_id = self.start("waiter")
        self.machine.sh(
            "cp -r /src /root/bad; cd /root/bad; "
            "sed -i 's/^    def run(self) -> int:/&\\n        raise SystemExit(3)/' "
            "cron_trigger/daemon/life.py"
        )
        done = self.machine.run("/root/bad/install.sh", check=False)
        self.assertEqual(done.returncode, 1)
        self.assertIn("the old one was put back", done.stderr)
        self.assertEqual(self.http("/health")[0], 200)
        self.assertNotEqual(self.machine.sh("ls /opt/cron-trigger-server/*.html"), "")
        self.assert_goes_on(run_id)


PROGRAM_FILES = "\n".join(
    ["cron_trigger", "cron_trigger_server.py", "crons.json", "crons.schema.json"]
    + (["docs"] if (REPOSITORY / "docs/openapi.json").exists() else [])
    + ["scripts"]
)
#: As in test_install.py: a power cut before the Nth command that changes something.
KILLER = """#!/bin/sh
read -r count </root/count
read -r last </root/last
count=$((count + 1))
echo $count >/root/count
[ $count != $last ] || kill -9 0
PATH=/usr/sbin:/usr/bin:/sbin:/bin exec "${0##*/}" "$@"
"""
LEFTOVERS = (
    "find /opt /etc -name '.cron-trigger-server*'; ls -d /opt/*.old 2>/dev/null; :"
)


def version_1() -> bytes:
    """The files of the first release, as an archive."""
    git = ["git", "-c", "safe.directory=*", "-C", str(REPOSITORY)]
    done = subprocess.run(
        [*git, "archive", "391aa8c"], capture_output=True, check=False
    )
    need(done.returncode == 0, f"git has no version 1.0.0: {done.stderr.decode()}")
    return done.stdout


#: Has a port for as long as it lives.
TAKER = """
import socket, subprocess, time
taken = socket.create_server(("127.0.0.1", 9990))
subprocess.run(["systemd-notify", "--ready"])
time.sleep(600)
"""
TEST_CRONS = ("waiter", "writer", "quick", "surroundings")
BAD = "[Service]\nEnvironment=CRON_TRIGGER_PORT=none\n"

# Docker's default bridge, and a container's network on it.
DOCKER_BRIDGE = """
ip link add docker0 type bridge
ip addr add 172.17.0.1/16 dev docker0
ip link set docker0 up
setsid unshare --net sleep 300 >/dev/null 2>&1 &
echo $! >/run/peer
until [ "$(readlink /proc/$(cat /run/peer)/ns/net)" != "$(readlink /proc/self/ns/net)" ]
do sleep 0.1; done
ip link add veth0 type veth peer name eth0 netns $(cat /run/peer)
ip link set veth0 master docker0 up
nsenter -t $(cat /run/peer) -n ip addr add 172.17.0.5/16 dev eth0
nsenter -t $(cat /run/peer) -n ip link set eth0 up
"""


class Removal(OnAMachine):
    """What an installation refuses, and what its removal leaves."""

    def refused(self, *options: str) -> str:
        done = self.machine.run("/src/install.sh", *options, check=False)
        self.assertEqual(done.returncode, 1, done.stdout + done.stderr)
        return done.stderr

    def tearDown(self) -> None:
        self.machine.run("/src/install.sh", "--purge")

    def test_used_port_is_refused_with_its_user(self) -> None:
        self.machine.sh("setsid python3 -m http.server 9998 >/dev/null 2>&1 &")
        self.addCleanup(self.machine.run, "pkill", "-f", "http.server")
        wait_until(lambda: self.http("/")[0] == 200, what="another server")
        self.assertRegex(
            self.refused(), r"Port 9998 is used by python3 \(process \d+\): stop that, "
        )
        self.assertEqual(self.machine.sh("ls -A /opt"), "")
        self.assertIn('"port": 9990', self.install("--port", "9990"))

    def test_python_that_is_too_old_is_refused(self) -> None:
        self.machine.write(
            "/root/old", "#!/bin/sh\necho Python 3.8.20; exit 1\n", "0755"
        )
        python = self.machine.sh("readlink -f /usr/bin/python3")
        self.machine.sh(f"mv {python} /root/python && cp /root/old {python}")
        self.addCleanup(self.machine.sh, f"mv /root/python {python}")
        self.assertRegex(self.refused(), "Python 3.9 or newer is needed, .*3.8.20")
        self.assertEqual(self.machine.sh("ls -A /opt"), "")
        # A newer one beside it is found.
        self.machine.sh("cp /root/python /usr/bin/python3.12")
        self.addCleanup(self.machine.run, "rm", "/usr/bin/python3.12")
        self.install()
        program = self.machine.sh(f"readlink /proc/{self.show('MainPID')}/exe")
        self.assertEqual(program, "/usr/bin/python3.12")

    def test_python_without_its_library_is_refused(self) -> None:
        """As the package python3-minimal has it."""
        module = self.machine.sh("ls /usr/lib/python3.*/hmac.py")
        self.machine.run("mv", module, "/root/hmac.py")
        self.addCleanup(self.machine.run, "mv", "/root/hmac.py", module)
        refusal = self.refused()
        self.assertRegex(refusal, r"lacks a part \(.*\): apt install python3\.$")
        self.assertEqual(len(refusal.splitlines()), 1)

    def test_a_place_that_cannot_be_written_is_refused(self) -> None:
        self.machine.sh("mount -t tmpfs -o ro tmpfs /opt")
        self.addCleanup(self.machine.run, "umount", "/opt")
        refusal = self.refused()
        self.assertIn("/opt can't be written: if its file system is", refusal)
        self.assertEqual(len(refusal.splitlines()), 1)
        self.assertEqual(self.machine.sh("ls /etc/default/" + SERVICE, False), "")

    def test_log_folder_of_another_user_is_refused(self) -> None:
        self.machine.sh("mkdir /var/log/qadhya; chown 1000 /var/log/qadhya")
        self.assertIn("sudo chown root /var/log/qadhya", self.refused())
        self.machine.sh("chown root /var/log/qadhya")
        self.install()

    def test_a_start_that_fails_shows_why(self) -> None:
        self.machine.write(f"/etc/default/{SERVICE}", "CRON_TRIGGER_ALLOW=nonsense\n")
        self.assertIn("must be a list of networks such as ", self.refused())

    def test_secret_is_made_and_never_printed(self) -> None:
        output = self.install("--secret")
        path = "/etc/cron-trigger-server/secret"
        secret = self.machine.sh(f"cat {path}")
        self.assertGreaterEqual(len(secret), 32)
        self.assertEqual(self.machine.sh(f"stat -c '%U %a' {path}"), "root 600")
        self.assertNotIn(secret, output)
        self.assertNotIn(secret, self.machine.sh("journalctl"))
        self.assertIn(path, output)
        self.assertEqual(self.http("/crons")[0], 401)
        # The next command that it names works as it stands.
        command = output.splitlines()[-1].replace("sudo ", "")
        self.assertIn('"success": true', self.machine.sh(command))
        self.install("--secret")
        self.assertEqual(self.machine.sh(f"cat {path}"), secret)

    def test_a_checkout_of_another_user_is_installed_as_roots(self) -> None:
        self.machine.sh(
            "cp -r /src /tmp/mine; chown -R 1000:1000 /tmp/mine; "
            "chmod -R u=rwX,go=rwX /tmp/mine; chmod -x /tmp/mine/scripts/*"
        )
        self.machine.run("sh", "/tmp/mine/install.sh")
        others = "find /opt/cron-trigger-server /etc/cron-trigger-server "
        found = self.machine.sh(
            others + r"! -type l \( ! -user root -o ! -group root -o -perm /022 \)"
        )
        self.assertEqual(found, "")
        crons = self.http("/crons")[1]["crons"]
        run = self.ended(self.start(crons[0]["cronName"]))
        self.assertNotEqual(run["exitCode"], 126, run)

    def test_uninstall_keeps_what_the_administrator_made(self) -> None:
        self.install()
        self.add_crons()
        run_id = self.start("quick")
        self.ended(run_id)
        output = self.install("--uninstall")
        self.assertEqual(output.splitlines()[-1], "sudo /src/install.sh --purge")
        gone = self.machine.run("systemctl", "cat", SERVICE, check=False)
        self.assertNotEqual(gone.returncode, 0)
        self.assertEqual(self.http("/health")[0], 0)
        self.assertEqual(self.machine.sh("ls -A /opt"), "")
        self.install()
        self.assertEqual(self.run_of(run_id)["status"], "completed")
        self.assertEqual(self.http("/health")[1]["available_crons"], 11)

    def test_a_cron_outlives_its_uninstallation(self) -> None:
        self.install()
        self.add_crons()
        run_id = self.start("waiter")
        self.install("--uninstall")
        self.install()
        self.assert_goes_on(run_id)

    def test_purge_leaves_nothing_of_ours_and_all_of_others(self) -> None:
        before = self.machine.sh(EVERY_FILE)
        self.install("--secret")
        self.machine.write("/var/log/qadhya/backup.log", "another program's\n")
        self.install("--purge")
        after = self.machine.sh(EVERY_FILE)
        self.assertEqual(
            set(after.splitlines()) - set(before.splitlines()),
            {"/var/log/qadhya", "/var/log/qadhya/backup.log"},
        )
        self.machine.run("rm", "-r", "/var/log/qadhya")


# Of the folders that the installation and the service write to.
EVERY_FILE = (
    "find /etc /opt /var/lib/cron-trigger-server /var/log/qadhya "
    "/run/cron-trigger-server /usr/local 2>/dev/null; true"
)


load_tests = beside


if __name__ == "__main__":
    unittest.main()
