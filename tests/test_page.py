"""The page: what stands in its file, and what a person sees in a real Chromium.

The file's own tests always run.  Those with a browser need Playwright and a Chromium
and run only where CRON_TRIGGER_TEST_FULL=1; axe-core comes from npm into
CRON_TRIGGER_TEST_CACHE (~/.cache/cron-trigger-server-tests).  They leave a picture of
each state in tests/screenshots/, which git ignores.

    python3 tests/test_page.py --screenshot    makes tests/dashboard.png again
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import http.client
import json
import re
import shutil
import socketserver
import sqlite3
import sys
import threading
import time
import unittest
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterator, List, Mapping, Optional, Tuple

from support import REPOSITORY, Server, need, need_full, npm_folder, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

PAGE = REPOSITORY / "dashboard.html"
SCREENSHOTS = REPOSITORY / "tests" / "screenshots"
LANGUAGES = ("fr-FR", "en-GB")
CHROMIUM_FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
#: What Chromium itself logs for any answer of 400 and above, and for none.
NETWORK_NOTE = "Failed to load resource"


# ---- The file


def page_words() -> Dict[str, Tuple[str, str]]:
    """Return the page's words: key to French and English."""
    string = r'"((?:[^"\\]|\\.)*)"'
    found = re.findall(
        r"^  (\w+): \[\s*" + string + r",\s*" + string + r",?\s*\],$",
        script_of(PAGE.read_text(encoding="utf-8")),
        re.MULTILINE,
    )
    return {key: (french, english) for key, french, english in found}


def script_of(text: str) -> str:
    return text.partition("<script>")[2].partition("</script>")[0]


def style_of(text: str) -> str:
    return text.partition("<style>")[2].partition("</style>")[0]


class File(unittest.TestCase):
    def setUp(self) -> None:
        self.text = PAGE.read_text(encoding="utf-8")
        self.script = script_of(self.text)
        self.style = style_of(self.text)
        self.markup = self.text.replace(self.script, "").replace(self.style, "")

    def test_it_has_one_style_and_one_script_without_attributes(self) -> None:
        self.assertEqual(re.findall(r"<style\b.*?>", self.text), ["<style>"])
        self.assertEqual(re.findall(r"<script\b.*?>", self.text), ["<script>"])
        self.assertTrue(self.script and self.style)

    def test_no_element_has_a_style_or_a_handler_of_its_own(self) -> None:
        self.assertEqual(re.findall(r"<[^>]*\s(?:style|on\w+)=", self.markup), [])

    def test_it_names_no_address_elsewhere(self) -> None:
        known = ("http://www.w3.org/2000/svg", "http://host:9998")
        addresses = re.findall(r"https?://[^\s\"'`)]+", self.text)
        self.assertEqual([a for a in addresses if not a.startswith(known)], [])
        self.assertEqual(re.findall(r"\burl\(|@import|\ssrc=|//cdn", self.text), [])

    def test_its_own_addresses_are_relative(self) -> None:
        absolute = r"""(?:fetch|request|getJson|sendJson)\((?:"\w+", )?["'`]/"""
        self.assertEqual(re.findall(absolute, self.script), [])

    def test_what_the_server_says_is_only_ever_text(self) -> None:
        parsers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser"
        self.assertEqual(re.findall(parsers, self.script), [])
        self.assertEqual(re.findall(r"\beval\(|new Function|srcdoc", self.script), [])

    def test_every_word_is_there_in_both_languages(self) -> None:
        words = page_words()
        table = self.script.partition("const WORDS = {")[2].partition("\n};")[0]
        self.assertEqual(len(words), len(re.findall(r"^  \w+:", table, re.MULTILINE)))
        for key, (french, english) in words.items():
            with self.subTest(key):
                self.assertTrue(french and english)
                holes = [set(re.findall(r"\{\w+\}", w)) for w in (french, english)]
                self.assertEqual(holes[0] | {"{n}"}, holes[1] | {"{n}"})

    def test_every_word_that_it_uses_is_there(self) -> None:
        used = set(re.findall(r"""\bt\("(\w+)["]""", self.script))
        used |= set(re.findall(r'data-t(?:-\w+)?="(\w+)"', self.markup))
        self.assertEqual(used - set(page_words()), set())

    def test_the_words_of_the_contract_are_exact(self) -> None:
        words = {key: french for key, (french, _) in page_words().items()}
        expected = {
            "title": "Déclenchement Manuel",
            "run": "▶ Exécuter",
            "status_running": "En cours",
            "run_now": "Exécuter maintenant",
            "plan": "Planifier…",
            "starting": "Démarrage…",
            "started": "✅ Cron démarré avec succès !",
            "already_running": "Ce cron est déjà en cours d'exécution. "
            "Attendez sa fin.",
        }
        self.assertEqual({key: words[key] for key in expected}, expected)

    def test_the_dark_theme_redefines_the_ten_colours_and_nothing_else(self) -> None:
        themes = re.findall(r":root \{(.*?)\}", self.style, re.DOTALL)
        names = [re.findall(r"(--[\w]+):", theme) for theme in themes]
        self.assertEqual(len(names[0]), 10)
        self.assertEqual(names[0], names[1])
        other_colours = re.findall(r"#[0-9a-f]{3,8}\b", self.style.split("Ground")[1])
        self.assertEqual(other_colours, [])


# ---- The browser


class Kit:
    """What all tests with a browser share: the browser itself, and axe-core."""

    browser: Optional[Browser] = None
    closing = contextlib.ExitStack()
    axe = ""

    @classmethod
    def start(cls) -> Browser:
        if cls.browser is None:
            cls.browser = cls.closing.enter_context(chromium())
        return cls.browser

    @classmethod
    def axe_source(cls) -> str:
        if not cls.axe:
            folder = npm_folder("axe-core@4") / "node_modules" / "axe-core"
            cls.axe = (folder / "axe.min.js").read_text(encoding="utf-8")
        return cls.axe


def tearDownModule() -> None:
    Kit.closing.close()
    Kit.browser = None


@contextlib.contextmanager
def chromium() -> Iterator[Browser]:
    """A real Chromium: the distribution's, since Playwright may not have its own."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        need(False, "Playwright for Python is not installed (pip install playwright)")
        raise
    names = ("chromium", "chromium-browser", "google-chrome")
    path = next(filter(None, map(shutil.which, names)), None)
    need(path, "there is no Chromium (apt install chromium)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


def sees(locator: Locator, text: Any = None) -> Locator:
    """Wait until a person would see it (with this text in it); fail otherwise."""
    from playwright.sync_api import expect

    expect(locator).to_be_visible()
    if text is not None:
        expect(locator).to_contain_text(text)
    return locator


def gone(locator: Locator, timeout_ms: int = 5000) -> None:
    from playwright.sync_api import expect

    expect(locator).to_be_hidden(timeout=timeout_ms)


SCRIPTS = {
    "quick": "#!/bin/sh\necho done\n",
    "slow": "#!/bin/sh\ni=0\nwhile [ $i -lt 1500 ]; do echo step $i; i=$((i+1)); "
    "sleep 0.1; done\n",
    "bad": "#!/bin/sh\necho it went wrong\nexit 2\n",
    "shot": "#!/bin/sh\nkill -9 $$\n",
    "params": "#!/bin/sh\nenv | grep ^CRON_PARAM_ | sort\n",
    "markup": "#!/bin/sh\nprintf '<img src=x onerror=alert(1)><b>bold</b>\\n"
    "\\033[31mred\\033[0m plain \\033[2K\\033]0;title\\007end\\n"
    "10%%\\r50%%\\r100%%\\n'\n",
    "long": "#!/bin/sh\nseq -f 'line %.0f of many' 100000\n",
}

PARAMETERS = {
    "target": {
        "type": "string",
        "title": "Target",
        "enum": ["staging", "production"],
        "default": "staging",
        "required": True,
    },
    "keep": {"type": "integer", "title": "Keep", "minimum": 1, "maximum": 30},
    "since": {"type": "string", "format": "date", "title": "Since"},
    "verbose": {"type": "boolean", "title": "Verbose", "default": True},
    "word": {"type": "string", "title": "Word", "pattern": "^[a-z]+$"},
    "token": {"type": "string", "format": "password", "title": "Token"},
}

REGISTRY: Dict[str, Any] = {
    "quick": {"description": "A quick one", "estimatedDuration": "2s"},
    "slow": {"description": "A slow one", "estimatedDuration": "1m30s"},
    "bad": {"description": "One that fails"},
    "shot": {"description": "One that is shot"},
    "params": {"description": "With parameters", "parameters": PARAMETERS},
    "markup": {"description": "<b>Markup</b> & colours"},
    "long": {"description": "A long log"},
    "missing": {"description": "Without a script"},
}

#: Told to the page before its own script: what a policy stopped shows in the console.
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("policy: " + event.violatedDirective + " " + event.blockedURI));
"""


def whole_registry() -> Dict[str, Any]:
    return {
        name: {"command": f"{name}.sh", **entry} for name, entry in REGISTRY.items()
    }


class BrowserTest(unittest.TestCase):
    """A real server, and a page of it; at the end nothing may have gone wrong in it."""

    language = "fr-FR"
    options: Dict[str, Any] = {}

    def setUp(self) -> None:
        need_full()
        browser = Kit.start()
        self.server = self.make_server()
        self.complaints: List[str] = []
        self.elsewhere: List[str] = []
        self.sent: List[Tuple[str, str, Dict[str, str]]] = []
        self.context = self.make_context(browser)
        self.page = self.new_page(self.context)
        self.words = page_words()

    def make_server(self) -> Server:
        server = Server(whole_registry(), start=False)
        self.addCleanup(server.__exit__)
        for name, text in SCRIPTS.items():
            server.script(f"{name}.sh", text)
        return server.start(*self.flags())

    def flags(self) -> List[str]:
        return []

    def make_context(self, browser: Browser, **options: Any) -> BrowserContext:
        context = browser.new_context(
            **{
                "locale": self.language,
                "timezone_id": "Europe/Paris",
                "viewport": {"width": 1200, "height": 800},
                **self.options,
                **options,
            }
        )
        context.set_default_timeout(8000)
        self.addCleanup(context.close)
        return context

    def new_page(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.add_init_script(WATCH_POLICY)
        page.on("console", self.heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", self.watched)
        return page

    def heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and NETWORK_NOTE not in message.text:
            self.complaints.append(message.text)

    def watched(self, request: Any) -> None:
        origin = f"http://127.0.0.1:{self.server.port}/"
        self.sent.append((request.method, request.url, request.headers))
        if not request.url.startswith((origin, "data:", f"blob:{origin}", "about:")):
            self.elsewhere.append(request.url)

    def tearDown(self) -> None:
        self.assertEqual(self.complaints, [], "the console must stay empty")
        self.assertEqual(self.elsewhere, [], "no request may leave the origin")

    # ---- what a person does

    def say(self, key: str, **values: Any) -> str:
        """Return the page's words in the language of this test."""
        words = self.words[key][LANGUAGES.index(self.language)]
        return re.sub(r"\{(\w+)\}", lambda m: str(values[m[1]]), words)

    def open(self, fragment: str = "") -> Page:
        self.page.goto(f"http://127.0.0.1:{self.server.port}/{fragment}")
        sees(self.page.locator("#connection"), self.say("live"))
        return self.page

    def card(self, name: str) -> Locator:
        return self.page.locator(f'#grid > [data-key="{name}"]')

    def press(self, name: str) -> Locator:
        """Press a cron's button; return the dialog."""
        button = self.card(name).get_by_role("button", name=self.say("run"))
        button.click()
        return sees(self.page.get_by_role("dialog"))

    def button(self, key: str) -> Locator:
        return self.page.get_by_role("button", name=self.say(key), exact=True)

    def rows(self) -> Locator:
        return self.page.locator("#runs > li")

    def look(self, name: str, page: Optional[Page] = None) -> None:
        """Keep a picture, so that one can look at it."""
        SCREENSHOTS.mkdir(exist_ok=True)
        (page or self.page).screenshot(path=SCREENSHOTS / f"{name}.png")

    def posts(self) -> List[Tuple[str, str, Dict[str, str]]]:
        return [sent for sent in self.sent if sent[0] == "POST"]


class BothLanguages(BrowserTest):
    """What a person does; each test in French and in English, by the classes below."""

    def test_a_press_starts_a_cron_and_its_end_is_told_without_a_reload(self) -> None:
        page = self.open()
        page.route("**/trigger", held_back)
        dialog = self.press("quick")
        sees(dialog, "A quick one")
        sees(dialog.locator(".mono"), "quick")
        sees(dialog, "2 s")
        self.button("run_now").click()
        sees(dialog.get_by_text(self.say("starting"), exact=True))
        sees(dialog.get_by_text(self.say("started"), exact=True))
        shown = time.monotonic()
        gone(page.get_by_role("dialog"))
        self.assertAlmostEqual(time.monotonic() - shown, 2, delta=1.2)
        sees(page.locator(".toast"), self.say("status_completed"))
        sees(self.card("quick"), self.say("status_completed"))
        sees(page.locator("#figure-runs"), "1")
        sees(self.rows().first, "A quick one")

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
        page.keyboard.press("Enter")
        sees(page.get_by_text(self.say("started"), exact=True))
        gone(page.get_by_role("dialog"))
        expect(button).to_be_focused()

    def test_a_cron_that_runs_shows_its_time_and_is_not_started_again(self) -> None:
        page = self.open()
        self.server.trigger("slow")
        card = self.card("slow")
        sees(card, self.say("status_running"))
        sees(card, self.say("about", duration="1 min 30 s"))
        bar = card.get_by_role("progressbar")
        wait_until(lambda: int(bar.get_attribute("aria-valuenow") or 0) >= 1)
        self.press("slow")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("already_running"))
        self.assertEqual(len(self.posts()), 1)
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
        sees(page.locator("#param-keep-error"), "30")
        sees(page.locator("#param-word-error"))
        expect(keep).to_have_attribute("aria-invalid", "true")
        expect(keep).to_be_focused()
        self.look(f"refused-{self.language}")
        keep.fill("3")
        dialog.get_by_label("Word").fill("lower")
        dialog.get_by_label("Target").select_option("production")
        dialog.get_by_label("Since").fill("2026-11-23")
        dialog.get_by_label("Token").fill("s3cret-token")
        self.button("run_now").click()
        sees(page.get_by_text(self.say("started"), exact=True))
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
        sees(page.locator("#plan-words"), words)
        self.look(f"plan-{self.language}")
        self.button("plan_send").click()
        sees(page.locator("#trigger-notice"), words)
        planned = self.server.get("/scheduled").json["scheduled"][0]
        at_utc = datetime.datetime.fromisoformat(planned["runAt"]).astimezone(
            datetime.timezone.utc
        )
        self.assertEqual(at_utc.isoformat(), "2099-01-01T09:00:00+00:00")
        gone(page.get_by_role("dialog"))
        row = sees(page.locator("#planned > li"), "A quick one")
        cancel = row.get_by_role("button")
        sees(cancel, self.say("plan_cancel"))
        cancel.click()
        sees(cancel, self.say("plan_confirm"))
        cancel.click()
        sees(page.locator("#planned > li"), self.say("status_cancelled"))
        planned = self.server.get("/scheduled").json["scheduled"][0]
        self.assertEqual(planned["status"], "cancelled")

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
        three = self.say("title_failed", n=3, title=self.say("title")).split("|")[-1]
        wait_until(lambda: page.title() == three, what="the title")

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

    def test_a_running_cron_is_followed_and_cancelled(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        sees(self.rows().first, self.say("status_running"))
        self.rows().first.click()
        sees(page.locator("#log").get_by_text("step 12", exact=True))
        self.assertIn(f"run={run_id}", page.url)
        cancel = page.locator("#run-cancel")
        cancel.click()
        sees(cancel, self.say("cancel_confirm"))
        cancel.click()
        sees(page.locator("#run-facts"), self.say("status_cancelled"))
        gone(cancel)
        sees(page.locator(".toast"), self.say("status_cancelled"))
        self.assertEqual(self.server.run(run_id)["status"], "cancelled")

    def test_the_secret_is_asked_for_and_a_wrong_one_told(self) -> None:
        self.server.stop()
        self.server.start("--secret=right-secret-of-the-test")
        page = self.page
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        dialog = sees(page.get_by_role("dialog"), self.say("secret_title"))
        field = dialog.get_by_label(self.say("secret"), exact=True)
        field.fill("wrong")
        page.keyboard.press("Enter")
        sees(dialog, self.say("secret_wrong"))
        self.look(f"secret-wrong-{self.language}")
        field.fill("right-secret-of-the-test")
        page.keyboard.press("Enter")
        gone(page.locator("#secret-dialog"))
        sees(self.card("quick"))
        page.reload()
        sees(page.locator("#connection"), self.say("live"))
        self.assertFalse([url for _, url, _ in self.sent if "right-secret" in url])
        other_tab = self.new_page(self.context)
        other_tab.goto(page.url)
        sees(other_tab.get_by_role("dialog"), self.say("secret_title"))
        for _ in range(10):
            self.server.get("/crons", **{"X-Trigger-Secret": "wrong"})
        other_tab.get_by_label(self.say("secret"), exact=True).fill("wrong")
        other_tab.keyboard.press("Enter")
        told = self.say("secret_wait", seconds="").split("  ")[0].split(".")[0]
        sees(other_tab.get_by_role("dialog"), told)

    def test_a_lost_connection_is_shown_and_mended_by_itself(self) -> None:
        page = self.open()
        self.server.trigger("slow")
        sees(self.card("slow"), self.say("status_running"))
        port = self.server.port
        self.server.kill()
        sees(page.locator("#connection"), self.say("offline"))
        sees(page.locator("#offline"))
        sees(self.card("quick"))
        self.look(f"lost-{self.language}")
        # What happened meanwhile is told once the connection is back.
        self.server.end_runs()
        self.server.start(port=port)
        from playwright.sync_api import expect

        expect(page.locator("#connection")).to_contain_text(
            self.say("live"), timeout=15000
        )
        gone(page.locator("#offline"))
        sees(page.locator(".toast"), "A slow one")

    def test_without_a_server_the_page_says_what_to_do(self) -> None:
        page = self.page
        page.route("**/crons", lambda route: route.abort())
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        sees(page.locator("#crons-empty"), self.say("down_title"))
        sees(page.locator("#crons-empty"), "systemctl status")
        self.look(f"down-{self.language}")
        page.unroute("**/crons")
        page.route("**/crons", lambda route: route.fulfill(status=500, json={}))
        page.locator("#crons-empty").get_by_role("button").click()
        sees(page.locator("#crons-empty"), self.say("failed_title"))
        page.unroute("**/crons")
        page.locator("#crons-empty").get_by_role("button").click()
        sees(self.card("quick"))

    def test_an_empty_registry_and_an_empty_history_say_so(self) -> None:
        page = self.open()
        sees(page.locator("#runs-empty"), self.say("history_empty"))
        sees(self.card("quick"), self.say("status_never"))
        self.server.write_registry({})
        self.server.get("/crons")  # it is read again when someone asks
        sees(page.locator("#crons-empty"), self.say("empty_title"))
        sees(page.locator("#planned-empty"))
        self.look(f"empty-{self.language}")

    def test_the_language_can_be_switched_and_is_remembered(self) -> None:
        page = self.open()
        other = "en" if self.language == "fr-FR" else "fr"
        self.assertEqual(page.locator("html").get_attribute("lang"), self.language[:2])
        self.button("other_language").click()
        title = self.words["title"][["fr", "en"].index(other)]
        sees(page.get_by_role("heading", level=1), title)
        self.assertEqual(page.locator("html").get_attribute("lang"), other)
        page.reload()
        sees(page.get_by_role("heading", level=1), title)


class InFrench(BothLanguages):
    language = "fr-FR"


class InEnglish(BothLanguages):
    language = "en-GB"


del BothLanguages  # not a test of its own


def held_back(route: Route) -> None:
    """Hold a request back a little: what is shown meanwhile can be seen."""
    threading.Event().wait(0.3)
    route.continue_()


class Never(BrowserTest):
    """One press, one run: whatever the hand or the network does."""

    def test_a_double_click_sends_one_trigger(self) -> None:
        page = self.open()
        page.route("**/trigger", held_back)
        self.press("quick")
        self.button("run_now").dblclick()
        sees(page.get_by_text(self.say("started"), exact=True))
        self.assertEqual(len(self.posts()), 1)
        self.assertRegex(self.posts()[0][2]["idempotency-key"], r"^[!-~]{8,64}$")

    def test_each_opened_dialog_has_a_key_of_its_own(self) -> None:
        self.open()
        for name in ("quick", "bad"):
            self.press(name)
            self.button("run_now").click()
            gone(self.page.get_by_role("dialog"))
        keys = {headers["idempotency-key"] for _, _, headers in self.posts()}
        self.assertEqual(len(keys), 2)

    def test_after_a_lost_answer_another_try_starts_nothing_twice(self) -> None:
        page = self.open()

        def lose_the_answer(route: Route) -> None:
            route.fetch()
            route.abort()

        page.route("**/trigger", lose_the_answer, times=1)
        self.press("quick")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("no_answer"))
        self.button("run_now").click()
        sees(page.get_by_text(self.say("started"), exact=True))
        self.assertEqual(len(self.posts()), 2)
        self.assertEqual(len(self.server.get("/runs").json["runs"]), 1)

    def test_a_script_that_cannot_start_says_why(self) -> None:
        page = self.open()
        self.press("missing")
        self.button("run_now").click()
        sees(page.locator("#trigger-notice"), self.say("launch_failed"))
        sees(page.locator("#trigger-notice"), "missing.sh")

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


class Logs(BrowserTest):
    def show(self, run: Mapping[str, Any]) -> Locator:
        self.open(f"#run={run['id']}")
        return sees(self.page.locator("#log"))

    def test_markup_stays_text_and_escapes_become_colours_or_nothing(self) -> None:
        run = self.server.completed("markup")
        log = self.show(run)
        sees(log, "<img src=x onerror=alert(1)><b>bold</b>")
        self.assertEqual(log.locator("img, b").count(), 0)
        sees(log.locator(".ansi-red"), "red")
        sees(log.locator(".log-line").nth(1), "red plain end")
        self.assertEqual(log.locator(".log-line").nth(2).inner_text(), "100%")
        self.assertNotIn("\x1b", log.inner_text())
        sees(self.page.locator("#run-title"), "<b>Markup</b> & colours")
        self.look("markup")

    def test_a_hundred_thousand_lines_do_not_freeze_it(self) -> None:
        run = self.server.completed("long")
        began = time.monotonic()
        log = self.show(run)
        sees(self.page.locator("#log-count"), re.compile(r"100.000"))
        self.assertLess(time.monotonic() - began, 5)
        self.assertLess(log.locator(".log-line").count(), 200)
        longest_ms = self.page.evaluate(LONGEST_FRAME, "line 99999 of")
        self.assertLess(longest_ms, 1000)
        sees(log.locator("mark"), "line 99999 of")
        sees(self.page.locator("#log-count"), self.say("log_found", i=1, n=1))

    def test_it_is_searched_with_the_keyboard(self) -> None:
        run = self.server.completed("long")
        log = self.show(run)
        sees(self.page.locator("#log-count"), re.compile(r"100.000"))
        search = self.page.get_by_label(self.say("log_search"))
        search.fill("LINE 5000")
        for _ in range(2):
            search.press("Enter")
        search.press("Shift+Enter")
        sees(self.page.locator("#log-count"), "2 sur 11")
        sees(log.locator("mark.current"), "line 5000")
        search.fill("nowhere")
        sees(self.page.locator("#log-count"), self.say("log_not_found"))

    def test_it_is_copied_and_downloaded_whole(self) -> None:
        run = self.server.completed("markup")
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.show(run)
        sees(self.page.locator(".ansi-red"))
        self.button("copy").click()
        sees(self.page.locator("#log-copy"), self.say("copied"))
        copied = self.page.evaluate("navigator.clipboard.readText()")
        self.assertEqual(copied.splitlines()[1], "red plain end")
        with self.page.expect_download() as download:
            self.button("download").click()
        self.assertEqual(download.value.suggested_filename, f"markup-{run['id']}.log")
        self.assertEqual(
            Path(download.value.path()).read_bytes(),
            self.server.get(f"/runs/{run['id']}/log").body,
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
        sees(self.page.locator("#log-copy"), self.say("copied"))
        self.assertEqual(self.page.evaluate("window.copied"), "copy done\n")

    def test_it_follows_the_end_unless_one_scrolls_up(self) -> None:
        run = self.server.trigger("slow").json["runId"]
        log = self.show({"id": run})
        sees(log.get_by_text("step 40", exact=True))
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
        bars = self.card("quick").locator(".spark .bar")
        self.assertEqual(bars.count(), 18)
        self.assertIn(self.say("status_completed"), bars.last.text_content() or "")

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

    def test_exact_values_stand_in_tooltips(self) -> None:
        self.server.completed("quick")
        self.open()
        row = self.rows().first
        title = row.locator(".when span").first.get_attribute("title") or ""
        self.assertRegex(title, r"^\d+ ms$")
        when = row.locator("time").get_attribute("title") or ""
        self.assertRegex(when, r"\d{4} à \d\d:\d\d:\d\d")


class Connection(BrowserTest):
    def test_without_events_it_refreshes_each_30_s_and_says_so(self) -> None:
        page = self.page
        page.route("**/events", lambda route: route.fulfill(status=404, json={}))
        page.clock.install()
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        page.clock.run_for(1000)
        sees(page.locator("#connection"), self.say("polling"))
        self.look("polling")
        self.server.completed("quick")
        running = self.server.trigger("slow").json["runId"]
        page.clock.run_for(31000)
        sees(self.card("quick"), self.say("status_completed"))
        sees(self.card("slow"), self.say("status_running"))
        self.server.request("POST", f"/runs/{running}/cancel")
        self.server.ended(running)
        page.clock.run_for(31000)
        sees(page.locator(".toast"), self.say("status_cancelled"))

    def test_pauses_grow_while_the_server_is_away(self) -> None:
        page = self.page
        page.route("**/events", lambda route: route.abort())
        page.clock.install()
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        sees(page.locator("#connection"), self.say("offline"))
        for _ in range(60):
            page.clock.run_for(1000)
        tries = [url for _, url, _ in self.sent if url.endswith("/events")]
        self.assertIn(len(tries), range(4, 9))
        page.unroute("**/events")
        self.button("retry").click()
        page.clock.run_for(1000)
        sees(page.locator("#connection"), self.say("live"))

    def test_a_hidden_tab_rests_and_is_true_again_when_it_is_seen(self) -> None:
        page = self.open()
        page.evaluate(SET_HIDDEN, True)
        wait_until(lambda: self.connection() == "resting", what="rest")
        asked = len(self.sent)
        self.server.completed("quick")
        self.assertEqual(len(self.sent), asked)
        page.evaluate(SET_HIDDEN, False)
        sees(page.locator("#connection"), self.say("live"))
        sees(self.card("quick"), self.say("status_completed"))

    def test_a_hidden_tab_still_tells_the_end_of_what_runs(self) -> None:
        page = self.open()
        run_id = self.server.trigger("slow").json["runId"]
        running = self.say("title_running", n=1, title=self.say("title"))
        wait_until(lambda: page.title() == running, what="the title")
        icon = "document.querySelector('link[rel=icon]').href"
        blue = page.evaluate(icon)
        page.evaluate(SET_HIDDEN, True)
        self.assertEqual(self.connection(), "live")
        self.server.request("POST", f"/runs/{run_id}/cancel")
        wait_until(lambda: page.title() == self.say("title"), what="the title")
        self.assertNotEqual(page.evaluate(icon), blue)
        wait_until(lambda: self.connection() == "resting", what="rest")

    def connection(self) -> Optional[str]:
        return self.page.locator("#connection").get_attribute("data-connection")

    def test_the_secret_never_stands_in_an_address(self) -> None:
        self.server.stop()
        self.server.start("--secret=a-secret-in-a-header")
        self.page.add_init_script(
            "sessionStorage.setItem('cron-trigger-secret', 'a-secret-in-a-header')"
        )
        self.open()
        events = [h for _, url, h in self.sent if url.endswith("/events")]
        self.assertEqual(events[0]["x-trigger-secret"], "a-secret-in-a-header")
        self.assertFalse([url for _, url, _ in self.sent if "a-secret" in url])

    def test_it_works_behind_a_proxy_under_a_prefix(self) -> None:
        with prefix_proxy(self.server.port) as port:
            origin = f"http://127.0.0.1:{port}/crons/"
            self.page.goto(origin)
            sees(self.page.locator("#connection"), self.say("live"))
            self.press("quick")
            self.button("run_now").click()
            sees(self.page.get_by_text(self.say("started"), exact=True))
            sees(self.page.locator(".toast"), self.say("status_completed"))
            outside = [u for u in self.elsewhere if not u.startswith(origin)]
            self.assertEqual(outside, [])
            self.elsewhere.clear()

    def test_what_the_server_survives_is_shown(self) -> None:
        page = self.open()
        self.server.registry.write_text("{ broken", encoding="utf-8")
        wait_until(lambda: "problems" in self.server.get("/health").json)
        page.reload()
        sees(page.locator("#problems"), self.say("problems", problems=""))


SET_HIDDEN = """(hidden) => {
  Object.defineProperty(document, "hidden", {value: hidden, configurable: true});
  document.dispatchEvent(new Event("visibilitychange"));
}"""


class PrefixProxy(BaseHTTPRequestHandler):
    """As a reverse proxy serves the page under /crons/: the prefix taken off."""

    protocol_version = "HTTP/1.0"
    upstream = 0

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def forward(self) -> None:
        if not self.path.startswith("/crons/"):
            self.send_error(404)
            return
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        upstream = http.client.HTTPConnection("127.0.0.1", self.upstream, timeout=30)
        skipped = ("connection", "accept-encoding")
        headers = {k: v for k, v in self.headers.items() if k.lower() not in skipped}
        with contextlib.closing(upstream), contextlib.suppress(OSError):
            upstream.request(self.command, self.path[6:], body or None, headers)
            self.pass_on(upstream.getresponse())

    def pass_on(self, answer: http.client.HTTPResponse) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "keep-alive"):
                self.send_header(name, value)
        self.end_headers()
        while True:
            some = answer.read1(65536)
            if not some:
                return
            self.wfile.write(some)

    do_GET = do_POST = do_DELETE = forward


@contextlib.contextmanager
def prefix_proxy(upstream: int) -> Iterator[int]:
    class Server_(socketserver.ThreadingTCPServer):
        daemon_threads = True

    handler = type("Handler", (PrefixProxy,), {"upstream": upstream})
    with Server_(("127.0.0.1", 0), handler) as proxy:
        thread = threading.Thread(target=proxy.serve_forever, name="proxy")
        thread.start()
        try:
            yield proxy.server_address[1]
        finally:
            proxy.shutdown()
            thread.join()


class ManyCrons(BrowserTest):
    def make_server(self) -> Server:
        names = [f"cron-{n:03}" for n in range(200)]
        registry: Dict[str, Any] = {
            name: {"command": "quick.sh", "description": f"Tâche numéro {name[5:]}"}
            for name in names
        }
        registry["cron-077"]["description"] = "Sauvegardé à l'été"
        server = Server(registry, start=False)
        self.addCleanup(server.__exit__)
        server.script("quick.sh", SCRIPTS["quick"])
        return server.start()

    def test_two_hundred_are_shown_quickly_and_found_by_search(self) -> None:
        began = time.monotonic()
        page = self.open()
        sees(self.card("cron-000"))
        self.assertLess(time.monotonic() - began, 4)
        keys = page.locator("#grid > li")
        order = keys.evaluate_all("items => items.map((i) => i.dataset.key)")
        self.assertEqual(order, sorted(order))
        search = page.get_by_label(self.say("search_label"))
        search.fill("sauvegarde a l'ete")
        sees(self.card("cron-077"))
        self.assertEqual(page.locator("#grid > li:visible").count(), 1)
        search.fill("nowhere")
        sees(page.locator("#crons-empty"), "nowhere")
        self.button("search_clear").click()
        sees(self.card("cron-000"))
        rebuild_ms = page.evaluate(
            "() => { const t = performance.now(); render(); void document.body"
            ".offsetHeight; return performance.now() - t; }"
        )
        self.assertLess(rebuild_ms, 600)


# ---- For everyone: axe-core, screen readers, small screens, both themes


class ForEveryone(BrowserTest):
    """Each state, in light, dark and on a phone: looked at by axe-core, and kept."""

    looks: Tuple[Tuple[str, Dict[str, Any]], ...] = (
        ("light", {"color_scheme": "light"}),
        ("dark", {"color_scheme": "dark", "locale": "en-GB"}),
        (
            "phone",
            {"color_scheme": "dark", "viewport": {"width": 360, "height": 740}},
        ),
    )

    def test_axe_finds_nothing_in_any_state_and_nothing_is_cut_off(self) -> None:
        for name in ("quick", "bad", "shot", "markup"):
            self.server.completed(name)
        self.server.trigger("slow", runAt="2099-01-01T10:00:00+00:00")
        running = self.server.trigger("slow").json["runId"]
        self.addCleanup(self.server.request, "POST", f"/runs/{running}/cancel")
        for look, options in self.looks:
            self.language = options.get("locale", "fr-FR")
            context = self.make_context(Kit.start(), **options)
            self.page = self.new_page(context)
            with self.subTest(look):
                self.every_state(look)
            context.close()

    def every_state(self, look: str) -> None:
        page = self.open()
        sees(self.rows().nth(3))
        self.check(f"page-{look}")
        self.press("params")
        self.check(f"dialog-{look}")
        page.locator("#param-keep").fill("99")
        self.button("plan").click()
        self.button("plan_send").click()
        sees(page.locator("#param-keep-error"), "30")
        self.check(f"dialog-refused-{look}")
        page.keyboard.press("Escape")
        self.press("slow")
        self.check(f"dialog-running-{look}")
        page.keyboard.press("Escape")
        page.locator("#runs > li", has_text="Markup").first.click()
        sees(page.locator(".ansi-red"))
        page.locator("#log-search").fill("plain")
        self.check(f"run-{look}")
        page.keyboard.press("Escape")
        page.keyboard.press("Escape")
        gone(page.get_by_role("dialog"))
        self.server.completed("bad")
        sees(page.locator(".toast").first)
        self.check(f"toast-{look}")
        # A toast must not lie over the buttons of a dialog.
        self.press("quick").get_by_role("button", name=self.say("plan")).click()
        self.check(f"dialog-toast-{look}")
        page.keyboard.press("Escape")
        page.route("**/crons", lambda route: route.abort())
        page.goto("about:blank")
        page.goto(f"http://127.0.0.1:{self.server.port}/")
        sees(page.locator("#crons-empty"))
        self.check(f"down-{look}")
        answer = {"success": False, "error": "No.", "code": "unauthorized"}
        page.unroute("**/crons")
        page.route(
            re.compile("crons$|events$"),
            lambda route: route.fulfill(status=401, json=answer),
        )
        page.locator("#crons-empty").get_by_role("button").click()
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
        self.page.evaluate(Kit.axe_source())
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
        for role in ("banner", "main", "contentinfo"):
            expect(page.get_by_role(role)).to_have_count(1)
        # All outside of an open dialog is silent: the region must move into it.
        self.press("quick")
        self.server.completed("bad")
        expect(page.locator("dialog[open] [aria-live]")).to_contain_text(
            "One that fails"
        )
        sees(page.locator("dialog[open] .toast"))

    def test_nothing_moves_where_motion_is_unwanted(self) -> None:
        self.context.close()
        self.context = self.make_context(Kit.start(), reduced_motion="reduce")
        self.page = self.new_page(self.context)
        self.server.trigger("slow")
        page = self.open()
        sees(self.card("slow"), self.say("status_running"))
        self.assertEqual(page.evaluate("document.getAnimations().length"), 0)

    def test_loading_is_shown_calmly(self) -> None:
        page = self.page
        page.route("**/crons", held_back)
        page.goto(f"http://127.0.0.1:{self.server.port}/", wait_until="commit")
        sees(page.locator(".skeleton").first)
        self.look("loading")
        sees(self.card("quick"))
        self.assertEqual(page.locator(".skeleton").count(), 0)


ANIMATIONS_DONE = """() => Promise.all(document.getAnimations()
  .filter((a) => a.effect.getTiming().iterations !== Infinity)
  .map((a) => a.finished.catch(() => null)))"""


# ---- The README's picture


def make_screenshot(path: Path) -> None:
    """Show the shipped registry with a month of made-up history."""
    registry = json.loads((REPOSITORY / "crons.json").read_text(encoding="utf-8"))
    server = Server(
        {n: {**e, "command": "nap.sh"} for n, e in registry.items()}, start=False
    )
    with server:
        server.script("nap.sh", "#!/bin/sh\nsleep 60\n")
        server.start()
        server.stop()
        make_up_history(server, registry)
        server.start()
        with chromium() as browser:
            page = browser.new_page(
                locale="fr-FR", viewport={"width": 1180, "height": 880}
            )
            server.trigger("index-kb-progressive", requestedBy="amina@example.org")
            page.goto(f"http://127.0.0.1:{server.port}/")
            sees(page.locator(".card").first)
            sees(page.locator(".progress[role]"))
            page.evaluate(AGE_THE_RUN)
            page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


#: The run began just now; the picture shows it half way.  In Inter, where it is there.
AGE_THE_RUN = """() => new Promise((resolve) => {
  const fonts = getComputedStyle(document.body).fontFamily;
  document.body.style.setProperty("font-family", "Inter, " + fonts);
  clockAheadMs += 25000;
  tick();
  setTimeout(resolve, 1300);
})"""


def make_up_history(server: Server, registry: Mapping[str, Any]) -> None:
    """Write runs into the history as if a month had passed; always the same ones."""
    usual_ms = (2100, 1300, 41000, 1800, 38000, 3200, 8600)
    now = datetime.datetime.now(datetime.timezone.utc)
    rows = []
    for place, name in enumerate(registry):
        for age in range(34, 0, -1):
            wave = (place * 7 + age * 13) % 23 / 23
            started = now - datetime.timedelta(hours=age * 5 + place, minutes=wave * 50)
            status, code = "completed", 0
            if (place * 11 + age * 7) % 41 == 5 or (place, age) == (3, 1):
                status, code = "failed", 2
            elif (place * 5 + age * 3) % 67 == 9:
                status, code = "cancelled", 143
            duration = int(usual_ms[place % 7] * (0.5 + 0.5 * wave + wave**6))
            ended = started + datetime.timedelta(milliseconds=duration)
            rows.append(
                (name, status, iso(started), iso(ended), duration, code)
                + (("http", "172.18.0.5") if age % 3 else ("cli", "root"))
            )
    rows.sort(key=lambda row: row[2])
    with contextlib.closing(sqlite3.connect(server.state_dir / "history.db")) as db:
        db.executemany(
            "insert into cron_executions (cron_name, status, started_at, completed_at,"
            " duration_ms, exit_code, trigger, client) values (?, ?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        db.commit()


def iso(moment: datetime.datetime) -> str:
    return moment.isoformat(timespec="milliseconds")


if __name__ == "__main__":
    if sys.argv[1:] == ["--screenshot"]:
        make_screenshot(REPOSITORY / "tests" / "dashboard.png")
    else:
        unittest.main()
