"""From a trigger to a recorded end, and what lies around it.

    registry.get -> launch: checks, lock, row, keeper -> active ... -> ending -> record

Whoever starts a keeper keeps a copy of its lock until the end is recorded, so a cron
that is being cancelled, or whose keeper was killed, keeps every other run out.

    logs       log files and their folder
    output     one run's own bytes in its log
    notes      a run's note beside its PID file, until its end is recorded
    scripts    what a command becomes; whether it may be run
    ground     what all of them stand on
    active     the runs that this process watches
    folders    the folders; PID files that somebody removed
    recorder   what is recorded of an end
    ending     how a run ends: by itself, cancelled, timed out, interrupted
    recovery   runs that others began, or this server in an earlier life
    launch     all checks, then the lock, then the start
    runner     all of this, for those who ask from above
    schedule   planned triggers
    lateness   what the crontab should have run
"""
