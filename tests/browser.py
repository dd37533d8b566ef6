"""What the tests of the page share: a real Chromium, and a page of a real server.

They need Playwright for Python and a Chromium, and run only where
CRON_TRIGGER_TEST_FULL=1.  They leave a picture of each state in tests/screenshots/,
which git ignores.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib.util
import re
import shutil
import subprocess
import unittest
from pathlib import Path
from typing import TYPE_CHECKING, Any, Iterator, Optional, Sequence

from support import REPOSITORY, Server, need, need_full, wait_until

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Locator, Page, Route

DASHBOARD = REPOSITORY / "cron_trigger" / "dashboard"
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


def words_text() -> str:
    names = ("dictionary.js", "error-words.js")
    return "\n".join((DASHBOARD / n).read_text(encoding="utf-8") for n in names)


def page_words() -> dict[str, tuple[str, str]]:
    """Return the page's words: key to French and English."""
    string = r'"((?:[^"\\]|\\.)*)"'
    found = re.findall(
        r"^  (\w+): \[\s*" + string + r",\s*" + string + r",?\s*\],$",
        words_text(),
        re.MULTILINE,
    )
    return {key: (french, english) for key, french, english in found}


class Kit:
    """The browser itself, started once for each module of tests."""

    browser: Optional[Browser] = None
    closing = contextlib.ExitStack()

    @classmethod
    def start(cls, path: str) -> Browser:
        if cls.browser is None:
            unittest.addModuleCleanup(cls.stop)
            cls.browser = cls.closing.enter_context(chromium(path=path))
        return cls.browser

    @classmethod
    def stop(cls) -> None:
        cls.closing.close()
        cls.browser = None


#: The first has no windows to draw, and takes two thirds of the time.
CHROMIUMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


def chromium_path(names: Sequence[str] = CHROMIUMS) -> str:
    """Return a real Chromium: the distribution's, since Playwright may have none."""
    need(
        importlib.util.find_spec("playwright"),
        "Playwright for Python is not installed (pip install playwright)",
    )
    path = next(filter(None, map(shutil.which, names)), None)
    need(path, "there is no Chromium (apt install chromium)")
    return str(path)


@contextlib.contextmanager
def chromium(*flags: str, path: Optional[str] = None) -> Iterator[Browser]:
    """A running Chromium."""
    path = path or chromium_path()
    from playwright.sync_api import expect, sync_playwright

    expect.set_options(timeout=15000)

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=path, args=[*CHROMIUM_FLAGS, *flags]
        )
        try:
            yield browser
        finally:
            browser.close()


def sees(locator: Locator, text: Any = None) -> Locator:
    """Wait until a person would see it (with this text in it); fail otherwise."""
    from playwright.sync_api import expect

    expect(locator).to_be_visible(timeout=15000)
    if text is not None:
        expect(locator).to_contain_text(text, timeout=15000)
    return locator


def gone(locator: Locator, timeout_ms: int = 15000) -> None:
    """Wait until nobody would see it."""
    from playwright.sync_api import expect

    expect(locator).to_be_hidden(timeout=timeout_ms)


@contextlib.contextmanager
def held_back(page: Page, address: str) -> Iterator[None]:
    """Hold a request back as long as one looks at what is shown meanwhile."""
    held: list[Route] = []
    page.route(address, lambda route: held.append(route), times=1)
    yield
    # Playwright tells of it only while it is asked something.
    wait_until(lambda: page.evaluate("true") and held, what="the request")
    held[0].continue_()


SCRIPTS = {
    "quick": "#!/bin/sh\necho done\n",
    "slow": "#!/bin/sh\ni=0\nwhile [ $i -lt 1500 ]; do echo step $i; i=$((i+1)); "
    "sleep 0.1; done\n",
    "bad": "#!/bin/sh\necho it went wrong\nexit 2\n",
    "shot": "#!/bin/sh\nkill -9 $$\n",
    "params": "#!/bin/sh\nenv | grep ^CRON_PARAM_ | sort\n",
    "plain": "#!/bin/sh\nenv | grep ^CRON_PARAM_ | sort\n",
    "markup": "#!/bin/sh\nprintf '<img src=x onerror=alert(1)><b>bold</b>\\n"
    "\\033[31mred\\033[0m plain \\033[2K\\033]0;title\\007end\\n"
    "10%%\\r50%%\\r100%%\\n\\033[7mreverse\\033[27m \\033[41mground\\033[0m\\n'\n",
    "long": "#!/bin/sh\nseq -f 'line %.0f of many' 100000\necho last words\nexit 3\n",
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
PLAIN = {name: PARAMETERS[name] for name in ("target", "keep")}

REGISTRY: dict[str, Any] = {
    "quick": {"description": "A quick one", "estimatedDuration": "2s"},
    "slow": {"description": "A slow one", "estimatedDuration": "1m30s"},
    "bad": {"description": "One that fails"},
    "shot": {"description": "One that is shot"},
    "params": {"description": "With parameters", "parameters": PARAMETERS},
    "plain": {"description": "With plain parameters", "parameters": PLAIN},
    "markup": {"description": "<b>Markup</b> & colours"},
    "long": {"description": "A long log"},
    "missing": {"description": "Without a script"},
}

#: Told to the page before its own script: what a policy stopped shows in the console.
WATCH_POLICY = """
addEventListener("securitypolicyviolation", (event) =>
  console.error("policy: " + event.violatedDirective + " " + event.blockedURI));
"""
#: On a busy machine nobody looks in time at words that stand there for 2 s: they are
#: kept.  And a SharedWorker that is silent for 3 s is late there, not missing.
PATIENCE = """
addEventListener("DOMContentLoaded", () => {
  window.said = [];
  for (const id of ["trigger-notice", "log-copy"]) {
    const place = document.getElementById(id);
    const keep = () => place.checkVisibility() && said.push(place.innerText);
    const kinds = {childList: true, attributes: true};
    if (place) new MutationObserver(keep).observe(place, kinds);
  }
});
const {setTimeout: soon} = window;
window.setTimeout = (action, ms, ...more) =>
  soon(action, ms === 3000 ? 60000 : ms, ...more);
"""


def whole_registry() -> dict[str, Any]:
    """Return the registry of most tests: each cron runs the script of its name."""
    return {
        name: {"command": f"{name}.sh", **entry} for name, entry in REGISTRY.items()
    }


class BrowserTest(unittest.TestCase):
    """A real server, and a page of it; at the end nothing may have gone wrong in it."""

    language = "fr-FR"
    options: dict[str, Any] = {}
    chromiums: Sequence[str] = CHROMIUMS

    def setUp(self) -> None:
        need_full()
        self.browser = Kit.start(chromium_path(self.chromiums))
        self.server = self.make_server()
        self.complaints: list[str] = []
        self.elsewhere: list[str] = []
        self.sent: list[tuple[str, str, dict[str, str]]] = []
        self.context = self.make_context()
        self.page = self.new_page(self.context)
        self.words = page_words()

    def make_server(self) -> Server:
        server = Server(whole_registry(), start=False)
        self.addCleanup(server.__exit__)
        for name, text in SCRIPTS.items():
            server.script(f"{name}.sh", text)
        return server.start()

    def make_context(self, **options: Any) -> BrowserContext:
        context = self.browser.new_context(
            **{
                "locale": self.language,
                "timezone_id": "Europe/Paris",
                "viewport": {"width": 1200, "height": 800},
                **self.options,
                **options,
            }
        )
        context.set_default_timeout(20000)
        context.on("request", self.watched)
        self.addCleanup(context.close)
        return context

    def new_page(self, context: BrowserContext) -> Page:
        page = context.new_page()
        page.add_init_script(WATCH_POLICY)
        page.add_init_script(PATIENCE)
        page.on("console", self.heard)
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        return page

    def heard(self, message: Any) -> None:
        if message.type in ("error", "warning") and NETWORK_NOTE not in message.text:
            self.complaints.append(message.text)

    def watched(self, request: Any) -> None:
        self.sent.append((request.method, request.url, request.headers))
        if not request.url.startswith((self.origin, "data:", f"blob:{self.origin}")):
            self.elsewhere.append(request.url)

    def tearDown(self) -> None:
        self.assertEqual(self.complaints, [], "the console must stay empty")
        self.assertEqual(self.elsewhere, [], "no request may leave the origin")

    # ---- what a person does

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.server.port}/"

    def say(self, key: str, **values: Any) -> str:
        """Return the page's words in the language of this test."""
        words = self.words[key][LANGUAGES.index(self.language)]
        return re.sub(r"\{(\w+)\}", lambda m: str(values[m[1]]), words)

    def open(self, fragment: str = "") -> Page:
        self.page.goto(f"{self.origin}{fragment}")
        sees(self.page.locator("#connection"), self.say("live"))
        return self.page

    def open_run(self, run_id: int) -> Locator:
        """Open a run by its address; return its log."""
        self.open(f"#run={run_id}")
        return sees(self.page.locator("#log"))

    def without_worker(self) -> None:
        """Have the page hold a stream of its own, which a test can cut or refuse."""
        self.page.add_init_script("delete window.SharedWorker")

    def card(self, name: str) -> Locator:
        return self.page.locator(f'#grid li[data-key="{name}"]')

    def press(self, name: str) -> Locator:
        """Press a cron's button; return the dialog."""
        button = self.card(name).get_by_role("button", name=self.say("run"))
        button.click()
        return sees(self.page.get_by_role("dialog"))

    def start_now(self, name: str) -> None:
        """Start a cron from its dialog, and wait until that has closed."""
        self.press(name)
        self.button("run_now").click()
        self.was_said(self.say("started"))
        gone(self.page.locator("#trigger-dialog"))

    def was_said(self, words: str) -> None:
        """Wait until it was shown, though it may be gone again."""
        found = "(words) => said.splice(0).some((text) => text.includes(words))"
        wait_until(lambda: self.page.evaluate(found, words), what=words)

    def stop_clock(self) -> None:
        """Have the page's timers wait for `run_for` or `resume` of its clock."""
        soon = datetime.datetime.now() + datetime.timedelta(seconds=10)
        self.page.clock.pause_at(soon)

    def button(self, key: str) -> Locator:
        return self.page.get_by_role("button", name=self.say(key), exact=True)

    def rows(self) -> Locator:
        return self.page.locator("#runs > tr")

    def look(self, name: str, page: Optional[Page] = None) -> None:
        """Keep a picture, so that one can look at it."""
        SCREENSHOTS.mkdir(exist_ok=True)
        (page or self.page).screenshot(path=SCREENSHOTS / f"{name}.png")

    def posts(self) -> list[tuple[str, str, dict[str, str]]]:
        return [sent for sent in self.sent if sent[0] == "POST"]

    def asked(self, path: str) -> int:
        """Return how often the browser has asked for an address."""
        return sum(url.endswith(path) for _, url, _ in self.sent)

    def connection(self) -> Optional[str]:
        return self.page.locator("#connection").get_attribute("data-connection")

    def restart(self, *flags: str) -> None:
        """Kill the server, and start it again where it was."""
        port = self.server.port
        self.server.kill()
        self.server.start(*flags, port=port)


def streams_of(port: int) -> int:
    """Return how many event streams are open at a server, by what the kernel says."""
    listed = subprocess.run(
        ["ss", "-tnH", "state", "established", f"( sport = :{port} )"],
        capture_output=True,
        text=True,
        check=True,
    )
    return len(listed.stdout.splitlines())


def eventually(predicate: Any, what: str) -> Any:
    return wait_until(predicate, 10, what)


def saved(download: Any) -> bytes:
    return Path(download.value.path()).read_bytes()
