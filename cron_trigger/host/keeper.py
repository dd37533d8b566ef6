"""Keeper."""

from __future__ import annotations

#: `trap :` sets a handler that does nothing: the keeper outlives the signal that
#: ends the script, while the script, unlike with `trap ''`, does not inherit it
#: (POSIX, Shell Command Language, 2.11).
#: `exec` in a subshell: dash applies a command's redirections to itself meanwhile,
#: and would say "Terminated" into the log.
KEEPER = (
    'trap : HUP INT TERM;echo $$>&0;(exec "$@" </dev/null 2>&1);s=$?;echo $s>&0;exit $s'
)
SHELL = "/bin/sh"
