"""The page's history: filters, its table, its file, durations over time."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import re
import sqlite3
import unittest
from typing import Any

from beside import beside
from browser import BrowserTest, gone, saved, sees
from support import wait_until


class BothLanguages(BrowserTest):
    def test_how_a_run_ended_stands_in_words(self) -> None:
        page = self.open()
        self.server.completed("bad", requestedBy="amina@example.org")
        self.server.completed("shot")
        self.server.trigger("missing")
        sees(self.rows().nth(2), self.say("exit", code=2))
        sees(self.rows().nth(2), "amina@example.org")
        sees(self.rows().nth(2), self.say("by_http"))
        sees(self.rows().nth(1), self.say("killed", signal="SIGKILL"))
        sees(self.rows().nth(0), self.say("status_failed"))
        sees(self.card("bad"), self.say("status_failed"))
        title = self.say("title")
        wait_until(
            lambda: re.match(rf"✕ 3 \S+ · {title}", page.title()), what="the title"
        )

    def test_filters_are_kept_in_the_address(self) -> None:
        from playwright.sync_api import expect

        for name in ("quick", "bad", "quick"):
            self.server.completed(name)
        page = self.open()
        page.get_by_label(self.say("filter_cron")).select_option("quick")
        expect(self.rows()).to_have_count(2)
        page.get_by_label(self.say("filter_status")).select_option("failed")
        expect(self.rows()).to_have_count(0)
        self.assertTrue(page.url.endswith("/#cron=quick&status=failed"), page.url)
        page.reload()
        sees(page.get_by_text(self.say("history_none")))
        self.button("filters_clear").click()
        expect(self.rows()).to_have_count(3)
        page.evaluate("location.hash = 'cron=bad'")
        expect(self.rows()).to_have_count(1)

    def test_columns_have_heads(self) -> None:
        self.server.completed("quick")
        page = self.open()
        sees(self.rows().first)
        heads = page.get_by_role("columnheader").all_inner_texts()
        keys = ("state", "cron", "who", "duration", "started")
        self.assertEqual(heads, [self.say(f"head_{key}") for key in keys])


class InFrench(BothLanguages):
    language = "fr-FR"


class InEnglish(BothLanguages):
    language = "en-GB"


del BothLanguages  # not a test of its own


class History(BrowserTest):
    def test_more_is_fetched_on_demand(self) -> None:
        from playwright.sync_api import expect

        for _ in range(18):
            self.server.completed("quick")
        self.open()
        expect(self.rows()).to_have_count(15)
        self.button("more").click()
        expect(self.rows()).to_have_count(18)
        gone(self.button("more"))

    def test_five_runs_make_the_median_the_usual_duration(self) -> None:
        self.server.script("slow.sh", "#!/bin/sh\nsleep ${CRON_PARAM_S:-0}\n")
        for _ in range(4):
            self.server.completed("slow")
        self.open()
        self.press("slow")
        gone(self.page.get_by_text(self.say("usual"), exact=True))
        self.server.completed("slow")
        self.server.script("slow.sh", "#!/bin/sh\nsleep 30\n")
        self.server.trigger("slow")
        sees(self.card("slow"), re.compile(r"d'habitude .*\d ms"))

    def test_exact_values_stand_in_tooltips_with_the_zone_in_words(self) -> None:
        self.server.completed("quick")
        self.open()
        row = self.rows().first
        title = row.locator(".long span").first.get_attribute("title") or ""
        self.assertRegex(title, r"^[\d\s]+ ms$")
        when = row.locator("time").get_attribute("title") or ""
        self.assertRegex(when, r"\d{4} à \d\d:\d\d:\d\d heure .*Europe centrale")

    def test_by_date_and_by_person(self) -> None:
        from playwright.sync_api import expect

        self.server.completed("quick", requestedBy="amina@example.org")
        self.server.completed("quick", requestedBy="bob@example.org")
        page = self.open()
        page.get_by_text(self.say("more_filters")).click()
        sees(page.locator("#filter-zone"), "Europe centrale")
        who = page.locator("#filter-who")
        who.fill("AMINA")
        who.press("Enter")
        expect(self.rows()).to_have_count(1)
        sees(page.locator("#searched"), self.words["searched"][0].split("{")[0])
        who.fill("")
        who.press("Enter")
        expect(self.rows()).to_have_count(2)
        today = datetime.date.today()
        tomorrow = today + datetime.timedelta(days=2)
        page.locator("#filter-since").fill(tomorrow.isoformat())
        page.locator("#filter-since").blur()
        sees(page.get_by_text(self.say("history_none")))
        page.locator("#filter-since").fill(
            (today - datetime.timedelta(days=2)).isoformat()
        )
        page.locator("#filter-until").fill(tomorrow.isoformat())
        page.locator("#filter-until").blur()
        expect(self.rows()).to_have_count(2)
        self.assertIn(f"until={tomorrow}", page.url)
        self.look("history-filters")

    def test_a_person_is_searched_in_the_whole_history_and_how_far_is_said(
        self,
    ) -> None:
        from playwright.sync_api import expect

        self.server.stop()
        begun = "2026-01-01T00:00:00.000+00:00"
        asked = {200: "amina", 100: "old"}
        rows = [("quick", "completed", begun, asked.get(n)) for n in range(10_300)]
        path = self.server.state_dir / "history.db"
        with contextlib.closing(sqlite3.connect(path)) as db, db:
            db.executemany(
                "insert into cron_executions (cron_name, status, started_at,"
                " duration_ms, trigger, requested_by) values (?, ?, ?, 5, 'http', ?)",
                rows,
            )
        self.server.start("--history-days=36500")
        self.server.completed("quick", requestedBy="amina")
        page = self.open("#who=old")
        none = self.say("history_none_yet", n="10000").replace("10000", "10\u202f000")
        sees(page.locator("#runs-empty"), none)
        self.look("history-searched")
        self.button("search_on").click()
        expect(self.rows()).to_have_count(1)
        gone(self.button("search_on"))
        sees(page.locator("#searched"), "10\u202f301")
        with page.expect_download() as download:
            page.evaluate("location.hash = 'who=amina'")
            sees(page.locator("#searched"), "10\u202f000")
            page.locator("#csv").click()
        text = saved(download).decode("utf-8-sig")
        self.assertEqual(len(list(csv.DictReader(io.StringIO(text)))), 2)

    def test_it_is_downloaded_as_csv(self) -> None:
        for _ in range(17):
            self.server.completed("quick", requestedBy="=1+1")
        self.server.completed("bad")
        page = self.open("#cron=quick")
        with page.expect_download() as download:
            page.locator("#csv").click()
        self.assertEqual(download.value.suggested_filename, "quick-history.csv")
        text = saved(download).decode("utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text)))
        self.assertEqual(len(rows), 17)
        self.assertEqual({row["cronName"] for row in rows}, {"quick"})
        self.assertEqual({row["requestedBy"] for row in rows}, {"'=1+1"})

    def test_a_file_has_the_filters_of_the_press_whatever_comes_meanwhile(self) -> None:
        from playwright.sync_api import expect

        for name in ("quick", "bad") * 3:
            self.server.completed(name)
        page = self.open("#cron=quick")
        expect(self.rows()).to_have_count(3)
        held: list[Any] = []

        def in_small_pages(route: Any) -> None:
            if "before=" in route.request.url:
                route.continue_(url=small(route))
            else:
                held.append(route)

        def small(route: Any) -> str:
            return str(route.request.url).replace("limit=500", "limit=2")

        page.route("**/runs?limit=500*", in_small_pages)
        with page.expect_download() as download:
            page.locator("#csv").click()
            wait_until(lambda: page.evaluate("true") and held, what="the request")
            page.locator("#filter-cron").select_option("bad")
            expect(page).to_have_url(re.compile("#cron=bad$"))
            held[0].continue_(url=small(held[0]))
        self.assertEqual(download.value.suggested_filename, "quick-history.csv")
        rows = list(csv.DictReader(io.StringIO(saved(download).decode("utf-8-sig"))))
        self.assertEqual([row["cronName"] for row in rows], ["quick"] * 3)

    def test_a_late_failure_of_old_filters_is_not_told(self) -> None:
        from playwright.sync_api import expect

        self.server.completed("quick")
        page = self.open()
        held: list[Any] = []
        page.route("**/runs?*cron=bad*", lambda route: held.append(route), times=1)
        page.locator("#filter-cron").select_option("bad")
        wait_until(lambda: page.evaluate("true") and held, what="the request")
        page.locator("#filter-cron").select_option("quick")
        expect(self.rows()).to_have_count(1)
        with page.expect_event("requestfailed"):
            held[0].abort()
        page.evaluate("fetch('health').then((answer) => answer.text())")
        self.assertFalse(page.locator("#runs-empty").is_visible())

    def test_durations_over_time_have_an_axis_and_marks(self) -> None:
        self.server.script(
            "slow.sh", "#!/bin/sh\nsleep 0.$(($(date +%N | tail -c 2)))\n"
        )
        for _ in range(6):
            self.server.completed("slow")
        page = self.open()
        card = self.card("slow")
        card.hover()
        card.get_by_role("button", name=self.say("open_history")).click()
        chart = sees(page.locator("#chart svg"))
        label = chart.get_attribute("aria-label") or ""
        self.assertRegex(label, r"Durée des 6 .* la moitié .* 95 %")
        self.assertEqual(chart.locator("path").count(), 6)
        self.assertGreaterEqual(chart.locator("line.grid").count(), 3)
        sees(chart.locator("text.mark").first, "50 %")
        self.assertIn("ms", chart.locator("path title").first.text_content() or "")
        self.assertTrue(page.url.endswith("#cron=slow"), page.url)
        self.look("chart")
        chart.locator("path").first.click()
        sees(page.locator("#run-title"), "A slow one")


load_tests = beside


if __name__ == "__main__":
    unittest.main()
