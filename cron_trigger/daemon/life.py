"""A server's life: start, serve, stop.

    folders -> locks -> parts -> socket -> what an earlier server left -> waiter thread
        -> accept ... until SIGTERM -> drain -> waiter ends -> close

The main thread and the waiter run a loop each: that of the main thread accepts
connections and does what signals ask for, that of the waiter does the rest.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from typing import Callable, Mapping

from cron_trigger import SERVICE, VERSION
from cron_trigger.daemon.listener import listen, take_over
from cron_trigger.daemon.parts import Parts
from cron_trigger.daemon.place import Place
from cron_trigger.daemon.systemd import Systemd
from cron_trigger.history.owner import own_state
from cron_trigger.host.loop import Loop
from cron_trigger.host.processes import LEADER_S, Reaper, check_kernel
from cron_trigger.host.users import be_plain
from cron_trigger.registry.file import Registry
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.settings import Settings, misspelt
from cron_trigger.registry.texts import printable
from cron_trigger.registry.threads import begin, spare_addresses
from cron_trigger.runs.folders import make_folders
from cron_trigger.runs.logs import Logs, ServerLog
from cron_trigger.web.server import HttpServer


class Daemon:
    """The server: `run` is its whole life."""

    #: A stop waits so long for the requests in work, and once more for the waiter.
    DRAIN_S = 5.0
    SETTLE_S = 0.1

    def __init__(
        self, settings: Settings, environ: Mapping[str, str], limits: Limits
    ) -> None:
        self._settings = settings
        self._limits = limits
        self._misspelt = misspelt(environ)
        self._systemd = Systemd(environ)
        self._logs = Logs(settings.log_dir)
        self._log = ServerLog(self._logs, f"{SERVICE}.log")
        # What systemd shows.  Any thread may set it, without a lock: of two at once the
        # older text may stay, until the next change.
        self._status_shown, self._status_due = "", False
        self._beaten_s = time.monotonic()
        self._main = Loop(lambda level, text: self._parts.say(level, text))
        self._reaper = Reaper()

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT.  Return the exit status."""
        # Before the start: a SIGTERM that comes during it is answered by `_serve`, so
        # no half-made server is left behind.
        with self._main.on_signals(self._answers()):
            self._start()
            try:
                self._serve()
            finally:
                self._stop()
        return 0

    # ---- start

    def _start(self) -> None:
        check_kernel()
        be_plain()
        spare_addresses()
        make_folders(self._settings)
        # Both locks before the history is opened, which moves rows and files: a second
        # server must not come as far as that.
        self._place = Place(self._settings)
        settings = self._settings
        self._state_lock = own_state(settings.state_dir, settings.run_dir)
        self._parts = parts = Parts(
            settings, self._main, self._logs, self._log, self._limits
        )
        self._listener, self._earlier = listen(self._settings, self._systemd)
        # Bound before the history is looked at in `settle`: what `run NAME` records
        # later than that look sends a message, which waits in the socket for the loop.
        self._place.listen(parts)
        parts.runner.check_folder()
        parts.runner.reserve()
        # Before anybody can ask: connections wait in the kernel meanwhile.
        parts.runner.settle()
        self._begin(parts)

    def _begin(self, parts: Parts) -> None:
        """Have everything work: from here on other threads do."""
        parts.views.port = self._listener.getsockname()[1]
        self._http = HttpServer(
            self._listener, parts.api, parts.access, parts.loop, parts.say, parts.limits
        )
        # Before other threads tell of changes: the list of listeners has no lock.
        self._listen_to_changes()
        # After `heals` is listened to: a history that can be read only later is asked
        # again by `_catch_up`.
        parts.schedule.start()
        # Lateness judges in one thread only, so not here.
        parts.loop.aside(parts.lateness.start)
        self._waiter = begin("waiter", parts.loop.run)
        if self._systemd.watchdog_s:
            self._beat()
        self._prune()
        # Last: READY=1 lets systemd start what is ordered after this.
        self._announce()

    def _listen_to_changes(self) -> None:
        parts = self._parts
        for fault in parts.registry.faults:
            self._log.say("error", f"registry: {fault}")
        for warning in self._misspelt:
            self._log.say("warning", warning)
        parts.changes.listen(self._on_change)
        parts.reloads.listen(self._on_registry)
        parts.heals.listen(lambda: parts.loop.aside(self._catch_up))

    def _announce(self) -> None:
        host, port = self._settings.host, self._parts.views.port
        shown = "127.0.0.1" if host in ("0.0.0.0", "::") else host
        shown = f"[{shown}]" if ":" in shown else shown
        with contextlib.suppress(OSError):
            print(f"{SERVICE} listens on http://{shown}:{port}", flush=True)
        count = len(self._parts.registry.crons())
        self._log.say(
            "notice",
            f"{SERVICE} {VERSION} listens on {host}:{port}, with "
            f"{count} crons of {self._settings.registry}",
        )
        self._systemd.notify("READY=1", self._status())

    def _status(self) -> str:
        crons, running = len(self._parts.registry.crons()), self._parts.runner.count()
        faults = self._parts.registry.faults
        fault = f"; the registry is invalid: {printable(faults[0])}" if faults else ""
        return f"STATUS={crons} crons, {running} running{fault}"

    def _beat(self) -> None:
        """Ask the accepting loop for a sign of life, from the waiting thread.

        The sign that reaches systemd has passed through both: if either hangs, it
        does not come.
        """
        self._main.call_soon(self._alive)
        self._parts.loop.call_later(self._systemd.watchdog_s / 3, self._beat)

    def _prune(self) -> None:
        """Prune the history now and once a day, in a thread that ends."""
        age_s = self._settings.history_days * 86400.0

        # It takes the history's lock again and again: requests get in between.
        def work() -> None:
            count = self._parts.store.prune(age_s, pause=lambda: time.sleep(0.005))
            if count:
                self._log.say(
                    "info",
                    f"{count} runs older than "
                    f"{self._settings.history_days} days were pruned",
                )

        # Arranged first: tomorrow there may be memory for the thread again.
        self._parts.loop.call_later(self._limits.prune_every_s, self._prune)
        self._in_a_thread("pruner", work)

    # ---- what happens

    # In the thread that read the file, `registry` or `reload`.
    def _on_registry(self, registry: Registry) -> None:
        """A registry was read that differs from the one before."""
        for fault in registry.faults:
            self._log.say("error", f"registry: {fault}")
        if not registry.faults:
            count = len(registry.crons())
            self._log.say("notice", f"the registry was read again: {count} crons")
            self._parts.store.tell("registry.reloaded", {"crons": count})
            self._parts.runner.reserve()
            self._parts.loop.aside(self._parts.lateness.tick)
            self._parts.changes("")

    def _on_change(self, cron_name: str) -> None:
        if not cron_name:
            self._parts.loop.aside(self._parts.schedule.start)
        if not self._status_due:
            self._status_due = True  # of two at once both may ask
            self._parts.loop.aside(self._show_status)

    # Beside the loop: the registry's file is looked at.
    def _show_status(self) -> None:
        self._status_due = False  # first: what changes from here on is shown, too
        status = self._status()
        if status != self._status_shown:
            self._status_shown = status
            self._systemd.notify(status)

    def _catch_up(self) -> None:
        """Do what could not be done while the history could not be read."""
        self._parts.runner.sync()
        self._parts.changes("")

    # ---- serve

    def _serve(self) -> None:
        take_over(self._http, self._earlier)
        self._main.watch(self._listener.fileno(), self._accept)
        self._main.run()

    def _accept(self, _events: int) -> None:
        self._leave_to_the_next()
        self._http.accept()

    def _alive(self) -> None:
        self._leave_to_the_next()
        self._systemd.notify("WATCHDOG=1")
        self._beaten_s = time.monotonic()

    def _leave_to_the_next(self) -> None:
        """Where systemd is ending us, take nobody: the next server does."""
        limit_s = self._systemd.watchdog_s
        if limit_s and time.monotonic() - self._beaten_s > limit_s:
            time.sleep(0.5)

    def _answers(self) -> dict[int, Callable[[], None]]:
        """Return what signals ask for."""
        answers: dict[int, Callable[[], None]] = {
            signal.SIGTERM: self._main.stop,
            signal.SIGINT: self._main.stop,
            # In a thread of its own: no request waits for a registry.
            signal.SIGHUP: functools.partial(self._in_a_thread, "reload", self._reload),
            signal.SIGIO: self._on_removal,
        }
        # Only as PID 1 of a container do the orphans of scripts become our children.
        if os.getpid() == 1:
            answers[signal.SIGCHLD] = self._reap
        return answers

    def _on_removal(self) -> None:
        """A file was removed in the run folder."""
        # A moment later: who removes a folder does so file by file.
        check = functools.partial(self._parts.loop.aside, self._place.check)
        self._parts.loop.call_later(self.SETTLE_S, check)

    def _reap(self) -> None:
        # In the main thread.  A keeper that a request has just started is our child
        # before it is in `keepers`: it must stay for `Ending`, which needs its exit
        # status, so who is not known yet is left alone for LEADER_S.
        if self._reaper.reap(self._parts.runner.keepers()):
            self._main.call_later(LEADER_S, self._reap)

    def _in_a_thread(self, name: str, work: Callable[[], None]) -> None:
        """Do something that may take long; a host that has no thread is no reason
        for this one to end.
        """
        try:
            begin(name, work)
        except RuntimeError as error:
            self._parts.say("error", f"the thread {name} did not start: {error}")

    def _reload(self) -> None:
        # By it systemd tells this answer from one to an earlier request: sd_notify(3).
        usec = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
        self._systemd.notify("RELOADING=1", f"MONOTONIC_USEC={usec}")
        self._parts.registry.reload()
        self._systemd.notify("READY=1", self._status())

    # ---- stop

    def _stop(self) -> None:
        """Answer what is in work, and go.  Running crons stay with their keepers."""
        self._systemd.notify("STOPPING=1", "STATUS=stopping")
        self._log.say(
            "notice",
            f"{SERVICE} stopping; {self._parts.runner.count()} running crons continue",
        )
        # In this order: nothing new is accepted; who was accepted gets an answer, a
        # trigger too; only then are triggers refused.
        self._http.closing = True
        self._http.drain(self.DRAIN_S)
        self._parts.runner.closing = True
        self._parts.loop.stop()
        self._waiter.join(self.DRAIN_S)
        # It may hang with a disk.  What is not recorded the next server finds in the
        # PID files.
        self._parts.loop.finish_aside(self.DRAIN_S)
        # After the loop, which could begin another ending while this waits for those
        # that have a thread.
        self._parts.runner.close()
        self._parts.broadcaster.close()
        if self._parts.notifier:
            self._parts.notifier.close()
        self._http.close_connections()
        self._listener.close()
        self._place.close()
        # Last, since all of the above may record something.  The two locks go with the
        # process: no other server begins before this one has written everything.
        self._parts.store.close()
