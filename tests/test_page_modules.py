"""The page's files: what stands in them, and that their types hold."""

from __future__ import annotations

import re
import subprocess
import unittest

from beside import beside
from browser import DASHBOARD, page_words, words_text
from support import REPOSITORY, npm_folder, slow

TYPESCRIPT = "typescript@5"


class Files(unittest.TestCase):
    def setUp(self) -> None:
        self.modules = {
            path.name: path.read_text(encoding="utf-8")
            for path in sorted(DASHBOARD.glob("*.js"))
        }
        self.html = (DASHBOARD / "index.html").read_text(encoding="utf-8")
        self.style = (DASHBOARD / "style.css").read_text(encoding="utf-8")
        self.all = "\n".join([*self.modules.values(), self.html, self.style])

    def test_there_is_nothing_but_html_style_and_modules(self) -> None:
        others = [
            path.name
            for path in DASHBOARD.iterdir()
            if not re.fullmatch(r"index\.html|style\.css|[a-z-]+\.js", path.name)
        ]
        self.assertEqual(others, [])

    def test_a_module_fits_in_a_few_screens(self) -> None:
        long = {
            n: t.count("\n") for n, t in self.modules.items() if t.count("\n") >= 400
        }
        self.assertEqual(long, {})

    def test_each_module_begins_with_what_it_is_for(self) -> None:
        silent = [n for n, text in self.modules.items() if not text.startswith("/*")]
        self.assertEqual(silent, [])

    def test_nothing_stands_inline(self) -> None:
        self.assertEqual(re.findall(r"<style\b|\sstyle=|\son\w+=", self.html), [])
        scripts = re.findall(r"<script\b[^>]*>(.*?)</script>", self.html, re.DOTALL)
        self.assertEqual(set(scripts), {""})

    def test_every_module_that_is_loaded_is_asked_for_at_once(self) -> None:
        named = set(re.findall(r'(?:href|src)="([a-z-]+\.js)"', self.html))
        apart = {"types.js", "worker.js"}
        self.assertEqual(named, set(self.modules) - apart)

    def test_it_names_no_address_elsewhere(self) -> None:
        known = ("http://www.w3.org/2000/svg", "http://host:9998")
        addresses = re.findall(r"https?://[^\s\"'`)]+", self.all)
        self.assertEqual([a for a in addresses if not a.startswith(known)], [])
        self.assertEqual(re.findall(r"\burl\(|@import", self.style), [])

    def test_its_own_addresses_are_relative(self) -> None:
        absolute = r"""(?:fetch|request|getJson|sendJson)\((?:"\w+", )?["'`]/"""
        self.assertEqual(re.findall(absolute, self.all), [])
        self.assertEqual(re.findall(r"""(?:href|src)=["']/""", self.html), [])

    def test_what_the_server_says_is_only_ever_text(self) -> None:
        parsers = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser"
        self.assertEqual(re.findall(parsers, self.all), [])
        self.assertEqual(re.findall(r"\beval\(|new Function|srcdoc", self.all), [])

    def test_no_element_carries_the_pages_state(self) -> None:
        self.assertEqual(re.findall(r"\.dataset\b", self.all), [])

    def test_every_word_that_is_used_is_there_and_every_other_is_not(self) -> None:
        words = page_words()
        table = words_text()
        self.assertEqual(len(words), len(re.findall(r"^  \w+:", table, re.MULTILINE)))
        used = set(re.findall(r'data-t(?:-\w+)?="(\w+)"', self.html))
        self.assertEqual(used - set(words), set())
        for name in ("dictionary.js", "error-words.js"):
            del self.modules[name]
        text = "\n".join(self.modules.values())
        made = r"(status|by|only|bad|script)_\w+|plan_\w+_label"
        unused = [
            key
            for key in words
            if key not in used
            and not re.fullmatch(made, key)
            and not re.search(rf'"{key}"', text)
        ]
        self.assertEqual(unused, [])

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
            "rerun": "Relancer",
            "only_failed": "en échec",
            "only_running": "en cours",
            "only_late": "en retard",
            "late": "en retard",
        }
        self.assertEqual({key: words[key] for key in expected}, expected)
        self.assertTrue(words["next_run"].startswith("prochaine exécution"))

    def test_the_dark_theme_redefines_the_ten_colours_and_nothing_else(self) -> None:
        themes = re.findall(r":root \{(.*?)\}", self.style, re.DOTALL)
        names = [re.findall(r"(--[\w]+):", theme) for theme in themes]
        self.assertEqual(len(names[0]), 10)
        self.assertEqual(names[0], names[1])
        other_colours = re.findall(r"#[0-9a-f]{3,8}\b", self.style.split("Ground")[1])
        self.assertEqual(other_colours, [])

    @slow
    def test_the_types_hold(self) -> None:
        folder = npm_folder(TYPESCRIPT)
        checker = folder / "node_modules" / "typescript" / "bin" / "tsc"
        settings = REPOSITORY / "tests" / "page" / "tsconfig.json"
        done = subprocess.run(
            ["node", str(checker), "-p", str(settings)],
            capture_output=True,
            text=True,
            timeout=120,
        )
        self.assertEqual(done.returncode, 0, done.stdout[-4000:])


load_tests = beside


if __name__ == "__main__":
    unittest.main()
