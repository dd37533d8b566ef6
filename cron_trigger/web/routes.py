"""Routes: the one table of what exists, and of what each address needs.

What is not listed here is refused, and what a route does not say it allows, it does
not: a secret is needed, no query is taken, a link from another site leads nowhere.
Access, fields and api ask it; it is made at the import and never changes.
"""

from __future__ import annotations

import re
from typing import Iterable, NamedTuple, Optional

Routes = dict[str, "Route"]


class Route(NamedTuple):
    """A method and a path, and what they need."""

    method: str
    path: str
    #: The method of Api that answers.
    action: str
    #: Answered without the secret; everything else needs it.
    public: bool = False
    #: The parameters that it takes; None: whatever comes is ignored (cache busters).
    query: Optional[tuple[str, ...]] = ()
    #: A body must come; a changing route without it takes one, or none.
    body: bool = False
    #: A link on another site may lead here.
    linked: bool = False
    #: The secret may come as the password of HTTP basic authentication.
    basic: bool = False

    @property
    def changes(self) -> bool:
        return self.method in ("POST", "DELETE")


RUNS_QUERY = ("cron", "status", "since", "until", "limit", "before")
ROUTES = (
    Route("GET", "/", "page", public=True, query=None, linked=True),
    Route("GET", "/health", "health", public=True, query=None),
    Route("GET", "/openapi.json", "interface", public=True, query=None),
    Route("GET", "/FILE", "page_file", public=True, query=None),
    Route("POST", "/trigger", "trigger", body=True),
    Route("GET", "/crons", "crons"),
    Route("GET", "/crons/NAME", "cron"),
    Route("GET", "/runs", "runs", query=RUNS_QUERY),
    Route("GET", "/runs/ID", "run", query=("wait",)),
    Route("GET", "/runs/ID/log", "run_log", query=("tail", "from", "follow")),
    Route("POST", "/runs/ID/cancel", "cancel_run"),
    Route("GET", "/scheduled", "scheduled"),
    Route("DELETE", "/scheduled/ID", "cancel_scheduled"),
    # Libraries that send an EventSource's headers (event-source-polyfill) say it so.
    Route("GET", "/events", "events", query=("lastEventId",)),
    Route("GET", "/metrics", "metrics", basic=True),
)
#: A browser's question (CORS) before a request of a listed origin.
PREFLIGHT = Route("OPTIONS", "", "preflight", public=True, query=None)
#: What a part of a path may be: no slash, no dot at its front.
PARTS = {
    "ID": r"([0-9]{1,19})",
    "NAME": r"([A-Za-z0-9][A-Za-z0-9._-]{0,63})",
    "FILE": r"([A-Za-z0-9_-]{1,64}\.(?:js|css))",
}


def _route_tables() -> tuple[dict[str, Routes], list[tuple[re.Pattern[str], Routes]]]:
    """Return the routes by exact path, and those with a part in it by pattern."""
    by_path: dict[str, Routes] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    patterns = []
    for path in list(by_path):
        pattern = re.sub("|".join(PARTS), lambda match: PARTS[match[0]], path)
        if pattern != path:
            patterns.append((re.compile(pattern), by_path.pop(path)))
    return by_path, patterns


EXACT_ROUTES, PATTERN_ROUTES = _route_tables()


def find_routes(path: str) -> tuple[Routes, str]:
    """Return a path's routes by method, none if it is unknown, and the part in it."""
    exact = EXACT_ROUTES.get(path)
    if exact:
        return exact, ""
    for pattern, routes in PATTERN_ROUTES:
        match = pattern.fullmatch(path)
        if match:
            return routes, match[1]
    return {}, ""


def methods_of(routes: Iterable[str]) -> str:
    also = {"GET": "GET, HEAD"}
    return ", ".join(also.get(method, method) for method in routes)
