"""Which regular expressions are surely fast, and why another one is not.

Python's `re` may take for ever on thirty letters, and no other thread runs meanwhile
(ReDoS, CWE-1333), so a registry's patterns are judged when it is read, by the parsed
expression: what is admitted compares 1000 characters in milliseconds.  Pure functions,
called by the checker; any thread may.
"""

from __future__ import annotations

import functools
import importlib
import itertools
import re
import sys
from typing import Any, Iterable, NamedTuple, Optional, Sequence

#: The longest value of a string parameter, and so the longest text of a comparison.
PARAMETER_CHARS = 1000
#: The longest pattern.
PATTERN_CHARS = 1000
#: Steps of a comparison, of 1 to 8 ns each; the slowest that was found takes 35 ms.
MOST_STEPS = 4_500_000
#: What an iteration of a repeated group costs beside its characters.
GROUP_STEPS = 8
#: What a character of `+?` costs: each is left, and entered again.
LAZY_STEPS = 4
#: Levels of groups, and ways that are more than enough of them.
MOST_DEPTH, MANY = 10, 1 << 40

REMEDY = (
    "repeat no part that can match the same text in two ways, and keep repeated parts "
    "apart by a character that neither of them matches, as in [a-z]+(-[a-z]+)*"
)

#: The characters that are told apart: those of ASCII; beyond it, one that stands for
#: all digits, one for all letters, blanks, and what else there is.
ALPHABET = (*map(chr, range(128)), "\u0663", "\u00e9", "\u2003", "\u20ac")
#: A set of them is a bit mask.
ALL = (1 << len(ALPHABET)) - 1
BEYOND = ALL ^ ((1 << 128) - 1)
LETTERS = sum(1 << code for code in range(128) if chr(code).isalpha())
#: Stands among the characters that may follow where the text may end.
END = 1 << len(ALPHABET)

Node = tuple[Any, Any]
#: The next character that may come after a part, and the one after that.
Follow = tuple[int, int]


@functools.lru_cache(maxsize=1024)
def slow_fault(pattern: str) -> Optional[str]:
    """Return why comparing with `pattern` may take too long, or None where it can't.

    Kept, since a registry is read again and again and a judgement takes half a
    millisecond.
    Raises what `re.compile` raises where it is no regular expression.
    """
    re.compile(pattern)
    judge = _Judge(pattern)
    try:
        found = judge.sequence(list(judge.parsed), (END, END))
    except _Slow as slow:
        return str(slow)
    if found.steps > MOST_STEPS:
        return f"could take too long on some texts; {REMEDY}"
    return None


class _Slow(Exception):
    """A construct that is not judged but refused."""


class _Part(NamedTuple):
    """What is known of a part of an expression; all are upper bounds.

    Backtracking multiplies: `steps` is the work of one entry into the part with all
    of its `ways` out.  Where there is only one way, a repeated part shares the text
    with itself, and each character costs `size` at most.
    """

    #: The sets of its first characters, one after the other, as far as they are sure.
    lead: tuple[int, ...]
    #: Whether it may match nothing.
    empty: bool
    ways: int
    steps: int
    size: int

    def first(self, follow: int = 0) -> int:
        """Return with which characters it, or what follows it, may begin."""
        begin = self.lead[0] if self.lead else 0
        return begin | follow if self.empty else begin

    def before(self, follow: Follow) -> Follow:
        """Return what follows that which stands before this part."""
        if not self.lead:
            return follow
        if self.empty:
            return self.first(follow[0]), ALL | END
        if len(self.lead) > 1:
            return self.lead[0], self.lead[1]
        return self.lead[0], follow[0] if self.size == 1 else ALL | END


NOTHING = _Part((), True, 1, 0, 0)


class _Judge:
    """Goes through a parsed expression; `follow` is what may come after a part.

    A choice is sure where one look at the next two characters, or at the next few of
    a branch, decides it.  Every other one multiplies the ways.
    """

    def __init__(self, pattern: str) -> None:
        # Their names since 3.11; under the former ones they warn whoever imports them.
        names = ("re._parser", "re._compiler")
        if sys.version_info < (3, 11):
            names = ("sre_parse", "sre_compile")
        self._parser, self._compiler = map(importlib.import_module, names)
        self.parsed = self._parser.parse(pattern)
        # Flags that change what a set matches: judged as if it matched far more.
        self._coarse = bool(re.search(r"\(\?[\w-]*[ia]", pattern))
        self._depth = 0
        self._sets: dict[str, int] = {}

    def sequence(self, nodes: Sequence[Node], follow: Follow) -> _Part:
        """Judge what stands one after the other, from its end to its beginning."""
        whole = NOTHING
        self._depth += 1
        if self._depth > MOST_DEPTH:  # a repeated part is gone through twice
            raise _Slow("has groups in groups in groups; write it flatter")
        for node in reversed(nodes):
            part = self._part(node, follow)
            follow = part.before(follow)
            whole = _joined(part, whole)
        self._depth -= 1
        return whole

    def _part(self, node: Node, follow: Follow) -> _Part:
        operator, value = str(node[0]), node[1]
        if operator in ("MAX_REPEAT", "MIN_REPEAT", "POSSESSIVE_REPEAT"):
            low, high, inner = value
            part = self._repeat(int(low), int(high), inner, follow)
            lazy = operator == "MIN_REPEAT"
            return part._replace(steps=part.steps * LAZY_STEPS) if lazy else part
        if operator == "BRANCH":
            return self._branch(value[1], follow)
        if operator in ("SUBPATTERN", "ATOMIC_GROUP"):
            inner = value[-1] if operator == "SUBPATTERN" else value
            return self.sequence(list(inner), follow)
        if operator == "AT":
            return NOTHING
        if operator in ("ASSERT", "ASSERT_NOT"):
            # It is left as soon as it has matched, by one way.  What it costs is not
            # shared with the text that is gone through, and comes before the next
            # character decides anything: so it may begin with all of them.
            seen = self.sequence(list(value[1]), (ALL | END, ALL | END))
            return _Part((ALL,), True, 1, seen.steps, seen.steps)
        if operator.startswith("GROUPREF"):
            raise _Slow(
                "refers to a group by its number or name, which can take too long; "
                "write out what is to match"
            )
        known = operator in ("LITERAL", "NOT_LITERAL", "IN", "ANY")
        characters = self._characters(node) if known else ALL
        return _Part((characters,), False, 1, 1, 1)

    def _repeat(self, low: int, high: int, inner: Any, follow: Follow) -> _Part:
        nodes = list(inner)
        # MAXREPEAT is an integer far above what a text has.
        low, high = min(low, PARAMETER_CHARS), min(high, PARAMETER_CHARS)
        body = self.sequence(nodes, follow)
        if high > 1:
            if body.empty:
                what = "repeats a part that may match nothing, which can take too long"
                raise _Slow(f"{what}; {REMEDY}")
            body = self.sequence(nodes, (body.first() | follow[0], ALL | END))
        single = body.size == 1 and str(nodes[0][0]) != "SUBPATTERN"
        group_steps = 0 if single else GROUP_STEPS
        once = body.steps + group_steps
        # Two ways are too many after 40 times already, so no number gets too long.
        ways = min(body.ways, MANY) ** min(high, 40)
        if single and body.lead == (ALL,) and follow == (END, END):
            # The text's whole rest matches: it is gone through once.
            steps = low + 1 if high == PARAMETER_CHARS else high + 1
        elif body.ways > 1:
            steps = ways * once
        else:
            steps = min(PARAMETER_CHARS * (body.size + group_steps), high * once + 1)
        exits = high - low + 1 if _shared(body, single, follow) else 1
        return _Part(
            lead=body.lead * min(low, 9) if single and low else body.lead,
            empty=low == 0 or body.empty,
            ways=exits * ways,
            steps=steps,
            size=body.size + 1 + group_steps,
        )

    def _branch(self, choices: Iterable[Any], follow: Follow) -> _Part:
        parts = [self.sequence(list(choice), follow) for choice in choices]
        sure = _exclusive(
            [part.before(follow) if part.empty else part.lead for part in parts]
        )
        ways = [part.ways for part in parts]
        first = 0
        for part in parts:
            first |= part.first()
        return _Part(
            lead=(first,),
            empty=any(part.empty for part in parts),
            ways=max(ways) if sure else sum(ways),
            steps=sum(part.steps for part in parts) + len(parts),
            size=sum(part.size for part in parts) + len(parts),
        )

    def _characters(self, node: Node) -> int:
        """Return a set that has every character which a node may match."""
        text = repr(node)
        if text in self._sets:
            return self._sets[text]
        flags = re.DOTALL | (re.IGNORECASE if self._coarse else 0)
        alone = self._parser.SubPattern(self.parsed.state, [node])
        match = self._compiler.compile(alone, flags).match
        found = sum(1 << bit for bit, char in enumerate(ALPHABET) if match(char))
        # Beyond ASCII, what is named is not the one that stands for its kind, nor is
        # the Kelvin sign, which matches a `k` where the case does not count.
        named = any(int(code) > 127 for code in re.findall(r"\d+", text))
        if named or (self._coarse and found & (LETTERS | BEYOND)):
            found |= BEYOND
        self._sets[text] = found
        return found


def _joined(one: _Part, rest: _Part) -> _Part:
    """Return a part and the rest that comes after it as one part."""
    lead = one.lead
    if not one.lead:
        lead = rest.lead
    elif one.empty:
        lead = (one.first(rest.first()),)
    elif one.size == len(one.lead):  # it is nothing but these characters
        lead = (one.lead + rest.lead)[:16] if not rest.empty else one.lead
    return _Part(
        lead=lead,
        empty=one.empty and rest.empty,
        ways=one.ways * rest.ways,
        steps=one.steps + one.ways * rest.steps,
        size=one.size + rest.size,
    )


def _shared(body: _Part, single: bool, follow: Follow) -> bool:
    """Tell whether one may go on with a repeated part where one may leave it, too.

    Not so where the next two characters decide: of `[a-z-]*[a-z]` at the end of a
    text, the last letter is never the repeated part's.
    """
    begin = body.first()
    if not begin & follow[0]:
        return False
    return not single or bool((begin | follow[0]) & follow[1])


def _exclusive(leads: list[tuple[int, ...]]) -> bool:
    """Tell whether no two of these leads can stand at the beginning of one text."""
    return all(
        any(not a & b for a, b in zip(one, other))
        for one, other in itertools.combinations(leads, 2)
    )
