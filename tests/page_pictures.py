"""Makes the README's pictures again: tests/dashboard.png and tests/run.png.

python3 tests/page_pictures.py
"""

from __future__ import annotations

import contextlib
import datetime
import json
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any, Mapping

from browser import chromium, sees
from support import REPOSITORY, Server

if TYPE_CHECKING:
    from playwright.sync_api import Page

FAILING = """#!/bin/sh
printf '\\033[1mIndexing the knowledge base\\033[0m\\n'
i=1
while [ $i -le 46 ]; do
    printf 'document %03d: 12 passages, \\033[32mup to date\\033[0m\\n' $i
    i=$((i+1))
done
printf '\\033[33mwarning\\033[0m: document 047 has no title\\n'
printf 'document 047: \\033[31mcannot be read: permission denied\\033[0m\\n'
printf '\\033[41m FAILED \\033[0m 46 of 47 documents indexed\\n'
exit 2
"""


def make_pictures() -> None:
    """Show the shipped registry with a month of made-up history."""
    registry = json.loads((REPOSITORY / "crons.json").read_text(encoding="utf-8"))
    registry.pop("$schema", None)
    entries = {n: {**e, "command": "nap.sh"} for n, e in registry.items()}
    failing = list(registry)[-1]
    entries[failing]["command"] = "failing.sh"
    with Server(entries, start=False) as server, chromium() as browser:
        server.script("nap.sh", "#!/bin/sh\nsleep 60\n")
        server.script("failing.sh", FAILING)
        server.start()
        server.stop()
        make_up_history(server, registry)
        server.start()
        page = browser.new_page(locale="fr-FR", viewport={"width": 1180, "height": 880})
        run = server.completed(failing, requestedBy="amina@example.org")
        take_run(page, server, run["id"], REPOSITORY / "tests" / "run.png")
        take_page(
            page, server, list(registry)[2], REPOSITORY / "tests" / "dashboard.png"
        )


def take_run(page: Page, server: Server, run_id: int, path: Path) -> None:
    page.goto(f"http://127.0.0.1:{server.port}/#run={run_id}")
    sees(page.locator("#log"), "46 of 47")
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


def take_page(page: Page, server: Server, name: str, path: Path) -> None:
    """A run began just now; the picture shows it half way, on a clock that is ahead."""
    server.trigger(name, requestedBy="amina@example.org")
    page.goto("about:blank")
    page.clock.install(
        time=datetime.datetime.now(datetime.timezone.utc)
        + datetime.timedelta(seconds=1)
    )
    page.goto(f"http://127.0.0.1:{server.port}/")
    sees(page.locator(".card").first)
    sees(page.locator(".progress[role]"))
    page.clock.run_for(25000)
    page.wait_for_timeout(1500)  # the bar is on its way
    page.screenshot(path=path)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB")


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
    make_pictures()
