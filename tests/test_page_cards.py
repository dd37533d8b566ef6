"""The page's cards: what they tell, how they are found, and three hundred of them."""

from __future__ import annotations

import contextlib
import datetime
import re
import sqlite3
import unittest
from typing import TYPE_CHECKING, Any, Callable

from beside import beside
from browser import PLAIN, BrowserTest, gone, sees
from support import Server, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Page


class Card(BrowserTest):
    def change_crons(self, change: Callable[[dict[str, Any]], None]) -> None:
        """Have /crons answer with what `change` makes of each entry."""

        def answer(route: Any) -> None:
            body = self.server.get("/crons").json
            for cron in body["crons"]:
                change(cron)
            route.fulfill(json=body)

        self.page.route("**/crons", answer)

    def test_the_next_time_and_being_late_are_told(self) -> None:
        soon = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(
            hours=3
        )

        def change(cron: dict[str, Any]) -> None:
            if cron["cronName"] in ("quick", "bad"):
                cron["schedule"] = "0 3 * * *"
                cron["nextRunAt"] = soon.isoformat(timespec="seconds")
                cron["late"] = cron["cronName"] == "bad"

        self.change_crons(change)
        page = self.open()
        sees(self.card("quick"), "prochaine exécution dans 3 heures")
        title = self.card("quick").locator(".card-next").get_attribute("title") or ""
        self.assertIn("Europe centrale", title)
        self.assertIn("heure de l'hôte", title)
        sees(self.card("bad"), "en retard")
        self.assertNotIn("en retard", self.card("quick").inner_text())
        page.get_by_role("button", name="en retard 1").click()
        gone(self.card("quick"))
        sees(self.card("bad"))
        self.look("late")

    def test_a_bar_tells_its_run_and_opens_it(self) -> None:
        self.server.completed("bad")
        self.server.completed("bad")
        page = self.open()
        spark = self.card("bad").locator(".spark")
        self.assertIn("2", spark.get_attribute("aria-label") or "")
        box = spark.bounding_box()
        assert box
        page.mouse.move(box["x"] + box["width"] - 4, box["y"] + 20)
        sees(spark.locator(".pointed"))
        self.assertIn("Échec", spark.locator("title").text_content() or "")
        page.mouse.click(box["x"] + box["width"] - 4, box["y"] + 20)
        sees(page.locator("#run-number"), "2")

    def test_each_card_is_one_stop_and_arrows_go_on(self) -> None:
        from playwright.sync_api import expect

        self.server.completed("quick")
        page = self.open()
        run = self.card("quick").locator(".card-run")
        run.focus()
        page.keyboard.press("Tab")
        expect(self.card("slow").locator(".card-run")).to_be_focused()
        page.keyboard.press("ArrowUp")
        expect(run).to_be_focused()
        page.keyboard.press("ArrowRight")
        expect(self.card("quick").locator(".card-state")).to_be_focused()
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
        expect(page).to_have_url(re.compile("#cron=quick$"))

    def test_unknown_progress_claims_no_share_where_nothing_may_move(self) -> None:
        self.context.close()
        self.context = self.make_context(reduced_motion="reduce")
        self.page = self.new_page(self.context)
        self.server.script("bad.sh", "#!/bin/sh\nsleep 20\n")
        page = self.open()
        self.server.trigger("bad")
        bar = sees(self.card("bad").get_by_role("progressbar"))
        self.assertIsNone(bar.get_attribute("aria-valuenow"))
        share = "b => b.firstChild.offsetWidth / b.offsetWidth"
        self.assertEqual(bar.evaluate(share), 1)
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)

    def test_a_toast_lies_over_no_button(self) -> None:
        page = self.open()
        covered = """() => {
          const t = document.querySelector(".toast").getBoundingClientRect();
          const others = [...document.querySelectorAll("button:not(.toast button)")];
          return others.filter((b) => {
            const r = b.getBoundingClientRect();
            const beside = r.left >= t.right || t.left >= r.right;
            const apart = beside || r.top >= t.bottom || t.top >= r.bottom;
            return b.checkVisibility() && r.width && !apart && !b.closest("main");
          }).map((b) => b.id || b.textContent);
        }"""
        for width, height in ((1200, 800), (800, 700), (360, 740)):
            with self.subTest(width):
                page.set_viewport_size({"width": width, "height": height})
                page.evaluate("scrollTo(0, 0)")
                self.server.completed("bad")
                sees(page.locator(".toast"))
                self.assertEqual(page.evaluate(covered), [])
                top = "document.querySelector('main').getBoundingClientRect().top"
                below = (
                    "document.querySelector('.toast').getBoundingClientRect().bottom"
                )
                self.assertLessEqual(page.evaluate(below), page.evaluate(top))
                self.look(f"toast-{width}")


class Language(BrowserTest):
    def title_of(self, *languages: str) -> str:
        page = self.new_page(self.make_context())
        page.add_init_script(
            "Object.defineProperty(navigator, 'languages', "
            f"{{value: {list(languages)}}})"
        )
        page.goto(self.origin)
        sees(page.locator("#connection"))
        self.look(f"language-{languages[0]}", page)
        return page.get_by_role("heading", level=1).inner_text()

    def test_the_browsers_languages_decide(self) -> None:
        self.assertEqual(self.title_of("ar-TN", "fr-FR"), "Déclenchement Manuel")
        self.assertEqual(self.title_of("de-DE"), "Manual Triggering")
        self.assertEqual(self.title_of("de-DE", "en-US", "fr"), "Manual Triggering")


PREFIXES = ("backup", "billing", "db", "index", "mail", "monitor", "report", "sync")
LONG = "une description assez longue, qui dit ce que fait ce cron et pour qui"

WATCH = """
new MutationObserver((_, observer) => {
  const now = performance.now();
  const card = document.querySelector("#grid .card-run");
  if (card) window.firstCard ??= now;
  if (!window.usable && window.firstCard && document.querySelector("#runs tr")) {
    window.usable = now;
    observer.disconnect();
  }
}).observe(document, {subtree: true, childList: true});
"""

TAB_STOPS = """[...document.querySelectorAll(
  "a[href], button, input, select, summary, [tabindex]")].filter((e) => e.tabIndex >= 0
  && !e.disabled && !e.closest("dialog") && e.checkVisibility())"""


def many_crons() -> dict[str, Any]:
    names = [f"{PREFIXES[n % 8]}-{n:03}" for n in range(299)]
    registry = {
        name: {
            "command": "bad.sh",
            "description": f"Tâche {name} : {LONG}",
            "parameters": PLAIN,
        }
        for name in names
    }
    registry["alone"] = {"command": "bad.sh", "description": "Sauvegardé à l'été"}
    return registry


class ThreeHundred(BrowserTest):
    def make_server(self) -> Server:
        registry = many_crons()
        server = Server(registry, start=False)
        self.addCleanup(server.__exit__)
        server.script("bad.sh", "#!/bin/sh\nexit 2\n")
        server.start()
        server.stop()
        make_up_runs(server, list(registry))
        return server.start()

    def test_they_are_there_quickly_with_few_elements_and_few_stops(self) -> None:
        taken, empty = [], []
        for _ in range(3):
            empty.append(self.time_of_an_empty_page())
            page = self.new_page(self.context)
            page.add_init_script(WATCH)
            taken.append(self.times_of(page))
            self.page.close()
            self.page = page
        first, usable = min(taken)
        print(
            f"\n300 crons: first card {first:.0f} ms (goal 500), usable {usable:.0f} ms"
            f" (goal 1000); an empty page of this run {min(empty):.0f} ms",
            end=" ",
        )
        self.assertLess(first, 2000)  # what is on this machine else is not the page's
        self.assertLess(usable, 4000)
        self.assertLessEqual(
            page.evaluate("document.querySelectorAll('*').length"), 4000
        )
        self.assertLessEqual(page.evaluate(f"{TAB_STOPS}.length"), 345)
        self.look("many")

    def time_of_an_empty_page(self) -> float:
        """Return what the same browser takes for a page of one letter."""
        page = self.new_page(self.context)
        page.route("**/empty", lambda r: r.fulfill(body="x", content_type="text/html"))
        page.goto(f"{self.origin}empty")
        took = "performance.getEntriesByType('navigation')[0].loadEventEnd"
        took_ms = float(wait_until(lambda: page.evaluate(took), what="an empty page"))
        page.close()
        return took_ms

    def times_of(self, page: Page) -> Any:
        """Return when the first card was there, and when the history was, too."""
        page.goto(self.origin)
        wait_until(lambda: page.evaluate("window.usable"), what="the history")
        return page.evaluate("[window.firstCard, window.usable]")

    def test_what_an_event_has_told_is_not_fetched_again(self) -> None:
        page = self.open()
        self.server.completed("backup-000")
        self.server.completed("alone")
        sees(page.locator(".toast"))
        sees(page.locator("#only-failed"), re.compile(r"\d+"))
        self.assertEqual((self.asked("/crons"), self.asked("/health")), (1, 1))

    def test_they_are_found_by_text_and_state_and_stand_in_groups(self) -> None:
        page = self.open()
        groups = page.locator(".group-title").all_inner_texts()
        self.assertEqual([group.split()[0] for group in groups], [*PREFIXES, "Autres"])
        search = page.get_by_label(self.say("search_label"))
        search.fill("sauvegarde a l'ete")
        sees(self.card("alone"))
        self.assertEqual(page.locator("#grid li:visible").count(), 1)
        search.fill("nowhere")
        sees(page.locator("#crons-empty"), "nowhere")
        self.button("search_clear").click()
        sees(self.card("backup-000"))
        self.server.completed("sync-287")
        page.locator("#only-failed").click()
        wait_until(
            lambda: page.locator("#grid li").count() < 40, what="those that failed"
        )
        page.locator("#grid li[data-key='sync-287']").scroll_into_view_if_needed()
        sees(self.card("sync-287"), self.say("status_failed"))

    def test_the_history_is_one_key_away(self) -> None:
        from playwright.sync_api import expect

        page = self.open()
        page.keyboard.press("h")
        expect(page.locator("#history-title")).to_be_in_viewport()
        page.keyboard.press("/")
        expect(page.locator("#search")).to_be_focused()
        page.locator("#to-history").click()
        expect(page.locator("#history-title")).to_be_in_viewport()

    def test_long_descriptions_are_cut_at_two_lines_and_4k_is_used(self) -> None:
        page = self.open()
        title = self.card("backup-000").locator("h3")
        lines = "h => h.clientHeight / parseFloat(getComputedStyle(h).lineHeight)"
        self.assertLessEqual(title.evaluate(lines), 2.1)
        page.set_viewport_size({"width": 3840, "height": 2160})
        row = "[...document.querySelectorAll('#grid ul:first-of-type li')]"
        row += ".filter((li, _, all) => li.offsetTop === all[0].offsetTop).length"
        self.assertGreaterEqual(page.evaluate(row), 10)
        self.look("many-4k")


def make_up_runs(server: Server, names: list[str]) -> None:
    """Write 31 runs of each cron into the history, as if days had passed."""
    now = datetime.datetime.now(datetime.timezone.utc)
    rows = []
    for place, name in enumerate(names):
        for age in range(31, 0, -1):
            began = now - datetime.timedelta(hours=age * 5, seconds=place)
            ended = began + datetime.timedelta(seconds=3)
            failed = (place + age) % 30 == 0
            rows.append(
                (name, "failed" if failed else "completed")
                + (began.isoformat(), ended.isoformat())
                + (1000 + place * age * 37 % 5000, 2 if failed else 0, "http", "::1")
            )
    rows.sort(key=lambda row: row[2])
    with contextlib.closing(sqlite3.connect(server.state_dir / "history.db")) as db:
        db.executemany(
            "insert into cron_executions (cron_name, status, started_at, completed_at,"
            " duration_ms, exit_code, trigger, client) values (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.commit()


load_tests = beside


if __name__ == "__main__":
    unittest.main()
