"""Work on another host or in a cluster: the scripts of examples/engines, for real.

ssh goes to a network namespace with an sshd of its own; Slurm is a cluster of this one
machine.  A process there is never the server's child, so what a cancel reaches, it
reaches through ssh or Slurm alone.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Sequence

from beside import beside
from support import REPOSITORY, Server, need, need_command, need_full, slow, wait_until

ENGINES = REPOSITORY / "examples" / "engines"

#: Takes a moment to end when told to, and has children of every kind: in its process
#: group, in one of their own (timeout), in a session of their own (setsid).  Where
#: these are told first and end before it is told, it does not end by itself.
WORKER = """
trap 'sleep 0.3; echo cleaned up; exit 3' TERM
sleep 600 &
timeout 600 sleep 601 &
setsid sleep 602 &
DEAF
echo at work
wait
while :; do sleep 0.1; done
"""
#: In a session of its own, without a parent once the worker has ended, and deaf.
DEAF = """(setsid sh -c 'trap "" TERM; sleep 603; sleep 604') &"""
STUBBORN = "trap '' TERM; echo at work; while :; do sleep 1; done"
#: Ends only when the test has seen its first line.
WAITER = """
echo first line
until [ -e "$1" ]; do sleep 0.02; done
echo last line
"""


def run(*command: str) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60
    )
    if done.returncode:
        raise AssertionError(f"{command}: {done.stdout}{done.stderr}")
    return done.stdout


def processes() -> dict[int, list[str]]:
    """Return the command line of every process that has one."""
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_text(errors="replace").split("\0")
            if words[:-1]:
                found[int(path.name)] = words[:-1]
    return found


def parent(pid: int) -> int:
    """Return a process's parent."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]
    return int(after_name.split()[1])


class Host:
    """Two hosts on a wire: ours, with ssh, and the other, with an sshd."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-ssh-"))
        here = os.readlink("/proc/self/ns/net")
        self.holders = [
            subprocess.Popen(["unshare", "--net", "sleep", "infinity"]) for _ in "ab"
        ]
        self.ours, self.other = (holder.pid for holder in self.holders)
        for pid in (self.ours, self.other):
            wait_until(functools.partial(self._has_left, pid, here))
        self.namespace = os.readlink(f"/proc/{self.other}/ns/net")
        self._wire()
        self._keys()
        self.sshd = self._start_sshd()

    def _has_left(self, pid: int, namespace: str) -> bool:
        return os.readlink(f"/proc/{pid}/ns/net") != namespace

    def inside(self, pid: int) -> list[str]:
        """Return the words that run a command on a host."""
        return ["nsenter", f"--net=/proc/{pid}/ns/net"]

    def _wire(self) -> None:
        pair = f"ip link add wire type veth peer name wire netns {self.other}"
        run(*self.inside(self.ours), *pair.split())
        for pid, address in ((self.ours, "10.98.0.1/24"), (self.other, "10.98.0.2/24")):
            ip = [*self.inside(pid), "ip"]
            run(*ip, "address", "add", address, "dev", "wire")
            run(*ip, "link", "set", "wire", "up")
            run(*ip, "link", "set", "lo", "up")

    def cut(self) -> None:
        """Pull the wire out: packets vanish, nobody is told."""
        run(*self.inside(self.ours), "ip", "link", "set", "wire", "down")

    def mend(self) -> None:
        run(*self.inside(self.ours), "ip", "link", "set", "wire", "up")

    def _keys(self) -> None:
        for name in ("host", "user"):
            path = str(self.folder / name)
            run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        public = (self.folder / "host.pub").read_text()
        self._write("known_hosts", f"10.98.0.2 {public}")
        self._write("authorized_keys", (self.folder / "user.pub").read_text())
        self.config = self._write(
            "config",
            f"""Host other
  HostName 10.98.0.2
  User root
  IdentityFile {self.folder}/user
  UserKnownHostsFile {self.folder}/known_hosts
""",
        )

    def _write(self, name: str, text: str) -> Path:
        path = self.folder / name
        path.write_text(text)
        return path

    def _start_sshd(self) -> subprocess.Popen[bytes]:
        config = self._write(
            "sshd_config",
            f"""ListenAddress 10.98.0.2
HostKey {self.folder}/host
AuthorizedKeysFile {self.folder}/authorized_keys
PidFile none
PermitRootLogin yes
StrictModes no
UsePAM no
""",
        )
        # sshd wants an empty folder of root's in /run: it gets a /run of its own.
        script = "mount -t tmpfs none /run && mkdir /run/sshd && exec sshd -D -e -f $0"
        script = script.replace("sshd -D", f"{need_command('sshd')} -D")
        command = [*self.inside(self.other), "unshare", "--mount"]
        with (self.folder / "sshd.log").open("wb") as log:
            started = subprocess.Popen(
                [*command, "sh", "-c", script, str(config)], stderr=log
            )
        try:
            wait_until(lambda: "listening" in self.log_text(), what="sshd to listen")
        except AssertionError:
            raise AssertionError(self.log_text()) from None
        return started

    def log_text(self) -> str:
        return (self.folder / "sshd.log").read_text().lower()

    def working(self) -> dict[int, list[str]]:
        """Return what runs on the other host, besides sshd."""
        found = {}
        for pid, words in processes().items():
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/ns/net") == self.namespace:
                    found[pid] = words
        idle = ("sshd", "sshd:", "sleep infinity")
        return {p: w for p, w in found.items() if not self._belongs(w, idle)}

    def _belongs(self, words: Sequence[str], idle: Sequence[str]) -> bool:
        line = " ".join(words)
        return line in idle or "sshd" in words[0]

    def close(self) -> None:
        for process in (self.sshd, *self.holders):
            process.kill()
            process.wait()
        for pid in self.working():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.folder)


def entry(script: Path) -> dict[str, Any]:
    """Return the registry's entry that a script's header has to paste."""
    text = script.read_text(encoding="utf-8").partition("The registry's entry:\n")[2]
    lines = itertools.takewhile(lambda line: line.startswith("#  "), text.splitlines())
    found: dict[str, Any] = json.loads("{" + "".join(line[1:] for line in lines) + "}")
    return found


@slow
class Files(unittest.TestCase):
    def setUp(self) -> None:
        self.scripts = sorted(ENGINES.glob("*.sh"))

    def test_each_entry_to_paste_is_one_that_the_registry_takes(self) -> None:
        self.assertEqual(len(self.scripts), 4)
        for script in self.scripts:
            pasted = entry(script)
            with self.subTest(script.name), Server(pasted, start=False) as server:
                ((only, *_),) = [cron["command"] for cron in pasted.values()]
                self.assertEqual(only, f"/opt/engines/{script.name}")
                checked = server.command("check")
                self.assertEqual(checked.returncode, 0, checked.stderr)

    def test_what_no_test_has_run_says_so(self) -> None:
        tried = ("slurm-run.sh", "ssh-run.sh")
        for script in self.scripts:
            with self.subTest(script.name):
                self.assertTrue(os.access(script, os.X_OK))
                says = "NOT RUN BY THE TESTS" in script.read_text(encoding="utf-8")
                self.assertEqual(says, script.name not in tried)

    def test_a_call_without_a_command_is_refused(self) -> None:
        for script in self.scripts:
            called = subprocess.run([str(script)], capture_output=True, text=True)
            self.assertEqual(called.returncode, 64, script.name)
            self.assertIn(f"Call: {script.name}", called.stderr)


class Work(unittest.TestCase):
    """What both engines are asked."""

    def started(
        self, server: Server, name: str, said: str = "at work", **fields: Any
    ) -> int:
        """Start a run; return its id once its work has said a line."""
        reply = server.trigger(name, **fields)
        self.assertEqual(reply.status, 202, reply.text)
        run_id = int(reply.json["runId"])
        wait_until(
            lambda: (
                said in server.get(f"/runs/{run_id}/log").text
                or self.over(server, run_id)
            ),
            30,
            f'"{said}" from {name}',
        )
        return run_id

    def over(self, server: Server, run_id: int) -> bool:
        """Return False while a run runs; fail once it has ended."""
        found = server.run(run_id)
        self.assertEqual(found["status"], "running", self.output(server, run_id))
        return False

    def output(self, server: Server, run_id: int) -> str:
        return server.get(f"/runs/{run_id}/log").text

    def cancel(self, server: Server, run_id: int) -> Any:
        self.assertEqual(server.request("POST", f"/runs/{run_id}/cancel").status, 202)
        return server.ended(run_id, 40)


class Ssh(Work):
    host: Host
    #: Where the command runs, more keys for the registry's entries, and settings.
    target = "other"
    more: dict[str, Any] = {}
    kill_after, lost_after = "4", "15"

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        need(os.geteuid() == 0, "only root makes network namespaces")
        for name in ("ip", "unshare", "nsenter", "ssh", "sshd", "ssh-keygen", "ps"):
            need_command(name)
        able = subprocess.run(["unshare", "--net", "true"], capture_output=True)
        need(able.returncode == 0, "this kernel gives no network namespace")
        cls.host = Host()
        cls.addClassCleanup(cls.host.close)

    def serve(self, **commands: Sequence[str]) -> Server:
        """Start a server whose crons run these commands on the other host."""
        environment = {
            "SSH_RUN_CONFIG": str(self.host.config),
            "SSH_RUN_KILL_AFTER": self.kill_after,
            "SSH_RUN_LOST_AFTER": self.lost_after,
        }
        here = [*self.host.inside(self.host.ours), str(ENGINES / "ssh-run.sh")]
        registry = {
            name: {
                "description": name,
                "command": [*here, self.target, *command],
                "environment": environment,
                "killAfter": "60s",
                **self.more,
            }
            for name, command in commands.items()
        }
        server = Server(registry)
        self.addCleanup(server.__exit__)
        return server.start()

    def test_the_command_runs_there_with_its_words_and_status(self) -> None:
        words = ["it's", 'a "word"', "$HOME", "two  blanks", "é;*", ""]
        script = 'readlink /proc/self/ns/net; printf "<%s>" "$@"; exit 7'
        server = self.serve(words=["sh", "-c", script, "sh", *words])
        ended = server.completed("words")
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 7))
        said = "".join(f"<{word}>" for word in words)
        expected = f"{self.host.namespace}\n{said}"
        self.assertEqual(self.output(server, ended["id"]), expected)

    def test_a_line_comes_while_the_command_still_runs(self) -> None:
        seen = self.host.folder / "seen"
        server = self.serve(waiter=["sh", "-c", WAITER, "sh", str(seen)])
        run_id = self.started(server, "waiter", "first line\n")
        seen.touch()
        self.assertEqual(server.ended(run_id)["exitCode"], 0)
        self.assertEqual(self.output(server, run_id), "first line\nlast line\n")

    def test_its_variables_come_along_and_a_password_shows_nowhere(self) -> None:
        script = (
            'echo "$CRON_NAME $CRON_RUN_ID $CRON_TRIGGER $CRON_PARAM_KEY"; read x <$0'
        )
        gate = self.host.folder / "gate"
        os.mkfifo(gate)
        self.more = {"parameters": {"key": {"type": "string", "format": "password"}}}
        server = self.serve(secretive=["sh", "-c", script, str(gate)])
        run_id = self.started(
            server, "secretive", "http", params={"key": "pa'ss $wörd"}
        )
        shown = [words for words in processes().values() if "wörd" in " ".join(words)]
        gate.write_text("go\n")
        server.ended(run_id)
        self.assertEqual(shown, [])
        expected = f"secretive {run_id} http pa'ss $wörd\n"
        self.assertEqual(self.output(server, run_id), expected)

    def test_a_cancel_ends_all_that_works_there_and_waits_for_it(self) -> None:
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)])
        run_id = self.started(server, "worker")
        names = {"sleep", "timeout"}
        wait_until(lambda: names <= {w[0] for w in self.host.working().values()})
        ended = self.cancel(server, run_id)
        self.assertEqual(self.host.working(), {})
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 3))
        self.assertIn("cleaned up\n", self.output(server, run_id))

    def test_what_does_not_heed_a_cancel_is_killed(self) -> None:
        server = self.serve(stubborn=["sh", "-c", STUBBORN])
        ended = self.cancel(server, self.started(server, "stubborn"))
        self.assertEqual(self.host.working(), {})
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 137))

    def test_a_time_limit_ends_what_works_there(self) -> None:
        self.more = {"timeout": "15s"}
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)])
        ended = server.ended(self.started(server, "worker"), 60)
        self.assertEqual(self.host.working(), {})
        self.assertEqual((ended["status"], ended["exitCode"]), ("timed_out", 3))

    def test_a_run_that_is_killed_here_ends_there(self) -> None:
        server = self.serve(stubborn=["sh", "-c", STUBBORN])
        run_id = self.started(server, "stubborn")
        os.killpg(server.run(run_id)["pid"], signal.SIGKILL)
        wait_until(lambda: not self.host.working(), 30, "the end there")

    def test_a_run_that_is_given_up_here_ends_there(self) -> None:
        self.more = {"killAfter": "1s"}  # three seconds before the other side's
        server = self.serve(stubborn=["sh", "-c", STUBBORN])
        ended = self.cancel(server, self.started(server, "stubborn"))
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 137))
        wait_until(lambda: not self.host.working(), 30, "the end there")

    def test_a_client_that_is_killed_fails_the_run_and_ends_the_work(self) -> None:
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)])
        run_id = self.started(server, "worker")
        (client,) = [pid for pid, words in processes().items() if words[0] == "ssh"]
        os.kill(client, signal.SIGKILL)
        ended = server.ended(run_id)
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 137))
        wait_until(lambda: not self.host.working(), 30, "the end there")

    def test_a_script_that_is_killed_alone_ends_the_work(self) -> None:
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)])
        self.started(server, "worker")
        (client,) = [pid for pid, words in processes().items() if words[0] == "ssh"]
        os.kill(parent(client), signal.SIGKILL)
        wait_until(lambda: not self.host.working(), 30, "the end there")

    def test_a_lost_connection_ends_the_work_first_then_the_run(self) -> None:
        self.kill_after, self.lost_after = "1", "8"  # ssh waits three times as long
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)])
        run_id = self.started(server, "worker")
        self.host.cut()
        self.addCleanup(self.host.mend)
        wait_until(lambda: not self.host.working(), 30, "the end there")
        self.assertEqual(server.run(run_id)["status"], "running")
        ended = server.ended(run_id, 60)
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 255))
        self.assertIn("no connection to other", self.output(server, run_id))

    def test_a_host_that_does_not_answer_fails_the_run(self) -> None:
        self.target = "nobody.invalid"
        ended = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", DEAF)]).completed(
            "worker"
        )
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 255))


#: A cluster of one node, without cgroups and without systemd.
SLURM_CONF = """
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
SlurmUser={user}
SlurmdUser={user}
AuthType=auth/munge
CredType=cred/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/linear
SchedulerParameters=sched_interval=1,batch_sched_delay=0
KillWait=5
ReturnToService=2
NodeName={host} NodeAddr=127.0.0.1 State=UNKNOWN
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
PartitionName=shared Nodes=ALL OverSubscribe=FORCE:4 MaxTime=INFINITE State=UP
"""


class Cluster:
    """A Slurm cluster of this machine, its daemons in the foreground."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="cron-trigger-slurm-"))
        self.folder.chmod(0o755)  # munged insists that all may reach its socket
        self.config = self.folder / "slurm.conf"
        self.environ = {**os.environ, "SLURM_CONF": str(self.config)}
        self.daemons: list[subprocess.Popen[bytes]] = []
        self._configure()
        try:
            self._start()
        except AssertionError:
            print(self._log_text())
            self.close()
            raise

    def _configure(self) -> None:
        for name in ("state", "spool"):
            (self.folder / name).mkdir()
        key = self.folder / "munge.key"
        key.write_bytes(os.urandom(128))
        key.chmod(0o600)
        text = SLURM_CONF.format(
            host=socket.gethostname().partition(".")[0],
            ports=free_ports(2),
            user=pwd.getpwuid(os.geteuid()).pw_name,
            folder=self.folder,
        )
        self.config.write_text(text)

    def _start(self) -> None:
        munge = {"socket": "socket", "pid-file": "pid", "log-file": "log"}
        munge.update({"seed-file": "seed", "key-file": "key"})
        files = [f"--{key}={self.folder}/munge.{end}" for key, end in munge.items()]
        self._daemon("munged", "--foreground", *files)
        wait_until((self.folder / "munge.socket").exists, what="munged")
        self._daemon("slurmctld", "-D")
        self._daemon("slurmd", "-D")
        wait_until(lambda: self.state() == "idle", 60, "a node that is ready")

    def _daemon(self, name: str, *flags: str) -> None:
        with (self.folder / f"{name}.out").open("wb") as log:
            command = [need_command(name), *flags]
            self.daemons.append(
                subprocess.Popen(command, stdout=log, stderr=log, env=self.environ)
            )

    def _log_text(self) -> str:
        logs = sorted(self.folder.glob("*.out"))
        return "\n".join(log.read_text(errors="replace")[-3000:] for log in logs)

    def state(self) -> str:
        return self.ask("sinfo", "--noheader", "--partition=main", "--format=%t")

    def ask(self, *command: str) -> str:
        done = subprocess.run(
            command, capture_output=True, text=True, env=self.environ, timeout=30
        )
        return done.stdout.strip()

    def close(self) -> None:
        self.ask("scancel", "--signal=KILL", f"--user={os.geteuid()}")
        for daemon in reversed(self.daemons):
            daemon.terminate()
            try:
                daemon.wait(10)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        shutil.rmtree(self.folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    """Return free ports below those that the kernel gives to outgoing connections."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    found: list[int] = []
    for port in range(first - 1 - os.getpid() % 2000, 1024, -1):
        with contextlib.suppress(OSError):
            socket.create_server(("0.0.0.0", port)).close()
            found.append(port)
            if len(found) == count:
                break
    return found


class Slurm(Work):
    cluster: Cluster
    #: Where the jobs go, and more keys for the registry's entries.
    partition = "main"
    more: dict[str, Any] = {}

    @classmethod
    def setUpClass(cls) -> None:
        need_full()
        for name in ("munged", "slurmctld", "slurmd", "srun", "scancel", "setsid"):
            need_command(name)
        cls.cluster = Cluster()
        cls.addClassCleanup(cls.cluster.close)

    def serve(self, **commands: Sequence[str]) -> Server:
        """Start a server whose crons run these commands in the cluster."""
        registry = {
            name: {
                "description": name,
                "command": [str(ENGINES / "slurm-run.sh"), *command],
                "environment": {
                    "SLURM_CONF": str(self.cluster.config),
                    "SLURM_PARTITION": self.partition,
                },
                **self.more,
            }
            for name, command in commands.items()
        }
        server = Server(registry)
        self.addCleanup(server.__exit__)
        return server.start()

    def working(self, word: str) -> list[int]:
        """Return the processes of the cluster's jobs with a word on their line."""
        return [pid for pid, words in processes().items() if words[-1] == word]

    def test_the_command_runs_there_with_its_words_and_status(self) -> None:
        script = 'echo "$SLURM_JOB_NAME <$1> $CRON_PARAM_SIZE"; exit 7'
        self.more = {"parameters": {"size": {"type": "integer"}}}
        server = self.serve(words=["sh", "-c", script, "sh", "it's $HOME"])
        ended = server.completed("words", params={"size": 3})
        self.assertEqual((ended["status"], ended["exitCode"]), ("failed", 7))
        name = f"words@{socket.gethostname()}"
        self.assertIn(f"{name} <it's $HOME> 3\n", self.output(server, ended["id"]))

    def test_a_line_comes_while_the_command_still_runs(self) -> None:
        seen = self.cluster.folder / "seen"
        server = self.serve(waiter=["sh", "-c", WAITER, "sh", str(seen)])
        run_id = self.started(server, "waiter", "first line\n")
        seen.touch()
        self.assertEqual(server.ended(run_id)["exitCode"], 0)
        self.assertIn("first line\nlast line\n", self.output(server, run_id))

    def test_a_cancel_reaches_the_job_which_ends_in_its_own_way(self) -> None:
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", "")])
        run_id = self.started(server, "worker")
        wait_until(lambda: len(self.working("602")) == 1)
        ended = self.cancel(server, run_id)
        self.assertEqual((ended["status"], ended["exitCode"]), ("cancelled", 3))
        self.assertIn("cleaned up\n", self.output(server, run_id))
        wait_until(lambda: self.cluster.state() == "idle", 30, "the job's end")
        for seconds in ("600", "601", "602", "603"):
            self.assertEqual(self.working(seconds), [])

    def test_what_does_not_heed_a_cancel_is_killed_by_slurm(self) -> None:
        self.more = {"killAfter": "40s"}
        server = self.serve(stubborn=["sh", "-c", STUBBORN])
        run_id = self.started(server, "stubborn")
        ended = self.cancel(server, run_id)
        self.assertEqual(ended["status"], "cancelled")
        self.assertIn(ended["exitCode"], (137, 143))
        self.assertEqual(self.working(STUBBORN), [])

    def test_a_job_that_waits_for_its_turn_is_cancelled_too(self) -> None:
        server = self.serve(
            first=["sh", "-c", STUBBORN], second=["sh", "-c", "echo never"]
        )
        first = self.started(server, "first")
        second = self.started(server, "second", "queued and waiting")
        ended = self.cancel(server, second)
        self.assertEqual(ended["status"], "cancelled")
        self.assertNotIn("never", self.output(server, second))
        self.cancel(server, first)
        self.assertEqual(self.cluster.ask("squeue", "--noheader", "--states=PD"), "")

    def test_a_time_limit_ends_the_job(self) -> None:
        self.more = {"timeout": "20s"}
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", "")])
        ended = server.ended(self.started(server, "worker"), 60)
        self.assertEqual((ended["status"], ended["exitCode"]), ("timed_out", 3))

    def test_a_script_that_is_killed_ends_its_job(self) -> None:
        server = self.serve(worker=["sh", "-c", WORKER.replace("DEAF", "")])
        run_id = self.started(server, "worker")
        os.killpg(server.run(run_id)["pid"], signal.SIGKILL)
        wait_until(lambda: self.cluster.state() == "idle", 30, "the job's end")
        self.assertEqual(self.working("602"), [])

    def test_a_job_that_was_left_behind_is_waited_for(self) -> None:
        self.partition = "shared"  # there is room for both
        name = f"waiter@{socket.gethostname()}"
        seen = self.cluster.folder / "left"
        left = subprocess.Popen(
            [
                *f"srun -pshared --job-name={name} sh -c".split(),
                WAITER,
                "sh",
                str(seen),
            ],
            stdout=subprocess.PIPE,
            env=self.cluster.environ,
        )
        assert left.stdout
        left.stdout.readline()
        server = self.serve(waiter=["echo", "its turn"])
        run_id = self.started(server, "waiter", "queued and waiting")
        self.assertEqual(server.run(run_id)["status"], "running")
        seen.touch()
        self.assertEqual(server.ended(run_id, 60)["exitCode"], 0)
        self.assertIn("its turn\n", self.output(server, run_id))
        left.communicate()


load_tests = beside


if __name__ == "__main__":
    unittest.main()
