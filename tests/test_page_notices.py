"""What the page tells by itself: that a cron is late, and notifications."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import unittest
from typing import Any

from beside import beside
from browser import CHROMIUMS, BrowserTest, gone, sees, whole_registry
from support import Server, wait_until
from test_page_connection import SET_HIDDEN

#: Real notifications, which are kept as well so that a test can look at them.
KEEP_NOTIFICATIONS = """
window.notices = [];
window.Notification = class extends Notification {
  constructor(title, options) {
    super(title, options);
    const {body, tag} = options;
    notices.push({title, body, tag, shown: false, notice: this});
    const [place] = notices.slice(-1);
    this.addEventListener("show", () => { place.shown = true; });
  }
};
"""
NOTICES = (
    "notices.filter((n) => n.shown).map(({title, body, tag}) => [title, body, tag])"
)


NIGHT = {
    **{"description": "Each hour", "command": ["true"]},
    **{"schedule": "0 * * * *", "late": "1m"},
}


def miss_two_hours(server: Server) -> None:
    """Restart a server as if it had been down while the crontab's time came."""
    port = server.port
    wait_until(lambda: server.rows("select judged_s from schedules"))
    server.stop()
    path = server.state_dir / "history.db"
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("update schedules set judged_s = judged_s - 7200")
    server.start(port=port)


class WithSchedule(BrowserTest):
    """One of the crons should be run by a crontab that nobody has here."""

    chromiums = CHROMIUMS[1:]  # only one with windows has notifications

    def make_server(self) -> Server:
        server = super().make_server()
        server.write_registry({**whole_registry(), "night": NIGHT})
        server.get("/crons")  # so it is read
        return server


class LateTest(WithSchedule):
    def test_a_late_cron_is_told_shown_found_and_over_with_its_next_run(self) -> None:
        page = self.open()
        sees(self.card("night"), self.words["next_run"][0].split("{")[0])
        self.assertNotIn(self.say("late"), self.card("night").inner_text())
        self.assertEqual(page.locator("#only-late").inner_text(), self.say("only_late"))
        miss_two_hours(self.server)
        sees(page.locator(".toast"), self.say("late_told"))
        sees(page.locator(".toast"), "Each hour")
        sees(self.card("night"), self.say("late"))
        late = page.get_by_role("button", name=f"{self.say('only_late')} 1")
        late.click()
        gone(self.card("quick"))
        self.look("late-for-real")
        page.locator(".toast .link").click()
        focused = "document.activeElement.closest('li')?.getAttribute('data-key')"
        self.assertEqual(page.evaluate(focused), "night")
        self.server.completed("night")
        sees(page.locator("#crons-empty"))
        self.button("search_clear").click()
        sees(self.card("night"), self.say("status_completed"))
        self.assertNotIn(self.say("late"), self.card("night").inner_text())

    def test_a_page_that_is_opened_later_shows_it_too(self) -> None:
        miss_two_hours(self.server)
        wait_until(lambda: self.server.get("/crons/night").json["cron"]["late"])
        page = self.open("?x")
        sees(self.card("night"), self.say("late"))
        self.assertEqual(page.locator(".toast").count(), 0)


class Notifications(WithSchedule):
    def setUp(self) -> None:
        super().setUp()
        self.page.add_init_script(KEEP_NOTIFICATIONS)

    def grant(self) -> None:
        self.context.grant_permissions(["notifications"], origin=self.origin)

    def notices(self, count: int) -> list[Any]:
        """Return the notifications that were shown, once there are so many."""
        wait_until(
            lambda: self.page.evaluate(f"{NOTICES}.length") >= count,
            what=f"notification {count}",
        )
        found: list[Any] = self.page.evaluate(NOTICES)
        self.assertEqual(len(found), count)
        return found

    def want(self, pressed: bool) -> None:
        from playwright.sync_api import expect

        self.page.locator("#notify").click()
        expect(self.page.locator("#notify")).to_have_attribute(
            "aria-pressed", str(pressed).lower()
        )

    def test_they_come_in_a_hidden_tab_for_who_wants_them_and_lead_to_the_run(
        self,
    ) -> None:
        self.grant()
        page = self.open()
        self.server.completed("bad")
        sees(page.locator(".toast"))
        self.want(True)
        self.server.completed("quick")  # the tab is seen
        sees(page.locator(".toast"), "A quick one")
        page.evaluate(SET_HIDDEN, True)
        run = self.server.completed("bad")
        (notice,) = self.notices(1)
        self.assertEqual(notice[0], "One that fails")
        self.assertIn(self.say("status_failed"), notice[1])
        self.assertIn(self.say("exit", code=2), notice[1])
        self.assertEqual(notice[2], f"cron-trigger-run-{run['id']}")
        page.evaluate("notices[0].notice.dispatchEvent(new Event('click'))")
        sees(page.locator("#run-number"), str(run["id"]))
        page.evaluate(SET_HIDDEN, False)
        page.keyboard.press("Escape")
        gone(page.locator("#run-dialog"))
        self.open()
        page.evaluate(SET_HIDDEN, True)
        self.server.completed("shot")  # it is still wanted
        self.notices(1)
        page.evaluate(SET_HIDDEN, False)
        self.want(False)
        page.evaluate(SET_HIDDEN, True)
        self.server.completed("bad")
        sees(page.locator(".toast"), "One that fails")
        self.notices(1)

    def test_a_late_cron_is_notified(self) -> None:
        self.grant()
        page = self.open()
        self.want(True)
        page.evaluate(SET_HIDDEN, True)
        miss_two_hours(self.server)
        (notice,) = self.notices(1)
        self.assertEqual(notice[0], "Each hour")
        self.assertIn(self.say("late_told"), notice[1])
        self.assertRegex(notice[2], r"^cron-trigger-late-night-\d{4}-")

    def test_who_has_refused_them_is_told_so(self) -> None:
        self.page.add_init_script(
            "Notification.requestPermission = async () => 'denied'"
        )
        page = self.open()
        self.want(False)
        sees(page.locator(".toast"), re.compile("refuse"))


load_tests = beside


if __name__ == "__main__":
    unittest.main()
