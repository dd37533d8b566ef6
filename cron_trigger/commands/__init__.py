"""What each command of the command line does; `cli.py` has their flags.

A command takes its parsed flags and returns its exit status.  `cli.main` imports the
one that is asked for, so that `run` in a crontab does not wait for the others.

    terminal    tables, JSON, and outputs as a terminal may see them
    place       whose state a command works with: the service's or one's own
    serve       `serve`: the server
    run         `run`: a cron in the foreground
    tables      `list`, `history`, `check`
    doctor      `doctor`
    crontab     `crontab`
    remote      `trigger`, `log`, `cancel`, `events`: as a client of a server
    completion  `completion`: what a shell completes
    installing  no command: what install.sh asks
"""
