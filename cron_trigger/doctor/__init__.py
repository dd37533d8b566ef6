"""Looks at a host for what goes wrong in practice, each with its remedy.

A check is a function that takes the host and yields what it found.  None of them
changes anything, none raises, and no remedy takes a file from whom it belongs to.
Called by the command `doctor`, which lists them.

    findings    what a check yields, and what checks may ask
    program     Python, kernel, the program's own files, settings, registry, scripts
    folders     folders of logs, history and locks; disks; logs that nobody rotates
    service     the unit, the port, `/health`, the secret
    containers  networks of containers, and the firewall before them
"""
