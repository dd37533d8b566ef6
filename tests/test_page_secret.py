"""The page where a secret is set."""

from __future__ import annotations

import unittest

from beside import beside
from browser import BrowserTest, gone, held_back, sees
from page_proxy import proxy
from support import limited

RIGHT = "right-secret-of-the-test"


class Secret(BrowserTest):
    def setUp(self) -> None:
        super().setUp()
        self.server.stop()
        # One more wrong secret is not free again while the test goes on.
        self.server.program = [*limited("wrong_secrets=(10, 600.0, 10)")]
        self.server.start(f"--secret={RIGHT}")

    def enter(self, secret: str) -> None:
        self.page.get_by_label(self.say("secret"), exact=True).fill(secret)
        self.page.keyboard.press("Enter")

    def test_it_is_asked_for_and_a_wrong_one_told(self) -> None:
        page = self.page
        page.goto(self.origin)
        dialog = sees(page.get_by_role("dialog"), self.say("secret_title"))
        self.look("secret")
        self.enter("wrong")
        sees(dialog, self.say("secret_wrong"))
        self.enter(RIGHT)
        gone(page.locator("#secret-dialog"))
        sees(self.card("quick"))
        sees(page.locator("#connection"), self.say("live"))
        page.reload()
        sees(page.locator("#connection"), self.say("live"))
        self.assertFalse([url for _, url, _ in self.sent if RIGHT in url])
        other_tab = self.new_page(self.context)
        other_tab.goto(page.url)
        sees(other_tab.get_by_role("dialog"), self.say("secret_title"))
        for _ in range(10):
            self.server.get("/crons", **{"X-Trigger-Secret": "wrong"})
        other_tab.get_by_label(self.say("secret"), exact=True).fill("wrong")
        other_tab.keyboard.press("Enter")
        told = self.say("secret_wait", seconds="").split("  ")[0].split(".")[0]
        sees(other_tab.get_by_role("dialog"), told)

    def test_a_refusal_of_before_does_not_undo_the_right_one(self) -> None:
        page = self.page
        refused = page.expect_response(lambda r: "/runs?" in r.url and r.status == 401)
        with refused, held_back(page, "**/runs?*"):
            page.goto(self.origin)
            sees(page.get_by_role("dialog"), self.say("secret_title"))
            self.enter(RIGHT)
            sees(self.card("quick"))
        page.evaluate("new Promise(requestAnimationFrame)")  # it has been taken
        sees(page.locator("#connection"), self.say("live"))
        gone(page.locator("#secret-dialog"))
        self.assertEqual(page.evaluate("sessionStorage.length"), 1)

    def test_who_closes_the_dialog_finds_a_way_back(self) -> None:
        page = self.page
        page.goto(self.origin)
        sees(page.get_by_role("dialog"), self.say("secret_title"))
        for _ in range(2):
            page.keyboard.press("Escape")
            gone(page.get_by_role("dialog"))
            sees(self.button("secret_enter"))
            self.assertEqual(page.locator(".skeleton").count(), 0)
            self.look("secret-closed")
            self.button("secret_enter").click()
            sees(page.get_by_role("dialog"))
        self.enter(RIGHT)
        sees(self.card("quick"))

    def test_others_wrong_tries_do_not_ask_where_it_is_right(self) -> None:
        page = self.page
        page.goto(self.origin)
        self.enter(RIGHT)
        sees(page.locator("#connection"), self.say("live"))
        answer = {"success": False, "code": "too_many_attempts", "error": "No."}
        page.route(
            "**/trigger",
            lambda r: r.fulfill(status=429, json=answer, headers={"Retry-After": "9"}),
        )
        self.press("quick")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("busy", seconds=9))
        gone(page.locator("#secret-dialog"))

    def test_the_stream_is_not_a_guess(self) -> None:
        with proxy(self.server.port) as middle:
            self.page.goto(middle.origin)
            sees(self.page.get_by_role("dialog"), self.say("secret_title"))
            self.enter("wrong")
            sees(self.page.get_by_role("dialog"), self.say("secret_wrong"))
            self.assertNotIn("/events", middle.asked)
        self.elsewhere.clear()


load_tests = beside


if __name__ == "__main__":
    unittest.main()
