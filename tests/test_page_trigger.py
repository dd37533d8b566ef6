"""The page's dialog that starts a cron: what hand, keyboard and network do to it."""

from __future__ import annotations

import fcntl
import re
import unittest
from typing import Any

from beside import beside
from browser import BrowserTest, gone, held_back, sees
from support import wait_until


class BothLanguages(BrowserTest):
    """What a person does; each test in French and in English, by the classes below."""

    def test_a_press_starts_a_cron_and_its_end_is_told_without_a_reload(self) -> None:
        page = self.open()
        dialog = self.press("quick")
        sees(dialog, "A quick one")
        sees(dialog.locator("#trigger-name"), "quick")
        sees(dialog, "2 s")
        self.stop_clock()
        with held_back(page, "**/trigger"):
            self.button("run_now").click()
            sees(dialog.get_by_text(self.say("starting"), exact=True))
        sees(dialog.get_by_text(self.say("started"), exact=True))
        page.clock.run_for(1900)
        sees(dialog)
        page.clock.run_for(200)
        gone(page.get_by_role("dialog"))
        page.clock.resume()
        sees(page.locator(".toast"), self.say("status_completed"))
        sees(self.card("quick"), self.say("status_completed"))
        sees(page.locator("#figure-runs"), "1")
        sees(self.rows().first, "A quick one")
        self.assertEqual(self.asked("/crons"), 1, "the event told it")

    def test_the_keyboard_is_enough(self) -> None:
        from playwright.sync_api import expect

        page = self.open()
        button = self.card("quick").get_by_role("button", name=self.say("run"))
        button.focus()
        page.keyboard.press("Enter")
        sees(page.get_by_role("dialog"))
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        expect(button).to_be_focused()
        page.keyboard.press("Enter")
        sees(page.get_by_role("dialog"))
        for _ in range(5):
            page.keyboard.press("Tab")
            if self.button("run_now").evaluate("b => b === document.activeElement"):
                break
        page.keyboard.press("Enter")
        self.was_said(self.say("started"))
        gone(page.get_by_role("dialog"))
        expect(button).to_be_focused()

    def test_a_cron_that_runs_shows_its_time_and_is_not_started_again(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        card = self.card("slow")
        sees(card, self.say("status_running"))
        sees(card, self.say("about", duration="1 min 30 s"))
        bar = card.get_by_role("progressbar")
        wait_until(lambda: int(bar.get_attribute("aria-valuenow") or 0) >= 1)
        self.press("slow")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("already_running"))
        self.assertEqual(len(self.posts()), 1)
        # It is no longer said once it is no longer so.
        self.server.request("POST", f"/runs/{run_id}/cancel")
        gone(page.locator("#trigger-notice"))
        self.server.trigger("slow")
        sees(page.locator("#trigger-notice"), self.say("already_running"))
        self.button("see_run").click()
        sees(page.locator("#run-title"), "A slow one")

    def test_fields_are_made_from_the_parameters_and_refusals_stand_beside(
        self,
    ) -> None:
        from playwright.sync_api import expect

        page = self.open()
        dialog = self.press("params")
        keep = dialog.get_by_label("Keep")
        expect(keep).to_have_attribute("type", "number")
        expect(keep).to_have_attribute("max", "30")
        expect(dialog.get_by_label("Since")).to_have_attribute("type", "date")
        expect(dialog.get_by_label("Token")).to_have_attribute("type", "password")
        expect(dialog.get_by_label("Verbose")).to_be_checked()
        keep.fill("99")
        dialog.get_by_label("Word").fill("UPPER")
        page.keyboard.press("Enter")
        many = self.say("bad_maximum", limit=30, value=99)
        sees(page.locator("#param-keep-error"), many)
        sees(page.locator("#param-word-error"), "^[a-z]+$")
        expect(keep).to_have_attribute("aria-invalid", "true")
        expect(keep).to_be_focused()
        self.look(f"refused-{self.language}")
        keep.fill("3")
        dialog.get_by_label("Word").fill("lower")
        dialog.get_by_label("Target").select_option("production")
        dialog.get_by_label("Since").fill("2026-11-23")
        dialog.get_by_label("Token").fill("s3cret-token")
        self.button("run_now").click()
        self.was_said(self.say("started"))
        run = self.server.ended(self.server.get("/runs").json["runs"][0]["id"])
        output = self.server.get(f"/runs/{run['id']}/log").text.splitlines()
        self.assertEqual(
            output,
            [
                "CRON_PARAM_KEEP=3",
                "CRON_PARAM_SINCE=2026-11-23",
                "CRON_PARAM_TARGET=production",
                "CRON_PARAM_TOKEN=s3cret-token",
                "CRON_PARAM_VERBOSE=true",
                "CRON_PARAM_WORD=lower",
            ],
        )

    def test_the_language_can_be_switched_and_is_remembered(self) -> None:
        page = self.open()
        other = "en" if self.language == "fr-FR" else "fr"
        self.assertEqual(page.locator("html").get_attribute("lang"), self.language[:2])
        self.button("other_language").click()
        title = self.words["title"][["fr", "en"].index(other)]
        sees(page.get_by_role("heading", level=1), title)
        sees(self.card("quick"), self.words["run"][["fr", "en"].index(other)])
        self.assertEqual(page.locator("html").get_attribute("lang"), other)
        page.reload()
        sees(page.get_by_role("heading", level=1), title)


class InFrench(BothLanguages):
    language = "fr-FR"


class InEnglish(BothLanguages):
    language = "en-GB"


del BothLanguages  # not a test of its own


class Hands(BrowserTest):
    """One press, one run: whatever the hand does."""

    def hold(self, key: str, times: int) -> None:
        """Hold a key: the first press, then as it repeats."""
        for _ in range(times):
            self.page.keyboard.down(key)
            self.page.wait_for_timeout(30)

    def test_a_held_key_opens_the_dialog_and_confirms_nothing(self) -> None:
        page = self.open()
        for name in ("quick", "plain"):
            for key in ("Enter", " "):
                with self.subTest(name, key=key):
                    self.card(name).locator(".card-run").focus()
                    self.hold(key, 30)
                    page.keyboard.up(key)
                    page.wait_for_timeout(100)
                    self.assertEqual(self.posts(), [])
                    page.keyboard.press("Escape")
                    gone(page.get_by_role("dialog"))

    def test_a_key_held_on_the_button_that_starts_goes_no_further(self) -> None:
        page = self.open()
        self.press("slow")
        self.button("run_now").focus()
        page.keyboard.down("Enter")
        self.was_said(self.say("started"))
        self.hold("Enter", 40)
        gone(page.locator("#trigger-dialog"))
        page.keyboard.up("Enter")
        gone(page.locator("#run-dialog"))
        self.assertEqual(len(self.posts()), 1)

    def test_no_dialog_opens_with_a_button_focused_that_does_something(self) -> None:
        run_id = self.server.trigger("slow").json["runId"]
        page = self.open()
        focused = "document.activeElement.id + '/' + document.activeElement.tagName"
        self.press("quick")
        self.assertEqual(page.evaluate(focused), "trigger-title/H2")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.rows().first.click()
        sees(page.locator("#run-cancel"))
        self.assertEqual(page.evaluate(focused), "run-title/H2")
        self.server.request("POST", f"/runs/{run_id}/cancel")

    def test_a_double_click_opens_and_does_not_close(self) -> None:
        page = self.open()
        self.stop_clock()  # a hand's two clicks are close, whatever delays a machine's
        self.card("quick").locator(".card-run").dblclick()
        sees(page.locator("#trigger-dialog"))
        page.clock.run_for(600)
        sees(page.locator("#trigger-dialog"))
        self.assertEqual(self.posts(), [])
        page.mouse.click(5, 400)  # beside it: that closes it
        gone(page.locator("#trigger-dialog"))

    def test_a_double_click_sends_one_trigger(self) -> None:
        page = self.open()
        self.press("quick")
        page.wait_for_timeout(600)
        with held_back(page, "**/trigger"):
            self.button("run_now").dblclick()
        self.was_said(self.say("started"))
        self.assertEqual(len(self.posts()), 1)
        self.assertRegex(self.posts()[0][2]["idempotency-key"], r"^[!-~]{8,64}$")

    def test_each_opened_dialog_has_a_key_of_its_own(self) -> None:
        self.open()
        for name in ("quick", "bad"):
            self.start_now(name)
        keys = {headers["idempotency-key"] for _, _, headers in self.posts()}
        self.assertEqual(len(keys), 2)


class Answers(BrowserTest):
    def test_after_a_lost_answer_another_try_starts_nothing_twice(self) -> None:
        page = self.open()

        def lose_the_answer(route: object) -> None:
            route.fetch()  # type: ignore[attr-defined]
            route.abort()  # type: ignore[attr-defined]

        page.route("**/trigger", lose_the_answer, times=1)
        self.press("quick")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("no_answer"))
        self.button("run_now").click()
        self.was_said(self.say("started"))
        self.assertEqual(len(self.posts()), 2)
        self.assertEqual(len(self.server.get("/runs").json["runs"]), 1)

    def test_after_a_proxys_502_another_try_starts_nothing_twice(self) -> None:
        page = self.open()

        def lose_the_answer(route: Any) -> None:
            route.fetch()
            route.fulfill(status=502, body="Bad Gateway", content_type="text/html")

        page.route("**/trigger", lose_the_answer, times=1)
        self.press("quick")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"))
        self.button("run_now").click()
        self.was_said(self.say("started"))
        self.assertEqual(len(self.posts()), 2)
        self.assertEqual(len(self.server.get("/runs").json["runs"]), 1)

    def test_a_dialog_closed_before_the_answer_leaves_the_next_one_alive(self) -> None:
        page = self.open()
        self.press("quick")
        with held_back(page, "**/trigger"):
            self.button("run_now").click()
            sees(page.locator("#trigger-submit"), self.say("starting"))
            page.keyboard.press("Escape")
            gone(page.locator("#trigger-dialog"))
        sees(self.card("quick"), self.say("status_completed"))
        self.start_now("bad")

    def test_a_script_that_cannot_start_says_why_in_french(self) -> None:
        page = self.open()
        self.press("missing")
        self.button("run_now").click()
        notice = sees(page.locator("#trigger-notice"), self.say("launch_failed"))
        sees(notice, re.compile(r"Le script /\S*missing\.sh est introuvable\."))

    def test_a_refused_origin_is_told_in_french(self) -> None:
        page = self.open()
        answer = {"success": False, "code": "forbidden", "error": "Requests from …"}
        page.route("**/trigger", lambda r: r.fulfill(status=403, json=answer))
        self.press("quick")
        self.button("run_now").click()
        notice = sees(page.locator("#trigger-notice"), "Le serveur refuse cette page")
        self.assertNotIn("Requests from", notice.inner_text())

    def test_a_busy_server_says_when_to_try_again(self) -> None:
        page = self.open()
        answer = {"success": False, "error": "Busy.", "code": "overloaded"}
        page.route(
            "**/trigger",
            lambda route: route.fulfill(
                status=503, json=answer, headers={"Retry-After": "7"}
            ),
        )
        self.press("quick")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("busy", seconds=7))

    def test_a_lock_held_outside_the_server_counts_as_running(self) -> None:
        self.server.completed("quick")
        pid_file = self.server.run_dir / "quick.pid"
        with open(pid_file, "r+b") as held:
            fcntl.flock(held, fcntl.LOCK_EX)
            page = self.open()
            sees(self.card("quick"), self.say("external"))
            self.look("external")
            self.press("quick")
            self.button("run_now").click()
            sees(page.locator("#trigger-notice"), self.say("already_running"))

    def test_the_command_lines_of_it_can_be_copied(self) -> None:
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page = self.open()
        dialog = self.press("params")
        dialog.get_by_label("Keep").fill("3")
        dialog.get_by_label("Token").fill("hidden")
        dialog.get_by_text(self.say("command_line"), exact=True).click()
        curl = sees(page.locator("#command-curl"), f"{self.origin}trigger")
        self.assertIn('"keep":3', curl.inner_text())
        self.assertNotIn("hidden", dialog.inner_text())
        page.get_by_role("button", name=self.say("copy_client")).click()
        line = "cron-trigger trigger params --param target=staging"
        copied = "navigator.clipboard.readText()"
        wait_until(lambda: line in page.evaluate(copied), what="the copy")
        self.look("commands")


load_tests = beside


if __name__ == "__main__":
    unittest.main()
