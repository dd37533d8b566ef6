"""Processes."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from dataclasses import dataclass, field
from typing import Iterable, List, Optional, Tuple

from cron_trigger.registry.records import Run


@dataclass(frozen=True)
class Process:
    """A process.  Equal are those of one PID and one start, whatever they run now."""

    pid: int
    group: int
    started: int
    name: str = field(compare=False)


def run_of_process(pid: int) -> Optional[Tuple[str, int, str]]:
    """Return cron name, run id and trigger from a process's environment, or None."""
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            pairs = (part.partition(b"=") for part in file.read().split(b"\0"))
            variables = {
                name: value.decode()
                for name, _, value in pairs
                if name in (b"CRON_NAME", b"CRON_RUN_ID", b"CRON_TRIGGER")
            }
        return (
            variables[b"CRON_NAME"],
            int(variables[b"CRON_RUN_ID"]),
            variables.get(b"CRON_TRIGGER", "http"),
        )
    except (OSError, KeyError, ValueError):
        return None


def is_process_of(run: Run, pid: int) -> bool:
    """Return True where a process lives that belongs to a run."""
    owner = run_of_process(pid)
    return owner is not None and owner[:2] == (run.cron_name, run.id)


def is_in_exec(pid: int) -> bool:
    """Return True for a process without an environment, so of nobody can tell whom.

    The kernel tells its parent that the exec went well (it closes the descriptors)
    before it sets up the new environment, and drops that before the exit is told.
    """
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return not file.read(1) and bool(_process(pid))
    except OSError:
        return False


def processes_of_run(cron_name: str, run_id: int) -> List[Process]:
    """Return the living processes that the environment tells to be of a run."""
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        owner = run_of_process(int(entry))
        if owner and owner[:2] == (cron_name, run_id):
            found.extend(_process(int(entry)))
    return found


def _process(pid: int) -> List[Process]:
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        return []
    # The name stands in parentheses and may itself hold parentheses: proc(5).
    name, _, rest = text.partition("(")[2].rpartition(")")
    values = rest.split()
    group, started = int(values[2]), int(values[19])
    return [] if values[0] == "Z" else [Process(pid, group, started, name)]


def script_began(keeper: int) -> bool:
    """Return True once a keeper's child has become the script.

    Until then it is a copy of the keeper, or not there; where /proc does not tell, it
    has begun.
    """

    def arguments(pid: str) -> bytes:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read()

    try:
        with open(f"/proc/{keeper}/task/{keeper}/children", "rb") as file:
            children = file.read().decode().split()
        own = arguments(str(keeper))
        return any(arguments(child) != own for child in children)
    except OSError:
        return True


def members_of_group(group: int) -> List[Process]:
    """Return the living processes of a process group."""
    pids = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
    return [p for pid in pids for p in _process(pid) if p.group == group]


def process_age_s(pid: int) -> Optional[float]:
    """Return how long ago a process began, whatever the wall clock did meanwhile.

    None if it is gone.
    """
    found = _process(pid)
    if not found:
        return None
    began_s = found[0].started / os.sysconf("SC_CLK_TCK")  # since the boot: proc(5)
    return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - began_s)


def kill_leftovers(
    cron_name: str, run_id: int, group: int, known: Iterable[Process] = ()
) -> List[Process]:
    """SIGKILL what is left of a run's process group; return what left the group.

    Only for a keeper that is gone.  Its number may have been given to others since,
    so the group is killed only where a process in it is of this run: as its
    environment says, or because it is `known` to have been in it all the time.
    """
    found = processes_of_run(cron_name, run_id)
    left = [process for process in known if process in _process(process.pid)]
    if any(process.group == group for process in (*found, *left)):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(group, signal.SIGKILL)
    return [process for process in found if process.group != group]
