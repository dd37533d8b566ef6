"""A crontab's lines as entries of the registry, for `cron-trigger crontab`.

Nothing is run and no crontab is written.  A crontab goes through the room once:

    text -> lines (jobs) -> words -> entries (a job's command) -> names -> conversion

Modules, each on those above it:

    words       a command line as a POSIX shell reads it
    lines       crontab(5): variables, schedules, users, commands
    names       a cron's name, from its script
    entries     a command in the registry's words
    conversion  all jobs' entries, and the line that takes each one's place
    table       what is shown of it, and how it gets into the registry
"""
