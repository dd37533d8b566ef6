"""Start the scripts of a host's crontab on request, once at a time, and record it.

A run's life::

    trigger -> checks -> lock -> row "running" -> keeper (sh) -> script ... exit
                          |                          |                       |
                          | held: 409                | PID into NAME.pid     | status
                          v                          v                       v
                       refused          row "completed|failed|..." <- pidfd <- NAME.pid

The keeper, not this program, runs the script and writes its exit status, so a server
that is killed at any moment loses no run.  Both hold the lock.

The house, from the roof down; each module imports from its own floor or from below:

    cli, commands, client, doctor, crontab     people at a terminal
    daemon     a server's life; composition, systemd, signals
    web        HTTP: reading, access, routes, answers, the page, events
    runs       from a trigger to a recorded end; plans, logs, lateness
    history    SQLite
    host       Linux: locks, keepers, processes, users, networks, the loop
    registry   what a cron, a parameter, a setting and a run is

Threads: *main* and *waiter* run a loop each: that of *main* accepts connections and
does what signals ask for, the other waits for keepers, timers and event streams;
neither waits for a disk, a lock or another process; *aside* does in order what a loop
must not wait for (events read, schedules judged, lines of the log); one for each
request in work; and short ones: *ending ID* ends a family and records an end, *limit
ID* begins that, *plan NAME* starts what was planned, *registry* and *reload* read it,
*history* heals it, *pruner*, *notifier*.

Locks, in the order in which they may be taken:

    Launch._mutexes    one launch of a cron at a time in this process
    Launch._turn       launches one after the other: for speed, not for safety
    Recovery._lock     one look at what others began
    ActiveRun.mutex    who decides how a run ends
    RunFolder._lock    the run folder, while it is looked at and made again
    Schedule._lock     what is planned; the history may be written under it
    Database._lock     the connection of the history; never held for a network
    the other _lock    tables, held for some lines and for no call

Between processes, flock on a PID file decides who runs a cron, and an SQL
`update ... where status = 'running'` who records its end.
"""

from __future__ import annotations

from pathlib import Path

VERSION = "2.0.0"
SERVICE = "cron-trigger-server"

#: The folder that holds the program, and beside it the entry and a registry.
HOME = Path(__file__).resolve().parent.parent
