"""The name of a cron, from the script that its command line starts.

Knows which programs only run another, which only prepare, and which names say nothing.
Promises a name that the registry takes; that it is used once is conversion.py's to see.
"""

from __future__ import annotations

import os
import re
from typing import Optional, Sequence

from cron_trigger.crontab.words import OPERATOR, WORD, Token, tokens_of, words_of

#: Programs that run another, which the name should come from.
_WRAPPERS = words_of(
    "nice ionice nohup chronic env sudo setsid time chrt stdbuf systemd-cat exec "
    "flock timeout command run-parts invoke-rc.d service runuser then else do if "
    "{ !"
)
#: Options of these that take a value as the next word.
_WRAPPER_VALUES = {
    "flock": ("-w", "-E"),
    "nice": ("-n",),
    "ionice": ("-c", "-n", "-t"),
    "sudo": ("-u", "-g"),
    "runuser": ("-u", "-g"),
    "timeout": ("-k", "-s"),
}
_INTERPRETERS = re.compile(
    r"(?:ba|da|z|k)?sh|python[\d.]*|node|tsx|perl|ruby|php[\d.]*"
)
#: Programs that only prepare, or say nothing of what is done.
_QUIET = words_of(
    "[ [[ test cd true : echo printf sleep exit export umask ulimit fi done } . "
    "source elif while for set"
)
#: Programs whose first argument says what is done.
_WITH_VERB = words_of(
    "artisan manage console occ wp drush certbot borgmatic restic borg docker "
    "systemctl apt-get git rake npm"
)
#: Names of scripts that say nothing without their folder.
_NAMELESS = words_of("cron run main index script start job")
_SUFFIX = re.compile(r"\.(?:sh|bash|py|php\d?|pl|rb|js|mjs|ts)$")


def name_of(tokens: Sequence[Token]) -> str:
    """Return a name for the cron: its script's, else its program's."""
    commands: list[list[str]] = [[]]
    for token in tokens:
        if token.kind == OPERATOR:
            commands.append([])
        elif token.kind == WORD and not token.is_assignment:
            commands[-1].append(token.value if token.value is not None else token.text)
    name = next(filter(None, map(_name_of, commands)), "job")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-._")
    return name[:56].rstrip("-._") or "job"


def _name_of(words: list[str]) -> Optional[str]:
    """Return the name that a simple command gives, None if it gives none."""
    if words[:2] == ["command", "-v"]:
        return None
    words = _unwrapped(words)
    if not words or words[0] in _QUIET:
        return None
    if _INTERPRETERS.fullmatch(os.path.basename(words[0])) and len(words) > 1:
        return _script_name(words[1:])
    return _named(words)


def _unwrapped(words: list[str]) -> list[str]:
    """Return the command that `nice`, `sudo` and the like run in the end."""
    while words and os.path.basename(words[0]) in _WRAPPERS:
        wrapper, *words = words
        wrapper = os.path.basename(wrapper)
        while words and words[0].startswith("-"):
            has_value = words[0] in _WRAPPER_VALUES.get(wrapper, ())
            words = words[1 + has_value :]
        words = words[wrapper in ("flock", "timeout") :]
    return words


def _script_name(words: Sequence[str]) -> Optional[str]:
    """Return the name of the script that an interpreter gets."""
    for place, word in enumerate(words):
        if re.fullmatch("-[a-z]*c", word) and place + 1 < len(words):
            try:
                return name_of(tokens_of(words[place + 1]))
            except ValueError:
                return None
        if word in ("-e", "-r"):
            return None
        if word == "-m" or not word.startswith("-"):
            return _named(words[place + (word == "-m") :])
    return None


def _named(words: Sequence[str]) -> Optional[str]:
    if not words:
        return None
    folder, base = os.path.split(words[0].rstrip("/"))
    name = _SUFFIX.sub("", base)
    if name in _NAMELESS and os.path.basename(folder):
        return f"{os.path.basename(folder)}-{name}"
    verbs = [word for word in words[1:] if re.fullmatch(r"[A-Za-z][\w:.-]*", word)]
    return f"{name}-{verbs[0]}" if name in _WITH_VERB and verbs else name
