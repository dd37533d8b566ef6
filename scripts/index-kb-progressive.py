#!/usr/bin/env python3
"""Keep a full-text index of a folder of documents, a bounded number at a time.

Call: index-kb-progressive.py [DOCUMENTS [CATEGORY]]
  DOCUMENTS  how many new or changed documents to index at most (500)
  CATEGORY   only this first-level subfolder of the folder (all)
To search: sqlite3 KB_INDEX "select path from kb where kb match 'word'"

Settings, by environment:
  KB_DIR    folder of documents (/usr/share/doc)
  KB_INDEX  the SQLite file (/var/lib/cron-trigger-server/kb-index.db as root, else
            $XDG_STATE_HOME/cron-trigger-server/kb-index.db)
  KB_BATCH  documents per transaction: what a killed run may have to do again (50)

Exit status: 0 done, 1 not all read or written, 64 wrong call, 78 invalid setting.
"""

import gzip
import os
import re
import sqlite3
import subprocess
import sys
from typing import NoReturn

TABLE = "create virtual table if not exists kb using fts5 (path, state unindexed, text)"
FILES = r"-mindepth 1 -name .* -prune -o -type f -printf %p\t%C@/%s\0"


def fail(status: int, sentence: str) -> NoReturn:
    print(f"index-kb-progressive : {sentence}", file=sys.stderr)
    sys.exit(status)


def text_of(path: str) -> str:
    """Return what the document says; nothing if it is no text or over 2 MiB."""
    # NOFOLLOW, NONBLOCK: meanwhile, it may have become a link or a FIFO.
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with open(handle, "rb") as file, gzip.open(file) as unzipped:
        data = (unzipped if path.endswith(".gz") else file).read(2**21 + 1) or b""
    return "" if len(data) > 2**21 or b"\0" in data else data.decode(errors="replace")


def update(index: sqlite3.Connection, category: str, limit: int, batch: int) -> int:
    command = ["find", f"./{category}", *FILES.split()]
    listed = subprocess.run(command, stdout=subprocess.PIPE, check=False)
    lines = listed.stdout.decode(errors="replace").split("\0")[:-1]
    found = dict(line[2:].rsplit("\t", 1) for line in lines)
    rows = index.execute("select path, rowid, state from kb").fetchall()
    known = {path: row for path, *row in rows if path.startswith(category)}
    if not found and (known or listed.returncode):  # rather a disk that is not mounted
        fail(78, "KB_DIR est vide ou illisible, ou find n'est pas celui de GNU.")
    gone = [row[:1] for path, row in known.items() if path not in found]
    if not listed.returncode:  # else, not all of that need be gone
        index.executemany("delete from kb where rowid = ?", gone)
    todo = [path for path in found if known.get(path, [0, ""])[1] != found[path]]
    todo.sort(key=known.__contains__)  # the new ones first
    unreadable = 0
    for number, path in enumerate(todo[:limit], 1):
        try:
            text, state = text_of(path), found[path]
        except Exception as error:  # forbidden, damaged, gone
            print(f"Illisible : {path!r} ({error})")
            text, state, unreadable = "", "", unreadable + 1  # to be tried again
        index.execute("delete from kb where rowid = ?", known.get(path, [0])[:1])
        index.execute("insert into kb values (?, ?, ?)", (path, state, text))
        if number % batch == 0:
            index.commit()
    index.commit()
    print(f"{len(found)} documents, dont {len(todo[limit:])} à indexer encore.")
    return 1 if unreadable or listed.returncode else 0


def main() -> int:
    documents, category = (*sys.argv[1:3], *("500", "")[len(sys.argv) - 1 :])
    batch = os.environ.get("KB_BATCH") or "50"
    home = "/var/lib" if os.geteuid() == 0 else os.environ.get("XDG_STATE_HOME")
    home = (home or os.path.expanduser("~/.local/state")) + "/cron-trigger-server"
    file = os.path.abspath(os.environ.get("KB_INDEX") or f"{home}/kb-index.db")
    for name, text in ("DOCUMENTS", documents), ("KB_BATCH", batch):
        if not re.fullmatch("[1-9][0-9]{0,5}", text):
            fail(64 if name == "DOCUMENTS" else 78, f"{name} va de 1 à 999999.")
    os.umask(0o077)
    try:
        os.makedirs(os.path.dirname(file), exist_ok=True)
        index = sqlite3.connect(file)
        index.execute(TABLE)
        os.chdir(os.environ.get("KB_DIR") or "/usr/share/doc")
    except (OSError, sqlite3.Error) as error:
        fail(78, f"KB_INDEX ({file!r}) ou KB_DIR ne convient pas : {error}.")
    inside = category and f"{category}/"
    if not re.fullmatch("([^./][^/]*/)?", inside) or not os.path.isdir(f"./{inside}"):
        fail(64, f"CATEGORIE : {category!r} n'est pas un sous-dossier de KB_DIR.")
    return update(index, inside, int(documents), int(batch))


if __name__ == "__main__":
    sys.tracebacklimit = 0  # what nobody foresaw is one line, and exit status 1
    sys.exit(main())
