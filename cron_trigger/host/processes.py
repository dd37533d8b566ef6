"""Processes: what Linux itself says of them, and who belongs to a run.

A run's *family* is every process of its keeper's session and all their descendants.
That is known by getsid(2) and `/proc/PID/stat` alone: session, parent and start are the
kernel's own words.  What a process can write about itself (its environment, its
arguments, its name) belongs to whoever owns it, so it proves nothing and is never read.

A look asks for the session of each process, and reads but once for each session and
each member: the threads that end a run may look, the loop's thread never does.  No
lock: a `Family` is used by one thread at a time.

Where no descriptor is free for a look, it raises OSError: who can't be looked at has
not ended.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from typing import Container, Iterable, Iterator, NamedTuple, Optional

from cron_trigger.host.shortage import is_shortage
from cron_trigger.registry.errors import ConfigError

#: A line of stat has at most some 350 bytes: the name in it at most 64 (proc(5)).
STAT_BYTES = 1024
TICKS = os.sysconf("SC_CLK_TCK")
DEAD = frozenset("ZXx")
#: A session's leader may be a keeper that was started just now.
LEADER_S = 2.0


class Process(NamedTuple):
    """A process.  Its number alone may be another's tomorrow: with its start it is one.

    `started` counts clock ticks since the boot; `stack` is where its stack begins,
    which is another place after each exec.
    """

    pid: int
    started: int
    parent: int
    session: int
    state: str
    stack: int
    group: int = 0
    threads: int = 1

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Process) and self[:2] == other[:2]

    def __ne__(self, other: object) -> bool:  # a tuple has one of its own
        return not self == other

    def __hash__(self) -> int:
        return hash(self[:2])

    @property
    def mark(self) -> str:
        """What tells this process from each other one, after a reboot as well."""
        return _mark_of(self.started)

    @property
    def began_s(self) -> float:
        """When it began, on the boot clock, to the 1/100 s."""
        return self.started / TICKS

    @property
    def alive(self) -> bool:
        # Where the first thread has ended and others go on, the state is that of a
        # zombie: proc(5).
        return self.state not in DEAD or self.threads > 1


@functools.lru_cache(maxsize=1)
def boot_id() -> str:
    """Return what names this boot of the kernel: random(4)."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        return file.read(36)


def boot_time_s() -> float:
    """Return the time since the boot, which nobody sets and which goes on in sleep."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _mark_of(started: int) -> str:
    return f"{boot_id()}:{started}"


def mark_of_child(pid: int, since_s: float) -> Optional[str]:
    """Return the mark of our child, not reaped yet, that was made since a boot time.

    The kernel takes a start from that clock: where it has not ticked since, no look is
    needed.  That look waits for the child's exec, which goes on when we sleep.
    """
    started = int(since_s * TICKS)
    if started == int(boot_time_s() * TICKS):
        return _mark_of(started)
    child = process(pid)
    return child.mark if child else None


def started_of(mark: Optional[str]) -> Optional[int]:
    """Return the start in a `mark`; None where it is of another boot, or none."""
    boot, _, ticks = (mark or "").rpartition(":")
    return int(ticks) if boot == boot_id() and ticks.isdigit() else None


def process(pid: int) -> Optional[Process]:
    """Return what has this number now, a zombie too; None where nothing has."""
    try:
        descriptor = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        if is_shortage(error):
            raise
        return None
    try:
        text = os.read(descriptor, STAT_BYTES)
    except OSError:  # it has gone between the two calls
        return None
    finally:
        os.close(descriptor)
    # The name stands in parentheses and may hold parentheses and blanks itself.
    words = text.rpartition(b")")[2].split(None, 26)
    if len(words) < 26:
        return None
    parent, group, session = map(int, words[1:4])
    threads, started, stack = int(words[17]), int(words[19]), int(words[25])
    state = words[0].decode()
    return Process(pid, started, parent, session, state, stack, group, threads)


def sessions_now() -> dict[int, int]:
    """Return the session of each process of this host (or container), by number."""
    numbers = (int(name) for name in os.listdir("/proc") if name.isdigit())
    found = ((number, _session(number)) for number in numbers)
    return {number: session for number, session in found if session}


def _session(number: int) -> int:
    """Return a process's session; 0 where that is another place's, or it has gone."""
    try:
        return os.getsid(number)  # a fortieth of what it costs to read its stat
    except ProcessLookupError:
        return 0
    except PermissionError:  # by SELinux
        one = process(number)
        return one.session if one else 0


def lost_leader(number: int, began_s: float) -> Optional[Process]:
    """Return who led a session that began at a time of the boot clock, dead or gone.

    Of one that is gone a member tells that it had begun at once.  A session whose
    leader had the same number later has none that is so old.
    """
    numbers = [n for n, session in sessions_now().items() if session == number]
    # Itself first, where it is not reaped yet: `Family` then knows it by its start.
    for one in map(process, (number, *numbers)):
        if one and -0.1 <= one.began_s - began_s <= LEADER_S:
            return one._replace(pid=number)
    return None


class Family:
    """The processes of a run, as long as one of them lives.

    Once seen, a process stays known by number and start, whatever becomes of its
    parent.  A daemon that has forked twice into a session of its own, before anybody
    looked, is not found: that is what it did it for.
    """

    def __init__(self, keeper_pid: int, keeper_started: Optional[int]) -> None:
        """Take the keeper's number and start; without a start there is no family."""
        self.keeper_pid = keeper_pid
        self._keeper_started = keeper_started
        #: Number and start of whoever was seen to belong to it, on this boot.
        self.known: dict[int, int] = {}
        self._groups: set[int] = set()

    def look(self) -> list[Process]:
        """Return the living members but the keeper, the oldest first."""
        if self._keeper_started is None:
            return []
        found = list(self._members(sessions_now()))
        self.known.update((one.pid, one.started) for one in found)
        self._groups.update(one.group for one in found)
        living = (one for one in found if one.alive)
        return sorted(living, key=lambda one: (one.started, one.pid))

    def _members(self, sessions: dict[int, int]) -> Iterator[Process]:
        """Yield the members but the keeper, of all processes by session."""
        mine = self._sessions(sessions)
        for number, session in sessions.items():
            if session in mine and number not in (self.keeper_pid, os.getpid()):
                one = process(number)
                # Its number may have become another's since then, or it has begun a
                # session of its own.
                if one and one.session in (session, number):
                    yield one

    def _sessions(self, sessions: dict[int, int]) -> set[int]:
        """Return which sessions are of the family, of all processes by session.

        Nobody joins a session that is there: who leaves ours has begun another, or
        descends from one who did.
        """
        leader = process(self.keeper_pid)
        # The kernel gives no number anew that is still the session of a process.  So
        # while our session lives, no other process leads it; where one does, ours
        # is over.
        ours = leader is None or leader.started == self._keeper_started
        mine = {self.keeper_pid} if ours else set()
        # A copy: another thread may learn of somebody meanwhile.
        left = [n for n in [*self.known] if sessions.get(n) not in (None, *mine)]
        known = map(process, left)
        mine |= {o.session for o in known if o and o.started == self.known[o.pid]}
        # Whose parents tell: the leader, or where that is gone all that are left.
        others = {n: sid for n, sid in sessions.items() if sid not in mine}
        asked = [n for n, sid in others.items() if n == sid or sid not in sessions]
        parents = {one: sessions.get(one.parent) for one in map(process, asked) if one}
        while more := {one.session for one in parents if parents[one] in mine} - mine:
            mine |= more
        return mine

    def is_empty(self) -> bool:
        """Look twice: True where nobody is found, nor by a look at who stands still."""
        if self.look():
            return False
        with self.standing_still() as left:
            return not left

    @contextlib.contextmanager
    def standing_still(self) -> Iterator[list[Process]]:
        """Look while the process groups of the family are stopped.

        A process that lives for less than a look, and whose child takes its place,
        would never be found.  The kernel stops a group as a whole: no child is born
        in it that does not stand still as well (its fork waits for the signal).
        """
        groups = self._living_groups()
        try:
            _signal_all(groups, signal.SIGSTOP)
            yield self.look()
        finally:
            # The keeper, too, which stands in the first of them.
            _signal_all(groups, signal.SIGCONT)

    def _living_groups(self) -> list[int]:
        if self._keeper_started is None:
            return []
        mine = {**self.known, self.keeper_pid: self._keeper_started}
        leaders = {group: process(group) for group in (self.keeper_pid, *self._groups)}
        # The number of a group that is not empty is given to no new process: where
        # another has it, ours is gone.
        return [
            group
            for group, leader in leaders.items()
            if group > 1 and (leader is None or leader.started == mine.get(group))
        ]

    def script(self) -> Optional[Process]:
        """Return the keeper's child that is the script, dead or alive; None before.

        Until its exec it is a copy of the keeper, whose handlers it still has: a
        signal would be lost on it.
        """
        keeper = process(self.keeper_pid)
        if keeper is None:
            return None
        for one in _children(self.keeper_pid):
            if not one.alive or one.stack != keeper.stack or not keeper.stack:
                self.known[one.pid] = one.started
                return one
        return None


def _signal_all(groups: Iterable[int], number: int) -> None:
    for group in groups:
        with contextlib.suppress(OSError):  # empty, or another user's
            os.killpg(group, number)


def _children(pid: int) -> list[Process]:
    """Return the children of a process with one thread, zombies too: proc(5)."""
    try:
        with open(f"/proc/{pid}/task/{pid}/children", encoding="ascii") as file:
            found = [process(int(number)) for number in file.read(4096).split()]
    except OSError:
        # A kernel without CONFIG_PROC_CHILDREN.
        found = [process(number) for number in sessions_now()]
    return [one for one in found if one and one.parent == pid]


def check_kernel() -> None:
    """Raise ConfigError where the kernel can't tell of processes and their ends."""
    try:
        boot_id()
    except (FileNotFoundError, PermissionError) as error:
        raise ConfigError(
            f"The server needs the whole of /proc ({error.strerror}: "
            f"{error.filename}): take ProcSubset=pid out of its unit."
        ) from None
    try:
        os.close(os.pidfd_open(os.getpid()))
    except (AttributeError, OSError) as error:
        raise ConfigError(
            "The server needs the system call pidfd_open, which this host refuses "
            f"({getattr(error, 'strerror', 'not in this Python')}): use Linux 5.3 or "
            "newer, and a container runtime whose seccomp profile allows it."
        ) from None


class Reaper:
    """Reaps what nobody else does, where this is the first process of a container.

    There, what scripts leave behind becomes this process's children.  Called by the
    main thread alone.
    """

    def __init__(self) -> None:
        self._seen: dict[Process, float] = {}

    def reap(self, keepers: Container[int]) -> bool:
        """Reap dead orphans; return True where one is to be looked at again."""
        now_s, mine = time.monotonic(), os.getsid(0)
        try:
            dead = [one for one in _children(os.getpid()) if not one.alive]
        except OSError:  # no descriptor is free
            return True
        strange = [p for p in dead if p.session != mine and p.pid not in keepers]
        self._seen = {one: self._seen.get(one, now_s) for one in strange}
        for one, since_s in list(self._seen.items()):
            if one.session != one.pid or now_s - since_s >= LEADER_S:
                del self._seen[one]
                with contextlib.suppress(ChildProcessError):
                    os.waitpid(one.pid, os.WNOHANG)
        return bool(self._seen)


def send(one: Process, number: int) -> bool:
    """Send a signal to this very process; return False where it is gone."""
    with _opened(one) as descriptor:
        return descriptor is not None and _send(descriptor, number)


@contextlib.contextmanager
def _opened(one: Process) -> Iterator[Optional[int]]:
    """Yield a descriptor of this very process; None where it is gone."""
    try:
        # Opened first: what is found at the number afterwards is what is signalled.
        descriptor = os.pidfd_open(one.pid)
    except OSError as error:
        if is_shortage(error):
            raise
        yield None
        return
    try:
        yield descriptor if process(one.pid) == one else None
    finally:
        os.close(descriptor)


def _send(descriptor: int, number: int) -> bool:
    try:
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    except PermissionError:  # a set-user-ID program, under an ordinary user's server
        pass
    return True


@contextlib.contextmanager
def held_still(one: Process, patience_s: float = 0.2) -> Iterator[bool]:
    """Stop a process for the duration; yield False where it has ended by itself.

    Between a look and a signal a script may end.  What has stopped has not: the
    kernel does not stop a process that is on its way out.  A process that takes
    longer (in a system call that can't be interrupted) counts as living.
    """
    with _opened(one) as descriptor:
        if descriptor is None or not _send(descriptor, signal.SIGSTOP):
            yield False
            return
        try:
            yield _stands_still(one, time.monotonic() + patience_s)
        finally:
            # By the same descriptor: for another there may be no room.
            _send(descriptor, signal.SIGCONT)


def _stands_still(one: Process, deadline_s: float) -> bool:
    """Wait until a process has stopped; return False where it has ended."""
    while time.monotonic() < deadline_s:
        now = process(one.pid)
        if now != one or not now.alive:
            return False
        if now.state in "Tt":
            break
        time.sleep(0.0005)
    return True
