#!/usr/bin/env python3
"""Start cron-trigger-server: what systemd, crontabs and people call.

The program is the folder `cron_trigger` beside this file.  Run `--help` to see what it
does, read `cron_trigger/__init__.py` to see how.
"""

import os
import stat
import sys

if sys.version_info < (3, 9):  # noqa: UP036 - below, there would be a traceback
    sys.exit("cron-trigger-server needs Python 3.9 or newer: install a newer python3.")

FOLDER = os.path.dirname(os.path.realpath(__file__))


def unsafe_place() -> "str | None":
    """Return the first of the program's files and folders that others may change."""
    places = [FOLDER, os.path.realpath(__file__)]
    while places[0] != "/":
        places.insert(0, os.path.dirname(places[0]))
    for folder, folders, files in os.walk(os.path.join(FOLDER, "cron_trigger")):
        places += [folder, *(os.path.join(folder, name) for name in folders + files)]
    for place in places:
        status = os.lstat(place)
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_uid != 0 or (status.st_mode & 0o022 and not sticky):
            return place
    return None


def main() -> int:
    """Import the program, last on the path, and do what the command line says."""
    if sys.getfilesystemencoding() != "utf-8" and sys.executable:
        # As where LANG=en_US means Latin-1: a script's surroundings are UTF-8.
        argv = getattr(sys, "orig_argv", [sys.executable, "-I", *sys.argv])
        os.execv(sys.executable, [argv[0], "-X", "utf8", *argv[1:]])
    # A plain start puts this folder first, where a file in it would stand in for a
    # module of the standard library; `-I` leaves it out.
    sys.path[:] = [path for path in sys.path if path != FOLDER] + [FOLDER]
    # Looked at before anything is imported: whoever can change a file of the program
    # is root with its next start.
    unsafe = unsafe_place() if os.geteuid() == 0 else None
    if unsafe:
        sys.stderr.write(
            f"cron-trigger-server: as root, the program runs only from files that root "
            f"alone can change, but others can change {unsafe}; install it with "
            "sudo ./install.sh, or keep the clone in a folder of root's.\n"
        )
        return 78
    from cron_trigger.cli import main as run

    return run()


if __name__ == "__main__":
    sys.exit(main())
