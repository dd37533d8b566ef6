"""The page's touch with the server: events, without events, cut off, many pages."""

from __future__ import annotations

import re
import unittest
from typing import Any

from beside import beside
from browser import BrowserTest, gone, sees
from page_proxy import proxy
from support import wait_until

SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class WithoutEvents(BrowserTest):
    """The event stream fails; all else works."""

    def refuse_events(self, status: int) -> None:
        self.without_worker()
        self.page.route("**/events", lambda r: r.fulfill(status=status, body="No"))

    def test_a_browser_that_refuses_a_shared_worker_has_a_stream_all_the_same(
        self,
    ) -> None:
        self.page.add_init_script(
            "window.SharedWorker = class { constructor() {"
            "  throw new DOMException('Denied.', 'SecurityError'); } }"
        )
        self.open()
        self.server.completed("quick")
        sees(self.card("quick"), self.say("status_completed"))

    def test_whatever_fails_of_events_the_page_works_and_says_so(self) -> None:
        for status in (404, 500, 502, 504):
            with self.subTest(status):
                self.page = self.new_page(self.context)
                self.refuse_events(status)
                self.page.goto(self.origin)
                sees(self.page.locator("#connection"), self.say("polling"))
                sees(self.card("quick"), self.say("status_never"))
                self.page.close()

    def test_a_cut_stream_and_an_old_proxys_page_count_as_none(self) -> None:
        self.without_worker()
        for answer in ("abort", "html"):
            with self.subTest(answer):
                self.page.unroute_all()
                self.page.route(
                    "**/events",
                    lambda route, how=answer: (
                        route.abort()
                        if how == "abort"
                        else route.fulfill(body="<p>old</p>", content_type="text/html")
                    ),
                )
                self.page.goto(self.origin)
                sees(self.page.locator("#connection"), self.say("polling"))
                sees(self.card("quick"))

    def test_it_refreshes_each_30_s(self) -> None:
        page = self.page
        self.refuse_events(404)
        page.clock.install()
        page.goto(self.origin)
        page.clock.run_for(1000)
        sees(page.locator("#connection"), self.say("polling"))
        self.look("polling")
        self.server.completed("quick")
        running = self.server.trigger("slow").json["runId"]
        with page.expect_request_finished(lambda sent: sent.url.endswith("/health")):
            page.clock.run_for(31000)
        sees(self.card("quick"), self.say("status_completed"))
        sees(self.card("slow"), self.say("status_running"))
        sees(self.rows().first, self.say("status_running"))
        self.server.request("POST", f"/runs/{running}/cancel")
        self.server.ended(running)
        page.clock.run_for(31000)
        sees(page.locator(".toast"), self.say("status_cancelled"))

    def test_the_end_of_ones_own_run_is_known_at_once(self) -> None:
        self.refuse_events(504)
        go = self.server.folder / "go"
        self.server.script(
            "bad.sh", f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.01; done\nexit 2\n"
        )
        self.page.goto(self.origin)
        sees(self.page.locator("#connection"), self.say("polling"))
        self.start_now("bad")
        sees(self.card("bad"), self.say("status_running"))
        go.touch()
        sees(self.card("bad"), self.say("status_failed"))
        sees(self.page.locator(".toast"), self.say("exit", code=2))
        sees(self.rows().first, self.say("status_failed"))

    def test_an_end_before_the_first_look_is_told_too(self) -> None:
        self.refuse_events(504)
        self.page.route("**/runs/*", self.let_it_end_first)
        self.page.goto(self.origin)
        sees(self.page.locator("#connection"), self.say("polling"))
        self.start_now("bad")
        sees(self.page.locator(".toast"), self.say("exit", code=2))
        sees(self.card("bad"), self.say("status_failed"))

    def let_it_end_first(self, route: Any) -> None:
        self.server.ended(int(route.request.url.rpartition("/")[2]))
        route.continue_()

    def test_a_cancel_is_known_at_once(self) -> None:
        self.refuse_events(504)
        run_id = self.server.trigger("slow").json["runId"]
        page = self.page
        page.goto(f"{self.origin}#run={run_id}")
        cancel = sees(page.locator("#run-cancel"))
        cancel.click()
        cancel.click()
        sees(page.locator("#run-facts"), self.say("status_cancelled"))
        page.keyboard.press("Escape")
        sees(self.card("slow"), self.say("status_cancelled"))


class OneStream(BrowserTest):
    def test_six_pages_of_a_browser_share_one_stream_and_a_seventh_loads(self) -> None:
        with proxy(self.server.port) as middle:
            pages = []
            for _ in range(7):
                page = self.new_page(self.context)
                page.goto(middle.origin)
                sees(page.locator("#connection"), self.say("live"))
                pages.append(page)
            self.assertEqual(len(middle.streams), 1)
            self.assertEqual(middle.asked.count("/events"), 1)
            self.server.completed("bad")
            for page in pages:
                sees(page.locator(".toast"), self.say("exit", code=2))
            for page in pages:
                page.close()
            wait_until(lambda: not middle.streams, what="the end of the stream")
        self.elsewhere.clear()

    def test_it_is_opened_again_and_nothing_is_missed(self) -> None:
        with proxy(self.server.port) as middle:
            self.page.goto(middle.origin)
            sees(self.page.locator("#connection"), self.say("live"))
            middle.cut()
            self.server.completed("bad")
            sees(self.page.locator(".toast"), self.say("exit", code=2))
            sees(self.page.locator("#connection"), self.say("live"))
            self.assertEqual(middle.asked.count("/crons"), 1)
        self.elsewhere.clear()

    def test_an_end_between_two_questions_is_told(self) -> None:
        """The stream is cut; /runs has it running yet, its cron's entry has its end."""
        go = self.server.folder / "go"
        self.server.script(
            "bad.sh", f"#!/bin/sh\nuntil [ -e {go} ]; do sleep 0.01; done\nexit 2\n"
        )

        def begun_meanwhile(route: Any) -> None:
            middle.refused["/events"] = 503  # or it might tell before the answer does
            middle.cut()
            self.assertEqual(self.server.trigger("bad").status, 202)
            route.continue_()

        def ended_meanwhile(route: Any) -> None:
            go.touch()
            self.server.ended(1)
            route.continue_()

        with proxy(self.server.port) as middle:
            self.page.route("**/runs?limit=50", begun_meanwhile, times=1)
            self.page.route("**/crons/bad", ended_meanwhile)
            self.page.goto(middle.origin)
            sees(self.page.locator(".toast"), self.say("exit", code=2))
        self.elsewhere.clear()

    def test_a_proxy_without_streams_leaves_a_page_that_works(self) -> None:
        with proxy(self.server.port) as middle:
            middle.refused["/events"] = 504
            self.page.goto(middle.origin)
            sees(self.page.locator("#connection"), self.say("polling"))
            self.start_now("bad")
            sees(self.card("bad"), self.say("status_failed"))
        self.elsewhere.clear()

    def test_it_works_behind_a_proxy_under_a_prefix(self) -> None:
        with proxy(self.server.port) as middle:
            self.page.goto(middle.origin)
            sees(self.page.locator("#connection"), self.say("live"))
            self.start_now("quick")
            sees(self.card("quick"), self.say("status_completed"))
            outside = [u for u in self.elsewhere if not u.startswith(middle.origin)]
            self.assertEqual(outside, [])
        self.elsewhere.clear()


class Hidden(BrowserTest):
    def test_a_hidden_tab_tells_the_end_of_what_runs(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        running = self.words["title_running"][0].split("|")[0].partition(" {title}")[0]
        running = running.replace("{n}", "1")
        wait_until(lambda: page.title().startswith(running), what="the title")
        icon = "document.querySelector('link[rel=icon]').href"
        blue = page.evaluate(icon)
        page.evaluate(SET_HIDDEN, True)
        self.server.request("POST", f"/runs/{run_id}/cancel")
        title = self.say("title")
        wait_until(lambda: page.title().startswith(title), what="the title")
        self.assertNotEqual(page.evaluate(icon), blue)

    def test_without_a_shared_one_a_hidden_tab_gives_its_stream_up(self) -> None:
        self.without_worker()
        with proxy(self.server.port) as middle:
            page = self.page
            page.goto(middle.origin)
            sees(page.locator("#connection"), self.say("live"))
            page.evaluate(SET_HIDDEN, True)
            wait_until(lambda: not middle.streams, what="the end of the stream")
            self.server.completed("quick")
            page.evaluate(SET_HIDDEN, False)
            sees(self.card("quick"), self.say("status_completed"))
            sees(page.locator("#connection"), self.say("live"))
        self.elsewhere.clear()


class Lost(BrowserTest):
    def test_a_lost_connection_is_shown_and_mended_by_itself(self) -> None:
        from playwright.sync_api import expect

        page = self.open()
        self.server.trigger("slow")
        sees(self.card("slow"), self.say("status_running"))
        port = self.server.port
        self.server.kill()
        sees(page.locator("#connection"), self.say("offline"))
        sees(page.locator("#offline"))
        sees(self.card("quick"))
        self.look("lost")
        # What happened meanwhile is told once the connection is back.
        self.server.end_runs()
        self.server.start(port=port)
        live = self.say("live")
        expect(page.locator("#connection")).to_contain_text(live, timeout=20000)
        gone(page.locator("#offline"))
        sees(page.locator(".toast"), "A slow one")

    def test_without_a_server_the_page_says_what_to_do(self) -> None:
        page = self.page
        self.stop_clock()  # or it would try again by itself
        page.route("**/crons", lambda route: route.abort())
        page.goto(self.origin)
        sees(page.locator("#crons-empty"), self.say("down_title"))
        sees(page.locator("#crons-empty"), "systemctl status")
        self.look("down")
        page.unroute("**/crons")
        page.route("**/crons", lambda route: route.fulfill(status=500, json={}))
        page.locator("#crons-empty").get_by_role("button").click()
        sees(page.locator("#crons-empty"), self.say("failed_title"))
        page.unroute("**/crons")
        page.locator("#crons-empty").get_by_role("button").click()
        sees(self.card("quick"))

    def test_pauses_grow_while_the_server_is_away(self) -> None:
        page = self.page
        page.route("**/crons", lambda route: route.abort())
        self.stop_clock()
        page.goto(self.origin)
        sees(page.locator("#connection"), self.say("offline"))
        pausing = re.compile(self.say("offline_next", seconds=r"\d+"))
        for _ in range(60):
            sees(page.locator("#connection"), pausing)
            page.clock.run_for(1000)
        self.assertIn(self.asked("/crons"), range(4, 9))
        page.unroute("**/crons")
        page.locator("#crons-empty").get_by_role("button").click()
        page.clock.run_for(1000)
        sees(self.card("quick"))

    def test_what_the_server_survives_is_shown(self) -> None:
        page = self.open()
        self.server.registry.write_text("{ broken", encoding="utf-8")
        wait_until(lambda: "problems" in self.server.get("/health").json)
        page.reload()
        sees(page.locator("#problems"), self.say("problems", problems=""))

    def test_an_empty_registry_and_an_empty_history_say_so(self) -> None:
        page = self.open()
        sees(page.locator("#runs-empty"), self.say("history_empty"))
        sees(self.card("quick"), self.say("status_never"))
        self.server.write_registry({})
        self.server.get("/crons")  # it is read again when someone asks
        sees(page.locator("#crons-empty"), self.say("empty_title"))
        sees(page.locator("#planned-empty"))
        self.look("empty")


load_tests = beside


if __name__ == "__main__":
    unittest.main()
