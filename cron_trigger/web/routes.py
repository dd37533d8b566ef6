"""Routes."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple


@dataclass(frozen=True)
class Route:
    """A method and a path, and what they need.  Only what is listed here exists."""

    method: str
    path: str
    action: str
    #: Answered without the secret; everything else needs it.
    public: bool = False
    query: Tuple[str, ...] = ()
    #: A body must come; a changing route without it takes one, or none.
    body: bool = False

    @property
    def changes(self) -> bool:
        return self.method not in ("GET", "HEAD")


ROUTES = (
    Route("GET", "/", "page", public=True),
    Route("GET", "/health", "health", public=True),
    Route("POST", "/trigger", "trigger", body=True),
    Route("GET", "/crons", "crons"),
    Route("GET", "/runs", "runs", query=("cron", "status", "limit", "before")),
    Route("GET", "/runs/ID", "run"),
    Route("GET", "/runs/ID/log", "run_log", query=("tail", "follow")),
    Route("POST", "/runs/ID/cancel", "cancel_run"),
    Route("GET", "/scheduled", "scheduled"),
    Route("DELETE", "/scheduled/ID", "cancel_scheduled"),
    Route("GET", "/events", "events"),
    Route("GET", "/metrics", "metrics"),
)
#: A browser's question (CORS) before a request of a listed origin.
PREFLIGHT = Route("OPTIONS", "", "preflight", public=True)


def _route_tables() -> Tuple[
    Dict[str, Dict[str, Route]], List[Tuple[re.Pattern[str], Dict[str, Route]]]
]:
    """Return the routes by exact path, and those with an ID by pattern."""
    by_path: Dict[str, Dict[str, Route]] = {}
    for route in ROUTES:
        by_path.setdefault(route.path, {})[route.method] = route
    patterns = [
        (re.compile(path.replace("ID", r"(\d{1,19})"), re.ASCII), by_path.pop(path))
        for path in list(by_path)
        if "ID" in path
    ]
    return by_path, patterns


EXACT_ROUTES, PATTERN_ROUTES = _route_tables()


def find_routes(path: str) -> Tuple[Dict[str, Route], Optional[int]]:
    """Return a path's routes by method, none if it is unknown, and the id in it."""
    exact = EXACT_ROUTES.get(path)
    if exact:
        return exact, None
    for pattern, routes in PATTERN_ROUTES:
        match = pattern.fullmatch(path)
        if match:
            return routes, int(match[1])
    return {}, None
