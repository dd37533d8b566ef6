"""Command line."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import sys
from dataclasses import asdict
from datetime import datetime
from typing import (
    Any,
    Callable,
    Dict,
    Iterable,
    Iterator,
    List,
    Mapping,
    Optional,
    Sequence,
    Tuple,
)

from cron_trigger import SERVICE, VERSION
from cron_trigger.daemon.life import Daemon
from cron_trigger.doctor import Doctor, Finding
from cron_trigger.history.owner import check_run_dir
from cron_trigger.history.store import Store
from cron_trigger.host.lock import held_locks
from cron_trigger.host.loop import Loop
from cron_trigger.host.messages import MessageSocket
from cron_trigger.host.processes import check_kernel
from cron_trigger.host.users import be_plain
from cron_trigger.registry.errors import (
    EX_CONFIG,
    EX_TEMPFAIL,
    EX_USAGE,
    ConfigError,
    Refusal,
)
from cron_trigger.registry.file import Registry, load_registry
from cron_trigger.registry.records import (
    CANCELLED,
    COMPLETED,
    FAILED,
    INTERRUPTED,
    RUNNING,
    TIMED_OUT,
    Trigger,
)
from cron_trigger.registry.settings import (
    ENVIRONMENT_FILE,
    SETTINGS,
    Settings,
    environment_file,
    number_setting,
    read_settings,
    service_variables,
)
from cron_trigger.registry.strict_json import Json
from cron_trigger.registry.texts import printable
from cron_trigger.registry.times import duration_text, epoch_of
from cron_trigger.runs.folders import make_folders
from cron_trigger.runs.logs import PRIORITIES, Logs, ServerLog, stderr_is_journal
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.scripts import Scripts
from cron_trigger.web.views import EXTERNAL, cron_view


def _limit(text: str) -> int:
    """Return the number of runs to list, for argparse."""
    try:
        return number_setting("it", text, 1, 100000)
    except ConfigError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


class _Parser(argparse.ArgumentParser):
    """Ends a wrong call with EX_USAGE instead of argparse's 2."""

    def error(self, message: str) -> Any:
        self.exit(EX_USAGE, f"{SERVICE}: {message} (see --help)\n")


def _settings_parser() -> _Parser:
    settings = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
    group = settings.add_argument_group(
        "settings", "each also as CRON_TRIGGER_<NAME> in the environment"
    )
    for name, what in SETTINGS.items():
        group.add_argument(f"--{name}", help=what, metavar=name.upper())
    return settings


def _parser() -> argparse.ArgumentParser:
    settings = _settings_parser()
    parser = _Parser(
        prog="cron_trigger_server.py",
        parents=[settings],
        description="Start the host's crons on request, once at a time.",
    )
    parser.add_argument("--version", action="version", version=f"{SERVICE} {VERSION}")
    commands = parser.add_subparsers(
        dest="command", metavar="COMMAND", parser_class=_Parser
    )

    def add(name: str, what: str, table: bool = False) -> argparse.ArgumentParser:
        command = commands.add_parser(
            name, help=what, description=what, parents=[settings]
        )
        if table:
            command.add_argument("--json", action="store_true", help="for programs")
        return command

    add("serve", "serve over HTTP (what it does without a command)")
    run = add("run", "run a cron in the foreground, for crontab lines")
    run.add_argument("name", metavar="NAME", help="which cron")
    run.add_argument(
        "--param",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a parameter of this run; as often as there are any",
    )
    add("list", "list the crons", table=True)
    history = add("history", "list the last runs", table=True)
    history.add_argument("name", metavar="NAME", nargs="?", help="of one cron only")
    history.add_argument(
        "--limit", default=20, metavar="N", type=_limit, help="how many runs (20)"
    )
    add("check", "check the registry", table=True)
    add("doctor", "look for what goes wrong in practice", table=True)
    return parser


def command_serve(settings: Settings, options: argparse.Namespace) -> int:
    """Serve until a signal ends it."""
    return Daemon(settings, os.environ).run()


def command_run(settings: Settings, options: argparse.Namespace) -> int:
    """Run a cron in the foreground; return its exit status, 75 if it runs already."""
    import pwd

    check_kernel()
    make_folders(settings)
    check_run_dir(settings.state_dir, settings.run_dir)
    logs = Logs(settings.log_dir)
    log = ServerLog(logs, f"{SERVICE}.log", to_stderr=False)
    messages = MessageSocket(settings.run_dir)
    loop = Loop(log.say)
    store = Store(settings.history, log.say, settings.run_dir)
    registry = _registry(settings)
    scripts = Scripts(service_variables())
    be_plain()
    runner = Runner(
        settings, registry, store, loop, scripts, logs, log.say, messages.send
    )
    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())
    request = Trigger(options.name, "cli", _cli_params(registry, options), client=user)
    with _cancelled_by_signals(runner, loop, user) as started:
        run = runner.trigger(request)
        started.append(run.id)
        active = runner.active(run.id)
        while active and not active.done.is_set():
            loop.step()
    runner.close()
    ended = store.run(run.id) or run
    store.close()
    if store.problem:
        messages.send(run.cron_name)  # a server may take over what was not written
        sys.stderr.write(
            f"{SERVICE}: run {run.id} is recorded later: {store.problem}\n"
        )
    messages.close()
    return ended.exit_code if ended.exit_code is not None else 1


def _registry(settings: Settings) -> Registry:
    """Return the crons that a server would have in force."""
    return Registry(settings.registry, settings.log_dir, kept=settings.kept_registry)


def _cli_params(registry: Registry, options: argparse.Namespace) -> Dict[str, Json]:
    if registry.faults and options.name not in registry.crons():
        raise ConfigError(f"The registry is invalid: {registry.faults[0]}.")
    parameters = registry.get(options.name).parameters
    params: Dict[str, Json] = {}
    for text in options.param:
        name, equals, value = text.partition("=")
        if not equals or name in params:
            raise Refusal(
                "invalid_params",
                f'--param takes KEY=VALUE, each key once, got "{name}".',
            )
        known = parameters.get(name)
        params[name] = known.from_text(value) if known else value
    return params


@contextlib.contextmanager
def _cancelled_by_signals(runner: Runner, loop: Loop, user: str) -> Iterator[List[int]]:
    """Have a signal to this process cancel the run whose id is put into the list."""
    started: List[int] = []

    def cancel() -> None:
        with contextlib.suppress(Refusal):
            for run_id in started:
                runner.cancel(run_id, f"{user} (signal)")

    def handle(number_setting: int, _frame: Any) -> None:
        loop.call_soon(cancel)

    wanted = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    before = {number: signal.signal(number, handle) for number in wanted}
    try:
        yield started
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


COLOURS = {
    COMPLETED: 32,
    FAILED: 31,
    TIMED_OUT: 31,
    INTERRUPTED: 33,
    CANCELLED: 33,
    RUNNING: 36,
}


def print_table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Print aligned columns; a status in colour where a person looks at a terminal."""
    table = [list(heads), *(list(map(printable, row)) for row in rows)]
    widths = [max(len(row[i]) for row in table) for i in range(len(heads))]
    coloured = sys.stdout.isatty() and "NO_COLOR" not in os.environ
    for row in table:
        cells = []
        for cell, width in zip(row, widths):
            colour = COLOURS.get(cell) if coloured else None
            text = f"\x1b[{colour}m{cell}\x1b[0m" if colour else cell
            cells.append(text + " " * (width - len(cell)))
        print("  ".join(cells).rstrip())


def print_json(value: Json) -> None:
    """Print JSON for programs."""
    plain = "utf" not in (sys.stdout.encoding or "").lower()
    print(json.dumps(value, ensure_ascii=plain, indent=2))


def _complain(level: str, text: str) -> None:
    """Tell a person who asks for a table of what is wrong with the history."""
    if level == "error":
        sys.stderr.write(f"{SERVICE}: {text}\n")


def command_list(settings: Settings, options: argparse.Namespace) -> int:
    """List the crons as the page shows them."""
    registry = _registry(settings)
    store = Store(settings.history, _complain, settings.run_dir, read_only=True)
    running: Dict[str, Json] = dict.fromkeys(held_locks(settings.run_dir), EXTERNAL)
    running.update((run.cron_name, run.view()) for run in store.running())
    views = [
        cron_view(cron, store.figures(cron.name), running.get(cron.name))
        for cron in registry.crons().values()
    ]
    store.close()
    if options.json:
        print_json({"crons": views})
    else:
        print_table(
            ("CRON", "STATE", "LAST RUN", "RUNS", "OK", "MEDIAN", "DESCRIPTION"),
            map(_list_row, views),
        )
    for fault in registry.faults:
        sys.stderr.write(f"{fault}\n")
    return EX_CONFIG if registry.faults else int(store.problem is not None)


def _list_row(view: Mapping[str, Json]) -> Tuple[str, ...]:
    last, rate = view["lastRun"], view["successRate"]
    state = RUNNING if view["running"] else (last["status"] if last else "-")
    return (
        view["cronName"],
        state,
        _local_time(last["startedAt"]) if last else "-",
        str(view["runs"]),
        "-" if rate is None else f"{100 * rate:.0f} %",
        duration_text(view["medianDurationMs"]),
        view["description"],
    )


def _local_time(text: str) -> str:
    moment = datetime.fromtimestamp(epoch_of(text))
    return moment.strftime("%Y-%m-%d %H:%M:%S")


def command_history(settings: Settings, options: argparse.Namespace) -> int:
    """List the last runs, newest first."""
    store = Store(settings.history, _complain, settings.run_dir, read_only=True)
    runs = store.runs(cron_name=options.name, limit=options.limit)
    store.close()
    if options.name and not runs:
        _registry(settings).get(options.name)
    if options.json:
        print_json({"runs": [run.view() for run in runs]})
        return int(store.problem is not None)
    print_table(
        ("RUN", "CRON", "STATUS", "STARTED", "TOOK", "EXIT", "BY"),
        (
            (
                str(run.id),
                run.cron_name,
                run.status,
                _local_time(run.started_at),
                duration_text(run.duration_ms),
                run.signal or _or_dash(run.exit_code),
                run.asked_by(),
            )
            for run in runs
        ),
    )
    return int(store.problem is not None)


def _or_dash(value: Optional[int]) -> str:
    return "-" if value is None else str(value)


def command_check(settings: Settings, options: argparse.Namespace) -> int:
    """Check the registry: every fault that it has, then what would fail to start."""
    crons, faults = load_registry(settings.registry, settings.log_dir)
    warnings = []
    scripts = Scripts(service_variables())
    for cron in crons.values():
        fault = scripts.fault(cron)
        if fault:
            warnings.append(f'{settings.registry.name}: "{cron.name}": {fault}')
    if options.json:
        print_json(
            {
                "registry": str(settings.registry),
                "crons": len(crons),
                "faults": faults,
                "warnings": warnings,
            }
        )
        return EX_CONFIG if faults else 0
    for fault in faults:
        print(fault)
    for warning in warnings:
        print(f"warning: {warning}")
    if not faults:
        print(f"{settings.registry}: {len(crons)} crons, well formed")
    return EX_CONFIG if faults else 0


def command_doctor(options: argparse.Namespace, environ: Mapping[str, str]) -> int:
    """Look at what goes wrong in practice; return 0 where nothing is wrong, else 1."""
    try:
        settings = read_settings(vars(options), environ)
        findings = Doctor(settings, environ).findings()
    except ConfigError as error:
        remedy = f"See {ENVIRONMENT_FILE} and the environment."
        findings = [Finding("settings", "wrong", str(error), remedy)]
    wrong = sum(finding.status == "wrong" for finding in findings)
    if options.json:
        print_json({"wrong": wrong, "findings": [asdict(f) for f in findings]})
        return 1 if wrong else 0
    for finding in findings:
        print(f"{finding.status:5}  {finding.name:10}  {printable(finding.text)}")
        if finding.remedy:
            print(f"{'':19}-> {printable(finding.remedy)}")
    print(f"{wrong} wrong" if wrong else "Nothing is wrong.")
    return 1 if wrong else 0


COMMANDS: Dict[Optional[str], Callable[[Settings, argparse.Namespace], int]] = {
    None: command_serve,
    "serve": command_serve,
    "run": command_run,
    "list": command_list,
    "history": command_history,
    "check": command_check,
}
#: The exit status of a command that was refused; others are 1.
EXIT_OF_CODE = {
    "already_running": EX_TEMPFAIL,
    "unknown_cron": EX_USAGE,
    "invalid_params": EX_USAGE,
    "launch_failed": 126,
}


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Do what the arguments say.  Return the exit status; nobody sees a traceback."""
    _prepare_streams()
    try:
        options = _parser().parse_args(argv)
        if options.command not in (None, "serve"):
            # Root's `run` in a crontab must look for locks where the service does, and
            # its scripts have what they have there.
            for name, value in environment_file().items():
                os.environ.setdefault(name, value)
        if options.command == "doctor":  # the settings may be what is wrong
            return command_doctor(options, os.environ)
        settings = read_settings(vars(options), os.environ)
        status = COMMANDS[options.command](settings, options)
        sys.stdout.flush()  # here, where a reader that has gone is no error
        return status
    except ConfigError as error:
        complain(str(error))
        return EX_CONFIG
    except Refusal as refusal:
        complain(refusal.message)
        return EXIT_OF_CODE.get(refusal.code, 1)
    except BrokenPipeError:
        # The reader has seen enough; keep Python from complaining at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
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
    descriptor = os.open(os.devnull, os.O_RDWR)
    while descriptor <= 2:
        descriptor = os.open(os.devnull, os.O_RDWR)
    os.close(descriptor)
    # Python has set those to None that were closed.
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure:
        reconfigure(errors="backslashreplace")


def complain(text: str) -> None:
    """Say why it ends; `journalctl -p err` shows it where systemd started this."""
    priority = f"<{PRIORITIES['error']}>" if stderr_is_journal() else ""
    sys.stderr.write(f"{priority}{SERVICE}: {text}\n")
