"""Composition: which part gets which, in the one place where all are made.

From the floor up, each by its constructor; nothing here starts, listens or waits.  Only
`life` makes it, once.
"""

from __future__ import annotations

import functools
from typing import Optional

from cron_trigger import HOME
from cron_trigger.history.store import Store
from cron_trigger.host.loop import Loop
from cron_trigger.host.networks import own_names
from cron_trigger.host.rates import Rates
from cron_trigger.registry.file import Registry
from cron_trigger.registry.limits import Limits
from cron_trigger.registry.settings import Settings, service_variables
from cron_trigger.runs.ground import Changes, Ground
from cron_trigger.runs.lateness import Lateness
from cron_trigger.runs.logs import Logs, ServerLog
from cron_trigger.runs.runner import Runner
from cron_trigger.runs.schedule import Schedule
from cron_trigger.runs.scripts import Scripts
from cron_trigger.web.access import Access, Sources
from cron_trigger.web.api import Api
from cron_trigger.web.events import Broadcaster
from cron_trigger.web.notifier import Notifier
from cron_trigger.web.page import Page
from cron_trigger.web.places import Places, limits_for
from cron_trigger.web.views import Known, Views


class Parts:
    """All that a server is made of."""

    def __init__(
        self, settings: Settings, main: Loop, logs: Logs, log: ServerLog, limits: Limits
    ) -> None:
        """`main` is the loop of the thread that accepts."""
        self._main, self._log, say = main, log, self.say
        #: Called with a cron's name, with the registry, and after a fault healed.
        self.changes, self.reloads, self.heals = Changes(), Changes(), Changes()
        self.loop = Loop(say)
        # May start its thread `history` at once, if the file has a fault: the one thing
        # here that does.
        self.store = Store(settings.history, say, settings.run_dir, self.heals)
        self.registry = Registry(
            settings.registry,
            settings.log_dir,
            self.reloads,
            settings.kept_registry,
            keeps=True,
        )
        ground = Ground(
            settings, self.registry, self.store, self.loop, say, self.changes
        )
        self.runner = Runner(ground, Scripts(service_variables()), logs)
        self.schedule = Schedule(ground, self.runner)
        self.lateness = Lateness(ground, self.runner)
        self.limits = limits_for(limits)
        self._make_web(settings, self.limits)

    def say(self, level: str, text: str) -> None:
        """Write a line into the server's log.

        The threads of which each hangs the server don't wait for the disk of the log.
        """
        work = functools.partial(self._log.say, level, text)
        if self.loop.is_here() or self._main.is_here():
            self.loop.aside(work)
        else:
            work()

    def _make_web(self, settings: Settings, limits: Limits) -> None:
        names = own_names()
        known = Known(
            self.registry, self.store, self.runner, self.schedule, self.lateness
        )
        self.views = Views(names[0], known)
        # Listeners are called in this order: whoever the broadcaster tells asks the
        # views at once, and they must have forgotten the cron by then.
        self.changes.listen(self.views.forget)
        self.notifier: Optional[Notifier] = None
        if settings.notify_url:
            url, crons = settings.notify_url, self.registry.crons
            self.notifier = Notifier(url, names[0], crons, self.loop, self.say, limits)
        self.broadcaster = Broadcaster(
            self.store,
            self.loop,
            self.views,
            limits.comment_s,
            self.registry.crons,
            self.notifier,
        )
        self.changes.listen(lambda _name: self.broadcaster.wake())
        self.api = Api(
            known,
            self.broadcaster,
            self.views,
            Page(HOME),
            Places(limits.streams, limits.safe_s),
            Places(limits.followers, limits.safe_s),
        )
        self.access = Access(
            settings, Sources(settings.allow), names, Rates(*limits.wrong_secrets)
        )
