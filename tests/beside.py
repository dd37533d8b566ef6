"""Tests that mostly wait run beside the others, in a process of their own.

A module says so with `load_tests = beside`.  Where the full run discovers it, its tests
are given to that process, which begins at once and goes through one module after the
other; in their place stand tests that wait for what became of them.  A module that is
named on the command line runs as any other does.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import json
import os
import signal
import subprocess
import sys
import threading
import unittest
from typing import Callable, Iterator, Optional

from support import FULL

#: What is wrong with a test, and why it was skipped; empty where nothing is.
Outcome = tuple[str, str]


class Other:
    """The other process, seen from this one."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._outcomes: dict[str, concurrent.futures.Future[Outcome]] = {}
        # Daemon: Python would wait for any other before `_end`, which ends it.
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        atexit.register(self._end)

    def take(self, tests: unittest.TestSuite) -> unittest.TestSuite:
        """Have these tests run there; return those that tell what became of them."""
        here = []
        for test in flat(tests):
            outcome = concurrent.futures.Future[Outcome]()
            self._outcomes[test.id()] = outcome
            here.append(Told(test, outcome))
        assert self._process.stdin
        self._process.stdin.write(json.dumps([test.id() for test in here]) + "\n")
        self._process.stdin.flush()
        return unittest.TestSuite(here)

    def _read(self) -> None:
        assert self._process.stdout
        for line in self._process.stdout:
            name, faults, reasons = json.loads(line)
            self._outcomes[name].set_result((faults, reasons))
        for outcome in list(self._outcomes.values()):
            if not outcome.done():
                outcome.set_result(("the process beside this one has ended", ""))

    def _end(self) -> None:
        assert self._process.stdin
        self._process.stdin.close()
        if not all(outcome.done() for outcome in self._outcomes.values()):
            self._process.send_signal(signal.SIGINT)
        self._reader.join()
        self._process.wait()


class Told(unittest.TestCase):
    """Stands for a test that runs beside."""

    def __init__(
        self, test: unittest.TestCase, outcome: concurrent.futures.Future[Outcome]
    ) -> None:
        super().__init__("tell")
        self._test = test
        self._there = outcome

    def id(self) -> str:
        return self._test.id()

    def __str__(self) -> str:
        return str(self._test)

    def tell(self) -> None:
        faults, reasons = self._there.result()
        if faults:
            self.fail(faults)
        if reasons:
            self.skipTest(reasons)


_other: Optional[Other] = None


def beside(
    _loader: unittest.TestLoader, tests: unittest.TestSuite, pattern: Optional[str]
) -> unittest.TestSuite:
    """Stand in a module as its `load_tests`: see above."""
    global _other
    if not FULL or pattern is None:
        return tests
    _other = _other or Other()
    return _other.take(tests)


def flat(tests: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in tests:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


# ---- the other process


class Telling(unittest.TestResult):
    """Tells of each test when the next one begins: what its class takes down counts."""

    def __init__(self, tell: Callable[[str, Outcome], None]) -> None:
        super().__init__()
        self._tell = tell
        self._last: Optional[str] = None
        self._of_last: list[Outcome] = []
        #: What was said between tests: a class that can't be set up has none.
        self.between: list[Outcome] = []
        self.told: set[str] = set()

    def startTest(self, test: unittest.TestCase) -> None:
        self.tell_last()
        super().startTest(test)

    def stopTest(self, test: unittest.TestCase) -> None:
        super().stopTest(test)
        self._last, self._of_last = test.id(), [self._said()]

    def tell_last(self) -> None:
        between = self._said()
        self.between.append(between)
        if self._last:
            self.tell(self._last, [*self._of_last, between])
        self._last = None

    def tell(self, name: str, outcomes: list[Outcome]) -> None:
        self.told.add(name)
        faults, reasons = ("\n".join(filter(None, texts)) for texts in zip(*outcomes))
        self._tell(name, (faults, reasons))

    def _said(self) -> Outcome:
        """Return what was said since this was asked last."""
        faults = [text for _, text in (*self.errors, *self.failures)]
        faults += [
            f"{test} succeeded unexpectedly" for test in self.unexpectedSuccesses
        ]
        reasons = [reason for _, reason in self.skipped]
        for said in (
            self.errors,
            self.failures,
            self.unexpectedSuccesses,
            self.skipped,
        ):
            said.clear()
        return "\n".join(faults), "\n".join(reasons)


def main() -> None:
    """Run what standard input names, a module's tests a line; tell on standard output.

    Whatever tests print goes to standard error, and they have nothing to read.
    """
    given, told = os.fdopen(os.dup(0)), os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for line in given:
        names: list[str] = json.loads(line)
        result = Telling(lambda name, said: print(json.dumps([name, *said]), file=told))
        unittest.defaultTestLoader.loadTestsFromNames(names).run(result)
        result.tell_last()
        for name in names:
            if name not in result.told:
                why = [said for said in result.between if any(said)]
                result.tell(name, why or [("it did not run", "")])
    told.close()
    given.close()


if __name__ == "__main__":
    main()
