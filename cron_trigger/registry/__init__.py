"""The registry: what a cron, a parameter and a setting are, and what a run consists of.

The ground floor: values, and the checks that make them.  A text goes in (a registry's
file, a setting, a request's parameters) and a value comes out that holds, or a sentence
that says what is wrong with it and what to do.  Nothing here knows of locks, processes,
SQLite or HTTP; the only thread is the one that reads a registry that has changed.

    errors       what is refused, with which code and exit status
    strict_json  JSON as registries and requests are written
    texts        foreign texts made safe for people and logs; where a fault is
    threads      a thread begins, or it is told that it could not
    times        times and durations, read and written
    patterns     which regular expressions are surely fast
    parameters   a parameter's definition, its check, and which values it admits
    schedules    the five fields of a crontab line, and when they are due
    crons        an entry that holds, and the values of one of its runs
    records      runs, scheduled triggers, events: what the history keeps
    checker      the check of a whole registry
    trust        who else could change a file, and the remedy
    file         the registry's file, read when it has changed
    limits       how much at once, how long and how often
    secret       where the secret comes from, and which one is good
    settings     what environment and flags decide
"""
