"""The program's names in one place, for tests that change one of them.

`m.NAME` is what a module of `cron_trigger` calls so; `m.NAME = value` changes it in
each module that has it, before a server starts in a process of its own.
"""

from __future__ import annotations

import importlib
import pkgutil
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import cron_trigger


def modules() -> list[ModuleType]:
    """Return all modules of the program, imported."""
    found = [cron_trigger]
    for info in pkgutil.walk_packages(cron_trigger.__path__, "cron_trigger."):
        found.append(importlib.import_module(info.name))
    return found


class Names:
    """All names of the program.  A value set here is set wherever the name stands."""

    def __getattr__(self, name: str) -> Any:
        for module in modules():
            if name in vars(module):
                return vars(module)[name]
        raise AttributeError(name)

    def __setattr__(self, name: str, value: Any) -> None:
        for module in modules():
            if name in vars(module):
                setattr(module, name, value)


m = Names()
