#!/usr/bin/env python3
"""Keep a full-text index of a folder of documents, a bounded number at a time.

Call: index-kb-progressive.py [DOCUMENTS [CATEGORY]]
  DOCUMENTS  how many new or changed documents to index at most (500)
  CATEGORY   only this first-level subfolder of the folder (all)

A document is a readable text file, also gzipped. What did not change is not read
again, what was removed leaves the index, and each batch is one transaction: killed at
any moment, the next run goes on where this one stopped.

Settings, by environment:
  KB_DIR    folder of documents (/usr/share/doc if there, else /usr/share)
  KB_INDEX  the SQLite file (/var/lib/cron-trigger-server/kb-index.db as root, else
            $XDG_STATE_HOME/cron-trigger-server/kb-index.db)
  KB_BATCH  documents per transaction (50)

Exit status: 0 done, 1 the work failed, 64 wrong call, 78 a setting that does not hold.
"""

from __future__ import annotations

import errno
import gzip
import html
import io
import os
import re
import shlex
import sqlite3
import stat
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

EX_USAGE, EX_CONFIG = 64, 78

DEFAULT_DOCUMENTS, MAX_DOCUMENTS = 500, 100_000
DEFAULT_BATCH = 50
MAX_DOCUMENT_BYTES = 2 * 1024 * 1024
#: What is no fault of the setting that names the place.
DISK_TROUBLE = (errno.ENOSPC, errno.EDQUOT, errno.EIO)

SCHEMA = """
create table if not exists source (folder text not null);
create table if not exists documents (
  id integer primary key,
  path text not null unique,      -- below the folder
  category text not null,         -- first-level subfolder, or empty
  ctime_ns integer not null,      -- unlike mtime, moves when rights change
  size integer not null,
  skipped text                    -- why it is not in pages, or null
);
create virtual table if not exists pages using fts5 (title, body);
"""


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class Document(NamedTuple):
    path: str  # below the folder
    category: str
    ctime_ns: int
    size: int


class Scan(NamedTuple):
    documents: list[Document]
    unreadable: list[str]  # folders, relative; what is below them is not known


# --- settings ---------------------------------------------------------------------


def source_folder() -> Path:
    text = os.environ.get("KB_DIR")
    default = "/usr/share/doc" if os.path.isdir("/usr/share/doc") else "/usr/share"
    folder = Path(os.path.realpath(text or default))
    if not folder.is_dir():
        raise Fault(
            f"KB_DIR : {shown(str(folder))} n'est pas un dossier ; créez-le ou "
            "changez KB_DIR.",
            EX_CONFIG,
        )
    if not is_text(str(folder)):
        raise Fault(
            f"KB_DIR : le chemin {shown(str(folder))} n'est pas en UTF-8 ; renommez ce "
            "dossier ou changez KB_DIR.",
            EX_CONFIG,
        )
    return folder


def index_file() -> Path:
    text = os.environ.get("KB_INDEX")
    if text:
        return Path(os.path.abspath(text))
    if os.geteuid() == 0:
        return Path("/var/lib/cron-trigger-server/kb-index.db")
    state = os.environ.get("XDG_STATE_HOME") or os.path.expanduser("~/.local/state")
    return Path(os.path.abspath(state)) / "cron-trigger-server" / "kb-index.db"


def whole_number(text: str, what: str, maximum: int, status: int) -> int:
    if not re.fullmatch("[0-9]{1,9}", text) or not 1 <= int(text) <= maximum:
        raise Fault(
            f"{what} vaut « {shown(text)} » : donnez un nombre entier de 1 à "
            f"{maximum}.",
            status,
        )
    return int(text)


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


# --- documents --------------------------------------------------------------------


def scan(folder: Path, category: str) -> Scan:
    """List the documents. Symbolic links are not followed: one could lead to a file
    that the index's readers may not see."""
    found: list[Document] = []
    unreadable: list[str] = []

    def note(error: OSError) -> None:
        # A folder that just went away is no longer there to protect.
        if not isinstance(error, FileNotFoundError):
            unreadable.append(os.path.relpath(error.filename, folder))

    for parent, subfolders, names in os.walk(folder / category, onerror=note):
        if not os.access(parent, os.X_OK):  # it only gives the names
            unreadable.append(os.path.relpath(parent, folder))
            subfolders.clear()
            continue
        subfolders[:] = sorted(name for name in subfolders if visible(name))
        for name in sorted(filter(visible, names)):
            path = os.path.join(parent, name)
            try:
                status = os.lstat(path)
            except OSError:
                continue
            if stat.S_ISREG(status.st_mode):
                below = os.path.relpath(path, folder)
                first = below.split("/")[0] if "/" in below else ""
                found.append(Document(below, first, status.st_ctime_ns, status.st_size))
    return Scan(found, unreadable)


def visible(name: str) -> bool:
    """Return True unless the name is hidden, or no text that SQLite could keep."""
    return not name.startswith(".") and is_text(name)


def is_text(name: str) -> bool:
    return not re.search("[\udc80-\udcff]", name)  # bytes that are not UTF-8


def text_of(path: Path) -> str:
    """Return the document's text; raises ValueError with the reason if it has none."""
    # NONBLOCK: the file may have become a FIFO since it was listed
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(handle, "rb") as file:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise ValueError("pas un fichier ordinaire")
        zipped = path.suffix == ".gz"
        # Bounded after decompression: a small archive may hold gigabytes.
        source = gzip.GzipFile(fileobj=file) if zipped else file
        data = source.read(MAX_DOCUMENT_BYTES + 1)
    if len(data) > MAX_DOCUMENT_BYTES:
        raise ValueError("trop grand")
    if b"\0" in data:
        raise ValueError("pas du texte")
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if re.search(r"\.html?(\.gz)?$", path.name, re.I):
        text = html.unescape(re.sub(r"<[^>]*>", " ", text))
    return text


# --- index ------------------------------------------------------------------------


def make_file(file: Path) -> None:
    """Make the file if it is not there: SQLite would not say what hinders it."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise Fault(
            f"KB_INDEX vaut « {shown(str(file))} », où rien ne peut être écrit "
            f"({error.strerror}) : donnez le chemin d'un fichier.",
            1 if error.errno in DISK_TROUBLE else EX_CONFIG,
        ) from None


def open_index(file: Path, folder: Path) -> sqlite3.Connection:
    make_file(file)
    os.umask(0o077)
    # isolation_level None: transactions are begun by hand, one per batch
    index = sqlite3.connect(file, timeout=5, isolation_level=None)
    index.executescript(SCHEMA)
    row = index.execute("select folder from source").fetchone()
    if row is None:
        index.execute("insert into source values (?)", (str(folder),))
    elif row[0] != str(folder):
        raise Fault(
            f"{file} est l'index de {row[0]}, pas de {folder} : donnez à KB_INDEX un "
            "autre fichier.",
            EX_CONFIG,
        )
    return index


def known_documents(index: sqlite3.Connection, category: str) -> dict[str, Document]:
    rows = index.execute(
        "select path, category, ctime_ns, size from documents"
        " where ? in ('', category)",
        (category,),
    )
    return {row[0]: Document(*row) for row in rows}


def drop_removed(index: sqlite3.Connection, known: set[str], seen: Scan) -> int:
    """Forget what is gone; return how many. What lies below an unreadable folder is
    not known to be gone, and stays."""
    gone = known - {document.path for document in seen.documents}
    for folder in seen.unreadable:
        inside = "" if folder == "." else f"{folder}/"
        gone = {path for path in gone if not path.startswith(inside)}
    index.execute("begin immediate")
    for path in gone:
        forget(index, path)
    index.execute("commit")
    return len(gone)


def forget(index: sqlite3.Connection, path: str) -> None:
    index.execute(
        "delete from pages where rowid = (select id from documents where path = ?)",
        (path,),
    )
    index.execute("delete from documents where path = ?", (path,))


def add(index: sqlite3.Connection, folder: Path, document: Document) -> bool:
    """Put the document in, in place of its older self. Return True if it has text."""
    forget(index, document.path)
    skipped, text = None, ""
    try:
        text = text_of(folder / document.path)
    except OSError as error:
        skipped = error.strerror or "gzip abîmé"
    except (ValueError, EOFError, zlib.error) as error:
        skipped = str(error)
    row = index.execute(
        "insert into documents (path, category, ctime_ns, size, skipped)"
        " values (?, ?, ?, ?, ?)",
        (*document, skipped),
    )
    if skipped is not None:
        return False
    index.execute(
        "insert into pages (rowid, title, body) values (?, ?, ?)",
        (row.lastrowid, document.path, text),
    )
    return True


def add_in_batches(
    index: sqlite3.Connection, folder: Path, todo: list[Document], batch: int
) -> int:
    """Index them, a transaction per batch; return how many had no text."""
    skipped = 0
    for start, part in batches(todo, batch):
        index.execute("begin immediate")
        skipped += sum(not add(index, folder, document) for document in part)
        index.execute("commit")
        done = start + len(part)
        print(f"  {done}/{len(todo)} ({done / len(todo):.0%}) {shown(part[-1].path)}")
    return skipped


def batches(
    documents: list[Document], size: int
) -> Iterator[tuple[int, list[Document]]]:
    for start in range(0, len(documents), size):
        yield start, documents[start : start + size]


# --- the run ----------------------------------------------------------------------


def refuse_doubtful(folder: Path, category: str, known: set[str], seen: Scan) -> None:
    """Raise Fault where what was seen is more likely a mishap than a change."""
    if (category or ".") in seen.unreadable:
        raise Fault(
            f"KB_DIR : {shown(str(folder / category))} est illisible, l'index reste en "
            "l'état ; relancez en root, ou changez KB_DIR.",
            EX_CONFIG,
        )
    if category and not known and not seen.documents:
        raise Fault(
            f"La catégorie « {shown(category)} » est inconnue : donnez le nom d'un "
            f"sous-dossier de {folder}.",
            EX_USAGE,
        )
    # An empty folder is more often a disk that is not mounted than a wish.
    if known and not category and not seen.documents:
        raise Fault(
            f"{folder} ne contient plus aucun document, l'index reste en l'état : "
            "vérifiez que le dossier est monté ; si c'est voulu, supprimez KB_INDEX."
        )


def update(index: sqlite3.Connection, folder: Path, limit: int, category: str) -> None:
    batch = whole_number(
        os.environ.get("KB_BATCH") or str(DEFAULT_BATCH), "KB_BATCH", 10_000, EX_CONFIG
    )
    known, seen = known_documents(index, category), scan(folder, category)
    refuse_doubtful(folder, category, set(known), seen)
    for unreadable in seen.unreadable:
        print(f"Illisible, laissé de côté : {shown(unreadable)}")
    removed = drop_removed(index, set(known), seen)
    pending = [doc for doc in seen.documents if known.get(doc.path) != doc]
    todo = pending[:limit]
    print(f"{len(seen.documents)} fichiers, dont {len(pending)} nouveaux ou modifiés")
    skipped = add_in_batches(index, folder, todo, batch)
    added = len(todo) - skipped
    print(f"Indexés : {added}, sans texte : {skipped}, retirés : {removed}")
    if len(pending) > len(todo):
        print(f"Il en reste {len(pending) - len(todo)} : relancez pour continuer.")
    else:
        print("L'index est à jour.")


def main(argv: list[str]) -> int:
    if len(argv) > 2:
        raise Fault("Appel : index-kb-progressive.py [DOCUMENTS [CATEGORIE]]", EX_USAGE)
    text = argv[0] if argv else str(DEFAULT_DOCUMENTS)
    limit = whole_number(text, "DOCUMENTS", MAX_DOCUMENTS, EX_USAGE)
    category = argv[1] if len(argv) > 1 else ""
    if "/" in category or (category and not visible(category)):
        raise Fault("CATEGORIE est le nom d'un sous-dossier, sans « / ».", EX_USAGE)
    folder, file = source_folder(), index_file()
    if (folder / category).is_symlink():
        raise Fault("CATEGORIE est un lien symbolique, qui n'est pas suivi.", EX_USAGE)
    print(f"Documents : {folder / category}")
    print(f"Index : {file}")
    index = open_index(file, folder)
    try:
        update(index, folder, limit, category)
    finally:
        index.close()
    query = (
        "select path from documents join pages on pages.rowid = documents.id "
        "where pages match 'mot'"
    )
    print(f'Pour chercher : sqlite3 {shlex.quote(str(file))} "{query}"')
    return 0


class Output(io.FileIO):
    """A stream that drops what it can't write: on a full disk, or once the reader of a
    pipe has left, the work goes on and the exit status tells how it ended."""

    def write(self, data: Any) -> int:
        try:
            # None: its pipe is full, and whoever made it wanted no waiting
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def output(number: int) -> io.TextIOWrapper:
    """Return the standard stream of this number, for any text, in UTF-8."""
    file = io.BufferedWriter(Output(number, "wb", closefd=False))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def open_outputs() -> None:
    # Closed ones first lead nowhere, or the next file opened would take their place.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    sys.stdout, sys.stderr = output(1), output(2)


def cli() -> int:
    open_outputs()
    try:
        return main(sys.argv[1:])
    except Fault as fault:
        sentence, status = str(fault), fault.status
    except sqlite3.Error as error:
        status = 1
        sentence = (
            f"SQLite refuse ({error}) : vérifiez la place et les droits sur KB_INDEX, "
            "et que Python a un SQLite avec FTS5."
        )
    except OSError as error:
        place = f" : {shown(str(error.filename))}" if error.filename else ""
        sentence, status = f"{error.strerror or error}{place}", 1
    except KeyboardInterrupt:
        return 130
    print(f"index-kb-progressive : {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(cli())
