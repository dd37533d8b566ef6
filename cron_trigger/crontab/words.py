"""Command lines as a POSIX shell reads them, without running anything.

Knows quotes, operators and redirections, and what a shell would put in a word's place.
Promises a word's value only where every shell has the same, without looking at files
or variables but `$HOME` and `~`.  Called by the conversion of crontabs.
"""

from __future__ import annotations

import re
from typing import List, NamedTuple, Optional, Tuple

WORD, OPERATOR, REDIRECT, COMMENT = "word", "operator", "redirect", "comment"
#: What begins a compound command, or is the shell's own: no program has this name.
SHELL_ONLY = frozenset(
    re.findall(
        r"\S+",
        "! . : [[ { } alias break case cd command continue do done elif else esac eval "
        "exec exit export fi for function if local read readonly return set shift "
        "source then trap type ulimit umask unset until wait while",
    )
)
_SPACE = re.compile(r"[ \t]+")
_REDIRECT = re.compile(r"[0-9]*(?:<<<|<<-?|<>|<&|>>|>\||>&|<|>)")
_BASH_REDIRECT = re.compile(r"&>>?")
_OPERATOR = re.compile(r"&&|\|\||;;|\|&|[;&|()\n]")
_HOME = re.compile(r"\$(?:HOME(?![A-Za-z0-9_])|\{HOME\})")
_EXPANSION = re.compile(r"\$(?:[A-Za-z0-9_@*#?$!-]|\{|\()")
_BRACES = re.compile(r"\{[^{}\s]*(?:,|\.\.)[^{}\s]*\}")
_WORD_ENDS = " \t\n;&|()<>"


class Token(NamedTuple):
    """A word, an operator, a redirection's operator, or a comment, and where it is."""

    kind: str
    #: As it was written.
    text: str
    begin: int
    end: int
    #: What a program gets for a word; None where only a shell knows.
    value: Optional[str] = None
    #: Whether it is a word such as `NAME=value`.
    is_assignment: bool = False

    @property
    def known(self) -> bool:
        return self.value is not None


class _Reader:
    """Goes through a command line once."""

    def __init__(self, text: str, home: Optional[str], bash: bool) -> None:
        self.text = text
        self.home = home
        self.bash = bash
        self.at = 0
        #: Of the word that is being read: what it comes to, and whether it is known.
        self.value: List[str] = []
        self.known = True

    def tokens(self) -> List[Token]:
        found: List[Token] = []
        while True:
            space = _SPACE.match(self.text, self.at)
            self.at = space.end() if space else self.at
            if self.at >= len(self.text):
                return found
            found.append(self._token())

    def _token(self) -> Token:
        begin = self.at
        if self.text[begin] == "#":
            self.at = len(self.text)
            return Token(COMMENT, self.text[begin:], begin, self.at)
        kinds = [(REDIRECT, _REDIRECT), (OPERATOR, _OPERATOR)]
        if self.bash:
            kinds.insert(0, (REDIRECT, _BASH_REDIRECT))
        for kind, pattern in kinds:
            match = pattern.match(self.text, begin)
            if match:
                self.at = match.end()
                return Token(kind, match[0], begin, self.at)
        return self._word()

    def _word(self) -> Token:
        begin = self.at
        self.value, self.known = [], True
        if self.text[begin] == "~":
            self._tilde()
        while self.at < len(self.text) and self.text[self.at] not in _WORD_ENDS:
            self._piece()
        text = self.text[begin : self.at]
        if self.bash and _BRACES.search(text):
            self.known = False
        return Token(
            WORD,
            text,
            begin,
            self.at,
            "".join(self.value) if self.known else None,
            bool(re.match(r"[A-Za-z_][A-Za-z0-9_]*=", text)),
        )

    def _tilde(self) -> None:
        match = re.compile(r"~(?=[/\s]|$)").match(self.text, self.at)
        if match and self.home:
            self.value.append(self.home)
            self.at = match.end()
        else:
            self.known = False

    def _piece(self) -> None:
        """Read a quoted part of a word, an expansion, or a character."""
        char = self.text[self.at]
        if char == "\\":
            self.value.append(self.text[self.at + 1 : self.at + 2] or char)
            self.at += 2
        elif char == "'":
            end = self._find("'", self.at + 1)
            self.value.append(self.text[self.at + 1 : end])
            self.at = end + 1
        elif char == '"':
            self._double_quoted()
        elif self.text[self.at : self.at + 2] in ("$'", '$"'):
            self.known = False  # bash's own quotes
            self.at += 1
        elif char in "$`":
            self._expansion()
        else:
            self._literal(char)

    def _literal(self, char: str) -> None:
        # A pattern that names no file stays as it is, and no address is a file.
        address = "://" in "".join(self.value)
        if char in "*?[" and not address:
            self.known = False
        if char == "~" and self.value[-1:] in (["="], [":"]):
            self.known = False
        self.value.append(char)
        self.at += 1

    def _double_quoted(self) -> None:
        self.at += 1
        while self._char() != '"':
            char = self._char()
            if char == "\\" and self.text[self.at + 1 : self.at + 2] in ('"$`\\'):
                self.value.append(self.text[self.at + 1 : self.at + 2])
                self.at += 2
            elif char in "$`":
                self._expansion()
            else:
                self.value.append(char)
                self.at += 1
        self.at += 1

    def _expansion(self) -> None:
        home = _HOME.match(self.text, self.at)
        if home and self.home:
            self.value.append(self.home)
            self.at = home.end()
            return
        if self.text[self.at] == "`":
            self.known = False
            self.at = self._find("`", self.at + 1) + 1
            return
        match = _EXPANSION.match(self.text, self.at)
        if not match:
            self.value.append("$")
            self.at += 1
            return
        self.known = False
        self.at = match.end()
        if match[0][-1] in "{(":
            self._skip_to({"{": "}", "(": ")"}[match[0][-1]])

    def _skip_to(self, closing: str) -> None:
        """Go behind the end of `$(…)` or `${…}`, whatever is nested in it."""
        opening = {"}": "{", ")": "("}[closing]
        while self._char() != closing:
            char = self._char()
            if char in "'\"\\$`":
                self._piece()
            else:
                self.at += 1
                if char == opening:
                    self._skip_to(closing)
        self.at += 1

    def _char(self) -> str:
        if self.at >= len(self.text):
            raise ValueError("a quote or a bracket is not closed")
        return self.text[self.at]

    def _find(self, char: str, begin: int) -> int:
        end = self.text.find(char, begin)
        if end < 0:
            raise ValueError("a quote or a bracket is not closed")
        return end


def tokens_of(
    text: str, home: Optional[str] = None, bash: bool = False
) -> Tuple[Token, ...]:
    """Return the tokens of a command; ValueError where a quote is not closed."""
    return tuple(_Reader(text, home, bash).tokens())
