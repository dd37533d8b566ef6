"""The page for everyone: axe-core, screen readers, small screens, both themes."""

from __future__ import annotations

import random
import re
import unittest
from typing import Any

from beside import beside
from browser import BrowserTest, gone, held_back, sees
from support import npm_folder, wait_until

ANIMATIONS_DONE = """() => Promise.all(document.getAnimations()
  .filter((a) => a.effect.getTiming().iterations !== Infinity)
  .map((a) => a.finished.catch(() => null)))"""


#: Whether a field shows all of its text or placeholder.
TEXT_FITS = """(e) => {
  const style = getComputedStyle(e);
  const pen = document.createElement("canvas").getContext("2d");
  pen.font = style.font;
  const text = e.placeholder ?? e.selectedOptions[0].text;
  const sides = parseFloat(style.paddingLeft) + parseFloat(style.paddingRight);
  const arrow = e.localName === "select" ? 20 : 0;
  return pen.measureText(text).width <= e.clientWidth - sides - arrow;
}"""


def axe_source() -> str:
    folder = npm_folder("axe-core@4") / "node_modules" / "axe-core"
    return (folder / "axe.min.js").read_text(encoding="utf-8")


class ForEveryone(BrowserTest):
    """Each state, in light, dark and on a phone: looked at by axe-core, and kept."""

    looks: tuple[tuple[str, dict[str, Any]], ...] = (
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark", "locale": "en-GB"}),
        (
            "phone",
            {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
        ),
    )

    def test_axe_finds_nothing_in_any_state_and_nothing_is_cut_off(self) -> None:
        self.axe = axe_source()
        for name in ("quick", "bad", "shot", "markup", "bad", "bad"):
            self.server.completed(name)
        params = {"target": "production", "keep": 4}
        self.server.trigger("plain", runAt="2099-01-01T10:00:00+00:00", params=params)
        # Each takes a minute: one of the three at a time.
        for look, options in random.sample(list(self.looks), 1):
            # It lasts 150 s: on a busy machine one is not enough for all looks.
            running = self.server.trigger("slow").json["runId"]
            self.language = options.get("locale", "fr-FR")
            context = self.make_context(**options)
            self.page = self.new_page(context)
            with self.subTest(look):
                self.every_state(look)
            context.close()
            self.server.request("POST", f"/runs/{running}/cancel")
            self.server.ended(running)

    def every_state(self, look: str) -> None:
        page = self.open()
        sees(self.rows().nth(3))
        self.check(f"page-{look}")
        self.dialogs(look)
        page.locator("#runs > tr", has_text="Markup").first.click()
        sees(page.locator(".ansi-red"))
        page.locator("#log-search").fill("plain")
        self.check(f"run-{look}")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        page.locator("#runs > tr", has_text="A slow one").first.click()
        sees(page.locator("#run-cancel"))
        self.check(f"run-live-{look}")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.server.completed("bad")
        sees(page.locator(".toast").first)
        page.evaluate("location.hash = 'cron=bad'")
        sees(page.locator("#chart"))
        page.locator("#history-title").scroll_into_view_if_needed()
        self.check(f"history-{look}")
        self.failures(look)

    def dialogs(self, look: str) -> None:
        page = self.page
        self.press("params")
        page.get_by_text(self.say("command_line"), exact=True).click()
        self.check(f"dialog-{look}")
        page.locator("#param-keep").fill("99")
        self.button("plan").click()
        self.button("plan_send").click()
        sees(page.locator("#param-keep-error"), "30")
        self.check(f"dialog-refused-{look}")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.press("slow")
        self.check(f"dialog-running-{look}")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))

    def failures(self, look: str) -> None:
        page = self.page
        page.route("**/crons", lambda route: route.abort())
        page.goto("about:blank")
        page.goto(self.origin)
        sees(page.locator("#crons-empty"))
        self.check(f"down-{look}")
        answer = {"success": False, "error": "No.", "code": "unauthorized"}
        # It takes the place of the first; the page may try again by itself just now.
        page.route(
            re.compile("crons$"),
            lambda route: route.fulfill(status=401, json=answer),
        )
        page.evaluate("document.querySelector('#crons-empty button')?.click()")
        sees(page.get_by_role("dialog"))
        self.check(f"secret-{look}")

    def check(self, name: str) -> None:
        """A picture; no sideways scrolling; and what axe-core has to say."""
        self.page.evaluate(ANIMATIONS_DONE)
        self.look(name)
        cut_off = self.page.evaluate(
            "document.documentElement.scrollWidth > innerWidth"
        )
        self.assertFalse(cut_off, f"{name} scrolls sideways")
        self.page.evaluate(self.axe)
        found = self.page.evaluate("axe.run().then((r) => r.violations)")
        faults = [
            f"{fault['id']}: {node['html']} {node['failureSummary']}"
            for fault in found
            for node in fault["nodes"]
        ]
        self.assertEqual(faults, [], name)

    def test_there_is_one_polite_live_region_and_the_landmarks(self) -> None:
        from playwright.sync_api import expect

        page = self.open()
        live = page.locator("[aria-live], [role=status], [role=alert], [role=log]")
        expect(live).to_have_count(1)
        expect(live).to_have_attribute("aria-live", "polite")
        for role in ("banner", "main", "contentinfo", "navigation"):
            expect(page.get_by_role(role)).to_have_count(1)
        # All outside of an open dialog is silent: the region must move into it.
        self.press("quick")
        self.server.completed("bad")
        said = page.locator("dialog[open] [aria-live]")
        expect(said).to_contain_text("One that fails")
        sees(page.locator("dialog[open] .toast"))

    def test_nothing_moves_where_motion_is_unwanted(self) -> None:
        self.context.close()
        self.context = self.make_context(reduced_motion="reduce")
        self.page = self.new_page(self.context)
        self.server.trigger("slow")
        page = self.open()
        sees(self.card("slow"), self.say("status_running"))
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)

    def test_what_one_types_or_opens_stands_above_the_buttons(self) -> None:
        below = """(id) => document.getElementById(id).getBoundingClientRect().bottom
          - document.getElementById("trigger-foot").getBoundingClientRect().top"""
        page = self.open()
        for width, height in ((1200, 800), (360, 740)):
            with self.subTest(width):
                page.set_viewport_size({"width": width, "height": height})
                self.press("params")
                self.button("plan").click()
                for name in ("plan-at", "plan-words"):
                    self.assertLessEqual(page.evaluate(below, name), 0, name)
                self.look(f"plan-{width}")
                self.button("plan_back").click()
                page.locator("#commands summary").click()
                wait_until(lambda: page.evaluate(below, "commands") <= 0, 5)
                page.locator("#commands summary").click()
                page.keyboard.press("Escape")
                gone(page.get_by_role("dialog"))

    def test_what_counts_is_not_cut_off(self) -> None:
        cut = "e => e.scrollWidth > e.clientWidth || e.offsetWidth === 0"
        for _ in range(3):
            self.server.completed("plain", requestedBy="amina@example.org")
        page = self.open("#cron=plain")
        for width, height in ((1200, 800), (360, 740)):
            page.set_viewport_size({"width": width, "height": height})
            page.reload()
            sees(page.locator("#chart svg"))
            with self.subTest("letters of the chart", width=width):
                share = "e => e.getBoundingClientRect().width / e.viewBox.baseVal.width"
                size = "e => parseFloat(getComputedStyle(e).fontSize)"
                chart = page.locator("#chart svg")
                letters = chart.evaluate(share) * chart.evaluate(size)
                self.assertGreater(letters, 8.5)
            with self.subTest("a run's number and who asked", width=width):
                row = self.rows().first
                number = row.locator(".named span").last
                sees(number, "3")
                self.assertFalse(number.evaluate(cut))
                self.assertFalse(row.locator(".who .clip").first.evaluate(cut))
            with self.subTest("filters", width=width):
                text = page.locator("#filter-status").evaluate(TEXT_FITS)
                self.assertTrue(text)
            with self.subTest("what is searched", width=width):
                row.click()
                sees(page.locator("#log"))
                self.assertTrue(page.locator("#log-search").evaluate(TEXT_FITS))
                page.keyboard.press("Escape")
                gone(page.get_by_role("dialog"))

    def test_loading_is_shown_calmly(self) -> None:
        page = self.page
        with held_back(page, "**/crons"):
            page.goto(self.origin, wait_until="commit")
            sees(page.locator(".skeleton").first)
            self.look("loading")
        sees(self.card("quick"))
        self.assertEqual(page.locator(".skeleton").count(), 0)

    def test_notifications_are_offered_only_where_they_work(self) -> None:
        self.page.add_init_script(
            "Object.defineProperty(window, 'isSecureContext', {value: false})"
        )
        page = self.open()
        gone(page.locator("#notify"))


load_tests = beside


if __name__ == "__main__":
    unittest.main()
