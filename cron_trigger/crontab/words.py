"""Command lines as a POSIX shell reads them, without running anything.

Knows quotes, operators and redirections, and what a shell would put in a word's place.
Promises a word's value only where every shell has the same, without looking at files
or variables but `$HOME` and `~`.  (shlex has no such promise: to it `$x` is a word.)
"""

from __future__ import annotations

import re
from typing import NamedTuple, Optional

WORD, OPERATOR, REDIRECT, COMMENT = "word", "operator", "redirect", "comment"


def words_of(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What begins a compound command, or is the shell's own: no program has this name.
SHELL_ONLY = words_of(
    "! . : [[ { } alias break case cd command continue do done elif else esac eval "
    "exec exit export fi for function if local read readonly return set shift source "
    "then trap type ulimit umask unset until wait while"
)
_SIGNS = (
    (REDIRECT, re.compile(r"[0-9]*(?:<<<|<<-?|<>|<&|>>|>\||>&|<|>)")),
    (OPERATOR, re.compile(r"&&|\|\||;;|\|&|[;&|()\n]")),
    (COMMENT, re.compile("#.*", re.DOTALL)),
)
_BASH_SIGNS = ((REDIRECT, re.compile(r"&>>?")), *_SIGNS)
_WORD_ENDS = " \t\n;&|()<>"
_TILDE = re.compile(r"~(?=[/\s]|$)")
_HOME = re.compile(r"\$(?:HOME(?![A-Za-z0-9_])|\{HOME\})")
_EXPANSION = re.compile(r"\$(?:[A-Za-z0-9_@*#?$!-]|\{|\()")
_BRACES = re.compile(r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}")
_ASSIGNMENT = re.compile(r"[A-Za-z_][A-Za-z0-9_]*=")


class Token(NamedTuple):
    """A word, an operator, a redirection's operator, or a comment, and where it is."""

    kind: str
    #: As it was written.
    text: str
    begin: int
    end: int
    #: What a program gets for a word; None where only a shell knows.
    value: Optional[str] = None

    @property
    def known(self) -> bool:
        return self.value is not None

    @property
    def is_assignment(self) -> bool:
        return self.kind == WORD and bool(_ASSIGNMENT.match(self.text))


#: A part of a word: its value, None if only a shell knows it, and where it ends.
_Part = tuple[Optional[str], int]


def tokens_of(
    text: str, home: Optional[str] = None, bash: bool = False
) -> tuple[Token, ...]:
    """Return the tokens of a command; ValueError where a quote is not closed."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        if text[at] in " \t":
            at += 1
            continue
        try:
            found.append(_sign(text, at, bash) or _word(text, at, home, bash))
        except (IndexError, ValueError):  # looked for behind the text's end
            raise ValueError("a quote or a bracket is not closed") from None
        at = found[-1].end
    return tuple(found)


def _sign(text: str, at: int, bash: bool) -> Optional[Token]:
    for kind, pattern in _BASH_SIGNS if bash else _SIGNS:
        match = pattern.match(text, at)
        if match:
            return Token(kind, match[0], at, match.end())
    return None


def _word(text: str, begin: int, home: Optional[str], bash: bool) -> Token:
    at = begin
    parts: list[Optional[str]] = [""]
    if text[at] == "~":
        is_home = home and _TILDE.match(text, at)
        parts, at = [home if is_home else None], at + bool(is_home)
    while at < len(text) and text[at] not in _WORD_ENDS:
        part, at = _part(text, at, home, "".join(p or "" for p in parts))
        parts.append(part)
    written = text[begin:at]
    known = None not in parts and not (bash and _BRACES.search(written))
    value = "".join(map(str, parts)) if known else None
    return Token(WORD, written, begin, at, value)


def _part(text: str, at: int, home: Optional[str], before: str) -> _Part:
    """Read a quoted part of a word, an expansion, or a character."""
    char = text[at]
    if char == "\\":
        return text[at + 1 : at + 2] or char, min(at + 2, len(text))
    if char == "'":
        end = text.index("'", at + 1)
        return text[at + 1 : end], end + 1
    if char == '"':
        return _double_quoted(text, at + 1, home)
    if text[at : at + 2] in ("$'", '$"'):
        return None, at + 1  # bash's own quotes
    if char in "$`":
        return _expansion(text, at, home)
    # A pattern that names no file stays as it is, and no address is a file.
    pattern = char in "*?[" and "://" not in before
    tilde = char == "~" and before.endswith(("=", ":"))
    return None if pattern or tilde else char, at + 1


def _double_quoted(text: str, at: int, home: Optional[str]) -> _Part:
    parts: list[Optional[str]] = [""]
    while text[at] != '"':
        part: Optional[str] = text[at]
        if part == "\\" and text[at + 1 : at + 2] in ('"', "$", "`", "\\"):
            part, at = text[at + 1], at + 2
        elif text[at] in "$`":
            part, at = _expansion(text, at, home)
        else:
            at += 1
        parts.append(part)
    return None if None in parts else "".join(map(str, parts)), at + 1


def _expansion(text: str, at: int, home: Optional[str]) -> _Part:
    is_home = _HOME.match(text, at) if home else None
    if is_home:
        return home, is_home.end()
    if text[at] == "`":
        return None, text.index("`", at + 1) + 1
    match = _EXPANSION.match(text, at)
    if not match:
        return "$", at + 1
    if match[0][-1] in "{(":
        return None, _behind(text, match.end(), match[0][-1])
    return None, match.end()


def _behind(text: str, at: int, opening: str) -> int:
    """Return where `$(…)` or `${…}` is over, whatever is nested in it."""
    closing = {"{": "}", "(": ")"}[opening]
    while (char := text[at]) != closing:
        if char in "'\"\\$`":
            at = _part(text, at, None, "")[1]
        else:
            at = _behind(text, at + 1, opening) if char == opening else at + 1
    return at + 1
