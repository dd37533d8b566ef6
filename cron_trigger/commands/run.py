"""`run NAME`: a cron in the foreground, for a line of a crontab or a person.

Does what the server does for a trigger, with the same rooms below and without a server;
one that is there hears of it.  Promises that the exit status told is the one recorded,
whoever recorded it, and that a run which failed says so on standard error, where cron
makes a mail of it.  One thread, which is the loop's, too.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import signal
import sys
from typing import Iterator, Optional

from cron_trigger import SERVICE
from cron_trigger.commands.place import refuse_guest, registry_of, settings_of
from cron_trigger.commands.terminal import Output, reader_may_go, say, tell, visible
from cron_trigger.history.owner import check_run_dir
from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.host.messages import MessageSocket
from cron_trigger.host.processes import check_kernel
from cron_trigger.host.shortage import insist
from cron_trigger.host.users import be_plain, own_user, unheard
from cron_trigger.registry.errors import ConfigError, Refusal
from cron_trigger.registry.file import Registry
from cron_trigger.registry.records import COMPLETED, Run, Trigger
from cron_trigger.registry.settings import service_variables
from cron_trigger.registry.strict_json import Json
from cron_trigger.runs.folders import make_folders
from cron_trigger.runs.ground import Ground
from cron_trigger.runs.logs import Logs, ServerLog
from cron_trigger.runs.output import RunLog
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.scripts import Scripts

#: How often the output is looked at while somebody sees it.
SHOW_S = 0.05
#: What a mail of cron gets of the output of a run that failed.
TAIL_LINES, TAIL_BYTES = 20, 16 << 10
#: A server that is recording the end just now has so long.
RECORD_S = 10.0


def command(options: argparse.Namespace) -> int:
    """Run a cron in the foreground; return its exit status."""
    refuse_guest(options)
    settings = settings_of(options)
    check_kernel()
    make_folders(settings)
    check_run_dir(settings.state_dir, settings.run_dir)
    logs = Logs(settings.log_dir)
    log = ServerLog(logs, f"{SERVICE}.log", to_stderr=False)
    messages = MessageSocket(settings.run_dir)
    loop = Loop(log.say)

    def changed(name: str) -> None:
        messages.send(name)
        loop.call_soon(lambda: None)  # it looks at `done` in there

    store = Store(settings.history, log.say, settings.run_dir)
    registry = registry_of(settings)
    ground = Ground(settings, registry, store, loop, log.say, changed)
    be_plain()
    runner = Runner(ground, Scripts(service_variables()), logs)
    params = typed_params(registry, options.name, options.param)
    user = own_user().name
    request = Trigger(options.name, "cli", params, client=user)
    with _cancelled_by_signals(runner, loop, user) as started:
        ended = _run(request, runner, loop, store, started, options.output)
        runner.close()
        store.close()
        if store.problem:
            # A server may take over what could not be written.
            messages.send(ended.cron_name)
            say(f"run {ended.id} is recorded later: {store.problem}")
        messages.close()
    # The row's own; a run that was interrupted has none.
    return 1 if ended.exit_code is None else ended.exit_code


def typed_params(registry: Registry, name: str, texts: list[str]) -> dict[str, Json]:
    """Return the values of `--param KEY=VALUE`, each of its parameter's type."""
    if registry.faults and name not in registry.crons():
        raise ConfigError(f"The registry is invalid: {registry.faults[0]}.")
    parameters = registry.get(name).parameters
    return {
        key: parameters[key].from_text(value) if key in parameters else value
        for key, value in split_params(texts).items()
    }


def split_params(texts: list[str]) -> dict[str, str]:
    """Return KEY and VALUE of each `--param`; else `invalid_params`."""
    values: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or key in values:
            why = f'--param takes KEY=VALUE, each key once, got "{key}".'
            raise Refusal("invalid_params", why)
        values[key] = value
    return values


def _run(
    request: Trigger,
    runner: Runner,
    loop: Loop,
    store: Store,
    started: list[int],
    wanted: bool,
) -> Run:
    """Start it and wait for its end; return the run as it is recorded."""
    run = runner.trigger(request)
    started.append(run.id)
    on_terminal = sys.stdout.isatty()
    shown = _Shown(run) if wanted or on_terminal else None
    active = runner.active(run.id)
    while active and not active.done.is_set():
        loop.step(SHOW_S if shown else None)
        # Behind the output stands another line once the keeper was reaped.
        end = shown.log.end() if shown and shown.log.descriptor is not None else 0
        if shown and insist(active.alive):
            shown.show(end)
    loop.step(0)  # what the end has left to be told
    ended = _recorded(run, store, loop)
    if shown:
        shown.show(None, ended)
    if ended.status != COMPLETED:
        _say_failed(ended, shown is not None and on_terminal and sys.stderr.isatty())
    return ended


def _recorded(run: Run, store: Store, loop: Loop) -> Run:
    """Return the run as it is in the history once its end is there."""
    left = round(RECORD_S / SHOW_S)
    found: Optional[Run] = store.run(run.id)
    # None where the history can't be read at the moment.
    while (found is None or found.running) and left:
        loop.step(SHOW_S)
        found, left = store.run(run.id), left - 1
    return found or run


class _Shown:
    """The output of a run on its way to standard output."""

    def __init__(self, run: Run) -> None:
        self.log = insist(lambda: RunLog(run))
        self._place = self.log.start
        self._output = Output(sys.stdout)

    def show(self, end: Optional[int], ended: Optional[Run] = None) -> None:
        """Show what came since, as far as the place `end`; of an ended run all."""
        if self.log.descriptor is None:
            return
        if ended is not None:
            self.log.run = ended
        # Who looked at it may have gone; the run goes on, and is waited for.
        with reader_may_go(sys.stdout, OSError):
            for block in self.log.blocks(self._place, end or self.log.end()):
                self._place += len(block)
                self._output.write(block)
            if ended is not None:
                self._output.write(b"", last=True)
        if ended is not None:
            self.log.close()


def _say_failed(run: Run, seen: bool) -> None:
    """Say on standard error what became of a run, and the last lines of its output."""
    say(f"run {run.id} of {run.cron_name} {run.status}: {run.outcome()}")
    log = insist(lambda: RunLog(run))
    if log.descriptor is not None and not seen:
        end = log.end()
        begin = max(log.tail_start(end, TAIL_LINES), end - TAIL_BYTES)
        data = b"".join(log.blocks(begin, end))
        text = visible(data.decode("utf-8", "backslashreplace"))
        tell(text if text.endswith("\n") or not text else text + "\n")
    log.close()


@contextlib.contextmanager
def _cancelled_by_signals(runner: Runner, loop: Loop, user: str) -> Iterator[list[int]]:
    """Have a signal to this process cancel the run whose id is put into the list."""
    started: list[int] = []

    def cancel() -> None:
        with contextlib.suppress(Refusal):
            for run_id in started:
                insist(functools.partial(runner.cancel, run_id, f"{user} (signal)"))

    asked = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
    # Under nohup(1) the end of a terminal ends nothing.
    wanted = [number for number in asked if signal.getsignal(number) is not unheard]
    with loop.on_signals(dict.fromkeys(wanted, cancel)):
        yield started
