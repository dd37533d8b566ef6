"""The command line: its flags, and from a command to an exit status.

Each command's `--help` lists what it takes; all of them accept every setting, so that
one set of flags serves a host.  Promises an exit status of sysexits.h and one sentence
on standard error, never a traceback.  `main` is what the entry calls, once.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import os
import signal
import sys
from typing import Any, Mapping, Optional, Sequence

from cron_trigger import SERVICE, VERSION
from cron_trigger.commands.terminal import EXIT_OF_CODE, Failed, reader_may_go, tell
from cron_trigger.registry.errors import EX_USAGE, ConfigError, Refusal
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.settings import SETTINGS, number_setting
from cron_trigger.runs.logs import PRIORITIES, stderr_is_journal

FOLDERS = ("registry", "log-dir", "state-dir", "run-dir")
CLIENT = ("port", "secret-file")
ALL = tuple(SETTINGS)
#: Each command: module and function, what it does, and which settings its help lists.
COMMANDS: dict[str, tuple[str, str, Sequence[str]]] = {
    "serve": ("serve:command", "serve over HTTP (also without a command)", ALL),
    "run": ("run:command", "run a cron in the foreground, for crontab lines", FOLDERS),
    "list": ("tables:list_crons", "list the crons", FOLDERS),
    "history": ("tables:history", "list the last runs", FOLDERS),
    "check": ("tables:check", "check the registry", FOLDERS),
    "doctor": ("doctor:command", "look for what goes wrong in practice", ALL),
    "crontab": (
        "crontab:command",
        "show a crontab's lines as crons, or add them to the registry",
        FOLDERS[:1],
    ),
    "trigger": (
        "remote:trigger",
        "start a cron through a server, now or later",
        CLIENT,
    ),
    "log": ("remote:log", "show a run's output", CLIENT),
    "cancel": ("remote:cancel", "have a run end", CLIENT),
    "events": ("remote:events", "show what happens, as it happens", CLIENT),
    "completion": ("completion:command", "print what bash or zsh completes", ()),
}


def _number(low: int, high: int, text: str) -> int:
    try:
        return number_setting("it", text, low, high)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Ends a wrong call with EX_USAGE instead of argparse's 2.

    The flags of its settings are made when it is asked: of all commands, one is.
    """

    def __init__(self, shown: Optional[Sequence[str]] = None, **options: Any) -> None:
        """`shown` are the settings that its help lists; it takes all."""
        super().__init__(allow_abbrev=False, **options)
        self._shown = shown

    def parse_known_args(self, *arguments: Any, **more: Any) -> Any:
        shown, self._shown = self._shown, None
        if shown is not None:
            _add_settings(self, shown)
        return super().parse_known_args(*arguments, **more)

    def _print_message(self, message: str, file: Any = None) -> None:
        # Whoever reads it may go; the exit status stays.
        with reader_may_go(file or sys.stderr, OSError):
            (file or sys.stderr).write(message)

    def error(self, message: str) -> Any:
        self.exit(EX_USAGE, f"{SERVICE}: {message} (see --help)\n")


def _add_settings(parser: _Parser, shown: Sequence[str]) -> None:
    """Add the flags of all settings, of which the help lists some."""
    group = parser.add_argument_group(
        "settings", "each also as CRON_TRIGGER_<NAME> in the environment"
    )
    for name, what in SETTINGS.items():
        text = what if name in shown else argparse.SUPPRESS
        if shown is CLIENT and name == "port":
            text = "port of this host's server (9998)"
        flag, absent = f"--{name}", argparse.SUPPRESS
        group.add_argument(flag, help=text, metavar=name.upper(), default=absent)


def parser() -> argparse.ArgumentParser:
    program = os.path.basename(sys.argv[0])
    top = _Parser(
        prog=program if program == "cron-trigger" else "cron_trigger_server.py",
        shown=ALL,
        description="Start the host's crons on request, once at a time.",
        epilog="Exit status: 64 for a wrong call, 78 for a wrong configuration, 75 "
        "for a cron that runs already, 126 for a script that cannot be started, "
        "else 1; `run` and `trigger --wait` end with the recorded status of the "
        "script, or with 1 where the run was interrupted and has none. `help "
        "COMMAND` shows what a command takes.",
    )
    version = f"{SERVICE} {VERSION}"
    top.add_argument("-V", "--version", action="version", version=version)
    commands = top.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser
    )
    made = {
        name: commands.add_parser(
            name, help=what, description=f"{what[0].upper()}{what[1:]}.", shown=shown
        )
        for name, (_, what, shown) in COMMANDS.items()
    }
    help_parser = commands.add_parser("help", help="show the help of a command")
    help_parser.add_argument("about", nargs="?", choices=COMMANDS, metavar="COMMAND")
    _add_flags(made)
    return top


def _add_flags(made: Mapping[str, _Parser]) -> None:
    """Add what the commands take beside the settings."""

    def add(names: str, flag: str, **options: Any) -> None:
        for name in names.split():
            made[name].add_argument(flag, **options)

    switch = functools.partial(add, action="store_true")
    tables = "list history check doctor crontab trigger cancel"
    switch(tables, "--json", help="for programs")
    switch("events", "--json", help="a JSON object a line")
    add("run trigger", "name", metavar="NAME", help="which cron")
    switch("run", "--output", help="show its output as at a terminal")
    values = {"action": "append", "default": [], "metavar": "KEY=VALUE"}
    add("run trigger", "--param", help="a parameter of this run (repeatable)", **values)
    add("history", "name", metavar="NAME", nargs="?", help="of one cron only")
    many = functools.partial(_number, 1, 100000)
    runs = "how many runs (20)"
    add("history", "--limit", default=20, metavar="N", type=many, help=runs)
    files = "crontabs; - is standard input"
    add("crontab", "file", metavar="FILE", nargs="*", help=files)
    add("crontab", "--user", metavar="NAME", help="whose these files are")
    switch("crontab", "--write", help="add the entries to the registry")
    about = "the server's address, also CRON_TRIGGER_URL (this host's)"
    add("trigger log cancel events", "--url", help=about)
    add("trigger", "--at", metavar="TIME", help="when, such as 2026-11-23T22:00")
    switch("trigger", "--wait", help="wait for its end and exit with its status")
    switch("trigger", "--follow", help="--wait, and show its output meanwhile")
    run_id = functools.partial(_number, 1, 999_999_999)
    lines = functools.partial(_number, 0, 10000)
    add("log cancel", "id", metavar="ID", type=run_id, help="which run")
    switch("log", "--follow", help="until the run ends")
    add("log", "--tail", metavar="N", type=lines, help="its last N lines")
    add("completion", "shell", choices=("bash", "zsh"))
    made["completion"].set_defaults(commands=(*COMMANDS, "help"))


def main(argv: Optional[Sequence[str]] = None, limits: Optional[Limits] = None) -> int:
    """Do what the arguments say.  Return the exit status; nobody sees a traceback.

    `limits` are those of a server; tests have others.
    """
    try:
        status = _obey(argv, limits or Limits())
    except SystemExit as end:  # of argparse: a help was asked for, or a call is wrong
        status = int(end.code or 0)
    try:
        with reader_may_go(sys.stdout):
            return status
    except OSError as error:
        complain(str(error))
        return status or 1


def _obey(argv: Optional[Sequence[str]], limits: Limits) -> int:
    try:
        _prepare_streams()
        options = parser().parse_args(argv, argparse.Namespace(limits=limits))
        if options.command == "help":
            about = [options.about] if options.about else []
            parser().parse_args([*about, "--help"])
        place, _, name = COMMANDS[options.command or "serve"][0].partition(":")
        status: int = getattr(
            importlib.import_module(f"cron_trigger.commands.{place}"), name
        )(options)
        return status
    except (ConfigError, Failed) as error:
        complain(str(error))
        return error.status
    except Refusal as refusal:
        complain(refusal.message)
        return EXIT_OF_CODE.get(refusal.code, 1)
    except BrokenPipeError:
        return 0  # the reader of a stream has seen enough
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except OSError as error:
        complain(str(error))
        return 1


def _prepare_streams() -> None:
    """See that 0, 1 and 2 are open, and that no character ends a table.

    Where one is closed, the next file to be opened gets its number: what is meant
    for standard error would be written into a PID file.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    # Python has set those to None that were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure:
            reconfigure(errors="backslashreplace")


def complain(text: str) -> None:
    """Say why it ends; `journalctl -p err` shows it where systemd started this."""
    priority = f"<{PRIORITIES['error']}>" if stderr_is_journal() else ""
    tell(f"{priority}{SERVICE}: {text}\n")
