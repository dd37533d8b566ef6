"""The page's view of one run: whose it is, what can be done with it, and Back."""

from __future__ import annotations

import re
import threading
import unittest
from typing import Any, Callable

from beside import beside
from browser import BrowserTest, gone, held_back, sees
from page_proxy import proxy
from support import wait_until


class WhoseRun(BrowserTest):
    """What answers late shows nowhere."""

    def slow_answer(self, run_id: int) -> threading.Event:
        """Hold the answers of one run back until the event is set."""
        release = threading.Event()
        held = f"**/runs/{run_id}"

        def hold(route: Any) -> None:
            if release.is_set():
                route.continue_()
            else:
                self.held.append(route)

        self.held: list[Any] = []
        self.page.route(held, hold)
        return release

    def until(self, predicate: Callable[[], Any], what: str) -> None:
        """Wait for what Playwright tells; it does so only while it is asked."""

        def look() -> Any:
            self.page.wait_for_timeout(20)
            return predicate()

        wait_until(look, what=what)

    def test_an_answer_that_comes_late_never_shows_under_another_run(self) -> None:
        first = self.server.completed("bad")["id"]
        second = self.server.completed("markup")["id"]
        page = self.open()
        self.slow_answer(first)
        self.rows().nth(1).click()
        self.until(lambda: self.held, "the request")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.rows().nth(0).click()
        sees(page.locator("#log"), "red plain end")
        self.held[0].continue_()
        page.wait_for_timeout(400)
        self.assertIn(f"run={second}", page.url)
        sees(page.locator("#run-number"), str(second))
        sees(page.locator("#run-title"), "Markup")
        sees(page.locator("#run-facts"), self.say("status_completed"))
        self.assertNotIn("went wrong", page.locator("#log").inner_text())

    def test_another_run_in_the_same_dialog_drops_the_first(self) -> None:
        first = self.server.completed("bad")["id"]
        second = self.server.completed("markup")["id"]
        page = self.open()
        self.slow_answer(first)
        page.evaluate(f"location.hash = 'run={first}'")
        self.until(lambda: self.held, "the request")
        page.evaluate(f"location.hash = 'run={second}'")
        sees(page.locator("#log"), "red plain end")
        self.held[0].continue_()
        page.wait_for_timeout(400)
        sees(page.locator("#run-title"), "Markup")
        self.assertNotIn("went wrong", page.locator("#log").inner_text())

    def test_closing_before_the_answer_leaves_no_stream_behind(self) -> None:
        run_id = self.server.trigger("slow").json["runId"]
        page = self.open()
        self.slow_answer(run_id)
        self.rows().first.click()
        self.until(lambda: self.held, "the request")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.held[0].continue_()
        page.wait_for_timeout(400)
        logs = [url for _, url, _ in self.sent if f"runs/{run_id}/log" in url]
        self.assertEqual(logs, [])
        self.server.request("POST", f"/runs/{run_id}/cancel")

    def test_closing_ends_the_stream(self) -> None:
        run_id = self.server.trigger("slow").json["runId"]
        page = self.open()
        self.rows().first.click()
        sees(page.locator("#log"), re.compile(r"step \d"))
        ended: list[str] = []
        page.on("requestfailed", lambda request: ended.append(request.url))
        page.keyboard.press("Escape")
        self.until(lambda: [u for u in ended if "follow" in u], "the end of the stream")
        self.server.request("POST", f"/runs/{run_id}/cancel")


class Doing(BrowserTest):
    def test_a_running_cron_is_followed_and_cancelled(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        sees(self.rows().first, self.say("status_running"))
        self.rows().first.click()
        sees(page.locator("#log"), re.compile(r"step \d\d"))
        self.assertIn(f"run={run_id}", page.url)
        cancel = page.locator("#run-cancel")
        cancel.click()
        sees(cancel, self.say("cancel_confirm"))
        cancel.click()
        sees(page.locator("#run-facts"), self.say("status_cancelled"))
        gone(cancel)
        sees(page.locator(".toast"), self.say("status_cancelled"))
        self.assertEqual(self.server.run(run_id)["status"], "cancelled")

    def test_an_armed_button_is_again_what_it_was(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        self.rows().first.click()
        cancel = page.locator("#run-cancel")
        cancel.click()
        sees(cancel, self.say("cancel_confirm"))
        first_words = self.say("cancel_run")
        wait_until(lambda: cancel.inner_text() == first_words, what="the first words")
        self.assertEqual(self.server.run(run_id)["status"], "running")
        self.server.request("POST", f"/runs/{run_id}/cancel")

    def test_a_run_that_is_being_cancelled_says_so(self) -> None:
        go = self.server.folder / "go"
        self.server.script(
            "slow.sh",
            f"#!/bin/sh\ntrap 'until [ -e {go} ]; do sleep 0.01; done; exit 1' TERM\n"
            "echo ready\nsleep 60 &\nwait\n",
        )
        page = self.open()
        self.server.trigger("slow")
        self.rows().first.click()
        sees(page.locator("#log"), "ready")
        cancel = page.locator("#run-cancel")
        cancel.click()
        cancel.click()
        sees(cancel, self.say("cancelling"))
        sees(page.locator("#run-facts"), self.say("stopping"))
        self.assertTrue(cancel.is_disabled())
        go.touch()
        gone(cancel)

    def test_a_cancel_that_came_too_late_leaves_no_button_to_cancel(self) -> None:
        go = self.server.folder / "go"
        self.server.script(
            "bad.sh", f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.01; done\nexit 2\n"
        )
        page = self.page
        self.open_run(self.server.trigger("bad").json["runId"])
        cancel = sees(page.locator("#run-cancel"))
        with held_back(page, "**/cancel"):
            cancel.click()
            cancel.click()
            sees(cancel, self.say("cancelling"))
            go.touch()
            sees(page.locator("#run-facts"), self.say("status_failed"))
        sees(page.locator("#run-notice"))
        sees(page.locator("#run-again"))
        self.assertFalse(cancel.is_visible())

    def test_it_is_started_again_with_the_same_parameters(self) -> None:
        params = {"target": "production", "keep": 7}
        run = self.server.completed("plain", params=params)
        page = self.page
        self.open_run(run["id"])
        self.button("rerun").click()
        sees(page.locator("#run-number"), str(run["id"] + 1))
        again = self.server.ended(run["id"] + 1)
        self.assertEqual(again["params"], params)
        sees(page.locator("#run-facts"), self.say("status_completed"))
        self.look("rerun")

    def test_again_after_a_lost_answer_starts_nothing_twice(self) -> None:
        run = self.server.completed("quick")
        page = self.page
        self.open_run(run["id"])

        def lose_the_answer(route: Any) -> None:
            route.fetch()
            route.abort()

        page.route("**/trigger", lose_the_answer, times=1)
        self.button("rerun").click()
        sees(page.locator("#run-notice"), self.say("no_answer"))
        self.button("rerun").click()
        sees(page.locator("#run-number"), str(run["id"] + 1))
        self.assertEqual(len(self.posts()), 2)
        self.assertEqual(len(self.server.get("/runs").json["runs"]), 2)

    def test_secret_parameters_are_asked_for_before_it_is_started_again(self) -> None:
        run = self.server.completed("params", params={"keep": 7, "token": "secret-1"})
        self.open_run(run["id"])
        self.button("rerun").click()
        dialog = sees(self.page.locator("#trigger-dialog"), self.say("secret_again"))
        self.assertEqual(dialog.get_by_label("Keep").input_value(), "7")
        self.assertEqual(dialog.get_by_label("Token").input_value(), "")
        self.assertEqual(self.posts(), [])

    def test_parameters_stand_one_below_the_other(self) -> None:
        from playwright.sync_api import expect

        params = {"target": "production", "keep": 7}
        run = self.server.completed("plain", params=params)
        self.open_run(run["id"])
        lines = self.page.locator("#run-facts .parameters li")
        expect(lines).to_have_text(["target = production", "keep = 7"])

    def test_a_run_leads_to_its_cron_and_to_its_history(self) -> None:
        from playwright.sync_api import expect

        run = self.server.completed("long")
        self.server.completed("quick")
        page = self.page
        self.open_run(run["id"])
        self.button("to_cron").click()
        gone(page.get_by_role("dialog"))
        expect(self.card("long").locator(".card-run")).to_be_focused()
        page.evaluate(f"location.hash = 'run={run['id']}'")
        sees(page.locator("#run-dialog")).get_by_text(
            self.say("open_history"), exact=True
        ).click()
        gone(page.get_by_role("dialog"))
        expect(self.rows()).to_have_count(1)
        expect(page).to_have_url(re.compile("#cron=long$"))

    def test_a_run_that_is_gone_says_so(self) -> None:
        self.open("#run=999")
        sees(self.page.locator("#run-notice"), self.say("run_missing"))


class Back(BrowserTest):
    options = {"viewport": {"width": 360, "height": 740}, "has_touch": True}

    def test_back_closes_the_run_and_stays_on_the_page(self) -> None:
        self.server.completed("quick")
        page = self.open()
        self.rows().first.click()
        sees(page.locator("#run-dialog"))
        page.go_back()
        gone(page.get_by_role("dialog"))
        self.assertTrue(page.url.startswith(self.origin))
        self.assertNotIn("run=", page.url)
        page.go_forward()
        sees(page.locator("#run-dialog"))

    def test_back_closes_the_dialog_that_starts(self) -> None:
        page = self.open()
        self.press("quick")
        page.go_back()
        gone(page.get_by_role("dialog"))
        self.assertTrue(page.url.startswith(self.origin))
        self.assertEqual(self.posts(), [])

    def test_closing_leaves_no_entry_behind(self) -> None:
        page = self.page
        page.goto("about:blank")
        self.open()
        for _ in range(3):
            self.press("quick")
            page.keyboard.press("Escape")
            gone(page.get_by_role("dialog"))
            wait_until(lambda: not page.evaluate("history.state?.layer"))
        page.go_back()
        self.assertEqual(page.url, "about:blank")

    def test_back_after_starting_and_looking_at_the_run(self) -> None:
        page = self.open()
        self.press("slow")
        self.stop_clock()  # or the dialog would close by itself
        self.button("run_now").click()
        self.button("see_run").click()
        sees(page.locator("#run-dialog"))
        page.go_back()
        gone(page.get_by_role("dialog"))
        self.assertEqual(page.url, self.origin)


class Resuming(BrowserTest):
    def test_a_live_log_goes_on_after_a_restart_without_a_line_lost_or_doubled(
        self,
    ) -> None:
        self.server.script(
            "slow.sh",
            "#!/bin/sh\ni=0\nwhile [ $i -lt 90 ]; do printf 'stép %d\\n' $i; "
            "i=$((i+1)); sleep 0.1; done\n",
        )
        run_id = self.server.trigger("slow").json["runId"]
        page = self.page
        log = self.open_run(run_id)
        sees(log, re.compile(r"stép [2-9]\d"))
        self.restart()
        gone(page.locator("#log-live"), 60000)
        sees(log.get_by_text("stép 89", exact=True))
        sees(page.locator("#run-facts"), self.say("status_completed"))
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.button("copy").click()
        self.was_said(self.say("copied"))
        copied = page.evaluate("navigator.clipboard.readText()")
        self.assertEqual(copied.splitlines(), [f"stép {i}" for i in range(90)])

    def test_a_stream_that_a_proxy_cuts_is_resumed(self) -> None:
        run_id = self.server.trigger("slow").json["runId"]
        with proxy(self.server.port) as middle:
            page = self.page
            page.goto(f"{middle.origin}#run={run_id}")
            log = page.locator("#log")
            sees(log, re.compile(r"step \d\d"))
            middle.cut()
            sees(log, re.compile(r"step ([4-9]\d|\d{3})"))
            numbers = log.locator(".log-line").all_inner_texts()
            self.assertEqual(len(numbers), len(set(numbers)))
            self.server.request("POST", f"/runs/{run_id}/cancel")
            gone(page.locator("#log-live"))
        self.elsewhere.clear()


load_tests = beside


if __name__ == "__main__":
    unittest.main()
