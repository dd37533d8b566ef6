"""The page's planned triggers: made, shown, changed, run now, cancelled."""

from __future__ import annotations

import datetime
import unittest
from typing import Any

from beside import beside
from browser import BrowserTest, gone, sees
from support import wait_until


class PlanTest(BrowserTest):
    def plans(self, status: str = "pending") -> list[Any]:
        listed = self.server.get("/scheduled").json["scheduled"]
        return [plan for plan in listed if plan["status"] == status]

    def plan(self, run_at: str = "2099-01-01T09:00:00+00:00", **params: Any) -> None:
        reply = self.server.trigger("plain", runAt=run_at, params=params)
        self.assertEqual(reply.status, 202, reply.text)


class BothLanguages(PlanTest):
    def test_a_planned_trigger_is_shown_in_words_listed_and_cancelled(self) -> None:
        page = self.open()
        self.press("quick")
        self.button("plan").click()
        at = page.get_by_label(self.say("plan_at"))
        at.fill("2020-01-01T10:00")
        month = {"fr-FR": "1 janvier 2020", "en-GB": "1 January 2020"}
        sees(page.locator("#plan-words"), self.say("plan_past", when="").rstrip(" ."))
        self.button("plan_send").click()
        self.assertEqual(self.posts(), [])
        at.fill("2099-01-01T10:00")
        words = month[self.language].replace("2020", "2099")
        zone = {"fr-FR": "Europe centrale", "en-GB": "Central European"}
        sees(page.locator("#plan-words"), words)
        sees(page.locator("#plan-words"), zone[self.language])
        self.look(f"plan-{self.language}")
        self.button("plan_send").click()
        self.was_said(words)
        planned = self.plans()[0]
        at_utc = datetime.datetime.fromisoformat(planned["runAt"]).astimezone(
            datetime.timezone.utc
        )
        self.assertEqual(at_utc.isoformat(), "2099-01-01T09:00:00+00:00")
        gone(page.get_by_role("dialog"))
        row = sees(page.locator("#planned > li"), "A quick one")
        cancel = row.get_by_role("button").last
        label = cancel.get_attribute("aria-label")
        sees(cancel, self.say("plan_cancel"))
        cancel.click()
        sees(cancel, self.say("plan_confirm"))
        wait_until(lambda: cancel.inner_text() == self.say("plan_cancel"))
        self.assertEqual(cancel.get_attribute("aria-label"), label)
        cancel.click()
        cancel.click()
        sees(page.locator("#planned > li"), self.say("status_cancelled"))
        self.assertEqual(len(self.plans("cancelled")), 1)


class InFrench(BothLanguages):
    language = "fr-FR"


class InEnglish(BothLanguages):
    language = "en-GB"


del BothLanguages  # not a test of its own


class Plans(PlanTest):
    def test_two_of_one_cron_tell_their_parameters(self) -> None:
        self.plan(target="staging", keep=1)
        self.plan(target="production", keep=2)
        page = self.open()
        rows = page.locator("#planned > li .plan-params").all_inner_texts()
        self.assertEqual(
            rows, ["target = staging · keep = 1", "target = production · keep = 2"]
        )
        self.look("plans")

    def test_months_are_written_out(self) -> None:
        soon = datetime.datetime.now(datetime.timezone.utc)
        self.plan((soon + datetime.timedelta(days=122)).isoformat(timespec="seconds"))
        self.open()
        sees(self.page.locator("#planned > li"), "dans 4 mois")

    def test_one_can_be_changed(self) -> None:
        self.plan(target="production", keep=4)
        page = self.open()
        self.page.locator("#planned").get_by_text(self.say("plan_change")).click()
        dialog = sees(page.locator("#trigger-dialog"))
        sees(dialog, self.words["plan_changing"][0].split(" {")[0].split("{")[0][:30])
        self.assertEqual(dialog.get_by_label("Keep").input_value(), "4")
        at = page.get_by_label(self.say("plan_at"))
        self.assertEqual(at.input_value(), "2099-01-01T10:00")
        at.fill("2099-02-01T10:00")
        dialog.get_by_label("Keep").fill("5")
        self.look("plan-change")
        self.button("plan_send").click()
        gone(dialog)
        planned = self.plans()
        self.assertEqual(len(planned), 1)
        self.assertEqual(planned[0]["params"], {"target": "production", "keep": 5})
        self.assertTrue(planned[0]["runAt"].startswith("2099-02-01"))

    def test_its_seconds_are_kept_when_it_is_changed(self) -> None:
        at = {"type": "string", "format": "date-time", "title": "At"}
        entry = {"command": "plain.sh", "description": "At", "parameters": {"at": at}}
        self.server.write_registry({"plain": entry})
        wait_until(lambda: len(self.server.get("/crons").json["crons"]) == 1)
        self.plan("2099-01-01T09:00:45+00:00", at="2026-11-01T10:20:30+00:00")
        page = self.open()
        page.locator("#planned").get_by_text(self.say("plan_change")).click()
        dialog = sees(page.locator("#trigger-dialog"))
        self.button("plan_send").click()
        gone(dialog)
        planned = self.plans()[0]
        moments = [
            datetime.datetime.fromisoformat(text).timestamp()
            for text in (planned["runAt"], planned["params"]["at"])
        ]
        self.assertEqual([moment % 60 for moment in moments], [45, 30])

    def test_one_can_be_run_now(self) -> None:
        self.plan(target="production", keep=4)
        page = self.open()
        now = page.locator("#planned").get_by_text(self.say("plan_now"))
        now.click()
        self.assertEqual(self.server.get("/runs").json["runs"], [])
        page.locator("#planned").get_by_text(self.say("plan_confirm")).click()
        sees(self.rows().first, "With plain parameters")
        self.assertEqual(self.plans(), [])
        run = self.server.get("/runs").json["runs"][0]
        self.assertEqual(run["params"], {"target": "production", "keep": 4})

    def test_one_that_started_meanwhile_is_not_started_again(self) -> None:
        self.plan(target="production")
        page = self.open()
        self.page.locator("#planned").get_by_text(self.say("plan_change")).click()
        dialog = sees(page.locator("#trigger-dialog"))
        plan = self.plans()[0]
        self.server.request("DELETE", f"/scheduled/{plan['id']}")
        self.button("plan_send").click()
        sees(dialog, self.say("plan_over"))
        self.assertEqual(self.plans(), [])
        self.assertEqual(self.posts(), [])

    def test_one_that_could_not_be_made_anew_is_not_lost_silently(self) -> None:
        self.plan(target="production")
        page = self.open()
        self.page.locator("#planned").get_by_text(self.say("plan_change")).click()
        dialog = sees(page.locator("#trigger-dialog"))
        page.route("**/trigger", lambda r: r.fulfill(status=503, json={}), times=1)
        self.button("plan_send").click()
        sees(dialog, self.say("plan_lost"))
        self.button("plan_send").click()
        gone(dialog)
        self.assertEqual(len(self.plans()), 1)


load_tests = beside


if __name__ == "__main__":
    unittest.main()
