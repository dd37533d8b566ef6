"""The page's log: colours, progress, search, following, wrapping, copying."""

from __future__ import annotations

import re
import time
import unittest
from typing import TYPE_CHECKING, Any, Mapping

from beside import beside
from browser import BrowserTest, gone, saved, sees
from support import wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Locator

#: Type into the log's search field; return the longest pause between two frames.
LONGEST_FRAME = """async (words) => {
  let longest = 0, last = performance.now();
  const search = document.getElementById("log-search");
  const log = document.getElementById("log");
  for (let i = 0; i < 30; i += 1) {
    if (i === 5) {
      search.value = words;
      search.dispatchEvent(new Event("input"));
    }
    if (i > 10 && i < 29) log.scrollTop = Math.random() * log.scrollHeight;
    if (i === 29) search.dispatchEvent(new Event("input"));
    await new Promise(requestAnimationFrame);
    longest = Math.max(longest, performance.now() - last);
    last = performance.now();
  }
  return longest;
}"""


class LogTest(BrowserTest):
    def show(self, run: Mapping[str, Any]) -> Locator:
        return self.open_run(run["id"])

    def copied(self) -> str:
        self.button("copy").click()
        self.was_said(self.say("copied"))
        return str(self.page.evaluate("navigator.clipboard.readText()"))


class Shown(LogTest):
    def test_markup_stays_text_and_escapes_become_colours_or_nothing(self) -> None:
        log = self.show(self.server.completed("markup"))
        sees(log, "<img src=x onerror=alert(1)><b>bold</b>")
        self.assertEqual(log.locator("img, b").count(), 0)
        sees(log.locator(".ansi-red"), "red")
        sees(log.locator(".log-line").nth(1), "red plain end")
        self.assertEqual(log.locator(".log-line").nth(2).inner_text(), "100%")
        self.assertNotIn("\x1b", log.inner_text())
        sees(self.page.locator("#run-title"), "<b>Markup</b> & colours")
        self.look("markup")

    def test_reverse_video_and_backgrounds_can_be_seen(self) -> None:
        log = self.show(self.server.completed("markup"))
        ground = "e => getComputedStyle(e).backgroundColor"
        clear = log.evaluate(ground)
        for name in ("on-text", "on-red"):
            shown = sees(log.locator(f".ansi-{name}")).evaluate(ground)
            self.assertNotIn(shown, (clear, "rgba(0, 0, 0, 0)"), name)
        sees(log.locator(".ansi-ground.ansi-on-text"), "reverse")

    def test_progress_without_a_line_feed_is_seen_while_it_runs(self) -> None:
        self.server.script(
            "slow.sh",
            "#!/bin/sh\ni=0\nwhile [ $i -lt 300 ]; do printf '%d%%\\r' $i; "
            "i=$((i+1)); sleep 0.1; done\n",
        )
        log = self.show({"id": self.server.trigger("slow").json["runId"]})
        first = log.locator(".log-line").first
        sees(first, re.compile(r"^\d+%$"))
        seen = first.inner_text()
        wait_until(lambda: first.inner_text() != seen, what="progress")
        self.assertEqual(log.locator(".log-line").count(), 1)

    def test_a_failed_runs_log_opens_at_its_last_words(self) -> None:
        log = self.show(self.server.completed("long"))
        line = log.get_by_text("last words", exact=True)
        sees(line)
        inside = "l => { const b = l.getBoundingClientRect(), w = l.closest('#log')"
        inside += "?.getBoundingClientRect(); return b.bottom <= w?.bottom + 1; }"
        wait_until(lambda: line.evaluate(inside), what="the end in view")

    def test_a_good_runs_log_opens_at_its_beginning(self) -> None:
        self.server.script("quick.sh", "#!/bin/sh\nseq 1 2000\n")
        log = self.show(self.server.completed("quick"))
        sees(self.page.locator("#log-count"), re.compile(r"2.000"))
        self.assertEqual(log.evaluate("l => l.scrollTop"), 0)
        self.button("log_to_end").click()
        sees(log.get_by_text("2000", exact=True))
        gone(self.button("log_to_end"))

    def test_long_line_numbers_do_not_lie_over_the_text(self) -> None:
        log = self.show(self.server.completed("long"))
        line = sees(log.locator(".log-line", has_text="last words"))
        room = line.evaluate(
            "l => [parseFloat(getComputedStyle(l, '::before').width),"
            " parseFloat(getComputedStyle(l).paddingLeft), l.dataset.number]"
        )
        self.assertRegex(room[2], r"^100.001$")
        self.assertLess(room[0], room[1])
        self.assertGreater(room[0], 7 * 7.4)


class Long(LogTest):
    def test_a_hundred_thousand_lines_do_not_freeze_it(self) -> None:
        run = self.server.completed("long")
        log = self.show(run)
        sees(self.page.locator("#log-count"), re.compile(r"100.001"))
        self.assertLess(log.locator(".log-line").count(), 200)
        frames_ms = (
            self.page.evaluate(LONGEST_FRAME, "line 99999 of") for _ in range(3)
        )
        self.assertTrue(any(longest_ms < 2000 for longest_ms in frames_ms))
        sees(log.locator("mark"), "line 99999 of")
        sees(self.page.locator("#log-count"), self.say("log_found", i=1, n=1))

    def test_300_000_lines_are_searched_and_copied_whole(self) -> None:
        self.server.script("long.sh", "#!/bin/sh\nseq -f 'line %.0f' 300000\n")
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.show(self.server.completed("long"))
        sees(self.page.locator("#log-count"), re.compile(r"300.000"))
        self.page.get_by_label(self.say("log_search")).fill("line 17")
        sees(self.page.locator("#log-count"), re.compile(r"^1 sur \d+"))
        sees(self.page.locator("mark.current"), "line 17")
        lines = self.copied().splitlines()
        self.assertEqual((len(lines), lines[0]), (300000, "line 1"))
        gone(self.page.locator("#log-left-out"))

    def test_what_is_not_there_is_said_plainly(self) -> None:
        self.server.script("long.sh", "#!/bin/sh\nseq 1 1100000\n")
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.show(self.server.completed("long"))
        told = self.page.locator("#log-left-out")
        sees(self.page.locator("#log-count"), re.compile(r"1.100.000"))
        sees(told, re.compile(r"Les \d+.000 premières lignes ne sont ni affichées"))
        sees(told, "téléchargez")
        self.button("copy").click()
        self.was_said("Copié sans les")


class Searched(LogTest):
    def test_it_is_searched_with_the_keyboard(self) -> None:
        log = self.show(self.server.completed("long"))
        sees(self.page.locator("#log-count"), re.compile(r"100.001"))
        search = self.page.get_by_label(self.say("log_search"))
        search.fill("LINE 5000")
        for _ in range(2):
            search.press("Enter")
        search.press("Shift+Enter")
        sees(self.page.locator("#log-count"), "2 sur 11")
        sees(log.locator("mark.current"), "line 5000")
        search.fill("nowhere")
        sees(self.page.locator("#log-count"), self.say("log_not_found"))

    def test_it_is_searched_by_touch(self) -> None:
        self.show(self.server.completed("long"))
        sees(self.page.locator("#log-count"), re.compile(r"100.001"))
        self.page.get_by_label(self.say("log_search")).fill("line 5000")
        self.button("log_next").click()
        sees(self.page.locator("#log-count"), "2 sur 11")
        self.button("log_previous").click()
        self.button("log_previous").click()
        sees(self.page.locator("#log-count"), "11 sur 11")


class Taken(LogTest):
    def test_it_is_copied_and_downloaded_whole(self) -> None:
        run = self.server.completed("markup")
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.show(run)
        sees(self.page.locator(".ansi-red"))
        self.assertEqual(self.copied().splitlines()[1], "red plain end")
        with self.page.expect_download() as download:
            self.button("download").click()
        self.assertEqual(download.value.suggested_filename, f"markup-{run['id']}.log")
        self.assertEqual(
            saved(download), self.server.get(f"/runs/{run['id']}/log").body
        )

    def test_it_is_copied_without_a_secure_context_too(self) -> None:
        run = self.server.completed("quick")
        self.page.add_init_script(
            "Object.defineProperty(navigator, 'clipboard', {value: undefined});"
            "document.execCommand = (name) => {"
            "  window.copied = name + ' ' + document.activeElement.value;"
            "  return true; };"
        )
        self.show(run)
        sees(self.page.locator("#log"), "done")
        self.button("copy").click()
        self.was_said(self.say("copied"))
        self.assertEqual(self.page.evaluate("window.copied"), "copy done\n")


class Followed(LogTest):
    def test_it_follows_the_end_unless_one_scrolls_up(self) -> None:
        run = self.server.trigger("slow").json["runId"]
        log = self.show({"id": run})
        sees(log, re.compile(r"step ([4-9]\d|\d{3})"))
        log.hover()
        self.page.mouse.wheel(0, -600)
        sees(self.button("log_end"))
        stays = log.evaluate("log => log.scrollTop")
        grown = log.evaluate("log => log.scrollHeight")
        wait_until(lambda: log.evaluate("log => log.scrollHeight") > grown + 100)
        self.assertEqual(log.evaluate("log => log.scrollTop"), stays)
        self.button("log_end").click()
        at_end = "l => l.scrollHeight - l.scrollTop - l.clientHeight < 30"
        wait_until(lambda: log.evaluate(at_end))
        gone(self.button("log_end"))

    def test_when_lines_came_is_shown_beside_them(self) -> None:
        run = self.server.trigger("slow").json["runId"]
        log = self.show({"id": run})
        sees(log, re.compile(r"step \d\d"))
        self.button("log_times").click()
        timed = log.locator(".log-line[data-time]")
        sees(timed.first)
        self.assertRegex(
            timed.last.get_attribute("data-time") or "", r"^\d\d:\d\d:\d\d$"
        )
        zone = self.page.locator("#log-times").get_attribute("title") or ""
        self.assertIn("Europe centrale", zone)
        self.look("log-times")

    def test_long_lines_are_wrapped_if_one_wants(self) -> None:
        words = " ".join(f"word{i}" for i in range(200))
        text = f"#!/bin/sh\necho start\necho {words}\necho end\n"
        self.server.script("quick.sh", text)
        log = self.show(self.server.completed("quick"))
        sees(log.get_by_text("end", exact=True))
        wide = "l => l.scrollWidth > l.clientWidth + 2"
        self.assertTrue(log.evaluate(wide))
        self.assertEqual(log.locator(".log-line").count(), 3)
        self.button("log_wrap").click()
        self.assertFalse(log.evaluate(wide))
        self.assertGreater(log.locator(".log-line").count(), 8)
        shown = "".join(log.locator(".log-line").all_inner_texts())
        self.assertEqual(shown, f"start{words}end")
        self.look("log-wrapped")
        self.button("log_wrap").click()
        self.assertEqual(log.locator(".log-line").count(), 3)

    def test_fifty_megabytes_open_in_a_few_seconds(self) -> None:
        line = "x" * 90
        self.server.script("long.sh", f"#!/bin/sh\nyes {line} | head -n 550000\n")
        run = self.server.completed("long")
        began = time.monotonic()
        self.show(run)
        sees(self.page.locator("#log-count"), re.compile(r"550.000"))
        self.assertLess(time.monotonic() - began, 15)

    def test_an_ended_runs_log_that_fails_is_asked_for_with_pauses(self) -> None:
        run = self.server.completed("quick")
        page = self.page
        refused: list[str] = []

        def refuse(route: Any) -> None:
            refused.append(route.request.url)
            route.fulfill(status=503, json={"code": "overloaded", "error": "Busy."})

        page.route("**/runs/*/log*", refuse)
        self.stop_clock()
        page.goto(f"{self.origin}#run={run['id']}")
        wait_until(lambda: page.evaluate("true") and refused, what="the request")
        for _ in range(20):
            page.evaluate("fetch('health').then((answer) => answer.text())")
        self.assertEqual(len(refused), 1)
        page.unroute("**/runs/*/log*")
        page.clock.resume()
        sees(page.locator("#log"), "done")


load_tests = beside


if __name__ == "__main__":
    unittest.main()
