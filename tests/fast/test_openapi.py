"""docs/openapi.json describes the interface exactly: held against a real server."""

from __future__ import annotations

import json
import re
import sys
import unittest
from pathlib import Path
from typing import Any, Iterator

sys.path.append(str(Path(__file__).resolve().parent.parent))

from support import REPOSITORY

from cron_trigger import VERSION
from cron_trigger.history.answers import RUNS_PAGE, RUNS_PAGE_LIMIT
from cron_trigger.registry.errors import STATUS_OF_CODE
from cron_trigger.registry.records import RUN_SHOWN, RUN_STATUSES
from cron_trigger.web.routes import ROUTES, Route

DOCUMENT: Any = json.loads((REPOSITORY / "docs/openapi.json").read_text("utf-8"))


SCHEMAS = DOCUMENT["components"]["schemas"]


RESPONSES = DOCUMENT["components"]["responses"]


def described_path(route: Route) -> str:
    """Return a route's path as the document writes it."""
    return re.sub(r"\b(ID|NAME|FILE)\b", r"{\1}", route.path)


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def resolved(value: dict[str, Any]) -> dict[str, Any]:
    """Return what a `$ref` leads to."""
    if "$ref" not in value:
        return value
    place: Any = DOCUMENT
    for part in value["$ref"].split("/")[1:]:
        place = place[part]
    assert isinstance(place, dict)
    return place


def codes_of(response: dict[str, Any]) -> set[str]:
    """Return the codes that an answer may carry."""
    schema = response["content"]["application/json"]["schema"]
    one_of = schema.get("oneOf", [schema])
    return {code for one in one_of for code in one["properties"]["code"]["enum"]}


def objects(value: Any) -> Iterator[dict[str, Any]]:
    """Yield every schema of an object within a value."""
    if isinstance(value, dict):
        if value.get("type") == "object" and "properties" in value:
            yield value
        for inner in value.values():
            yield from objects(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


class DocumentTest(unittest.TestCase):
    def test_every_route_is_described_and_nothing_else(self) -> None:
        routes = {(route.method, described_path(route)) for route in ROUTES}
        self.assertEqual({(m, p) for m, p, _ in operations()}, routes)

    def test_each_operation_is_named_as_its_action(self) -> None:
        named = {(m, p): o["operationId"] for m, p, o in operations()}
        for route in ROUTES:
            key = (route.method, described_path(route))
            self.assertEqual(named[key], route.action)

    def test_every_query_parameter_is_described_and_nothing_else(self) -> None:
        of = {(m, p): o.get("parameters", ()) for m, p, o in operations()}
        for route in ROUTES:
            with self.subTest(route.path):
                given = of[route.method, described_path(route)]
                names = [p["name"] for p in given if p["in"] == "query"]
                self.assertEqual(names, list(route.query or ()))

    def test_what_needs_no_secret_says_so(self) -> None:
        public = {described_path(route) for route in ROUTES if route.public}
        self.assertEqual({p for _, p, o in operations() if not asks(o)}, public)

    def test_basic_authentication_is_where_the_routes_have_it(self) -> None:
        basic = {described_path(route) for route in ROUTES if route.basic}
        found = {p for _, p, o in operations() if {"basic": []} in asks(o)}
        self.assertEqual(found, basic)

    def test_a_body_is_required_where_the_routes_require_it(self) -> None:
        required = {described_path(route) for route in ROUTES if route.body}
        found = {
            p for _, p, o in operations() if o.get("requestBody", {}).get("required")
        }
        self.assertEqual(found, required)

    def test_every_code_stands_under_its_status(self) -> None:
        found = {
            (code, int(status))
            for _, _, operation in operations()
            for status, response in operation["responses"].items()
            if int(status) >= 400
            for code in codes_of(resolved(response))
        }
        # No operation answers its own method so.
        found |= {(code, 405) for code in codes_of(RESPONSES["MethodNotAllowed"])}
        # A fault of the program; nobody raises it.
        found -= {("internal_error", 500)}
        self.assertEqual(found, set(STATUS_OF_CODE.items()))

    def test_a_run_has_every_key_in_order_and_every_status(self) -> None:
        self.assertEqual(list(SCHEMAS["Run"]["properties"]), list(RUN_SHOWN))
        self.assertEqual(SCHEMAS["Run"]["required"], list(RUN_SHOWN))
        status = SCHEMAS["Run"]["properties"]["status"]
        self.assertEqual(status["enum"], list(RUN_STATUSES))

    def test_objects_are_closed_or_say_what_else_they_may_hold(self) -> None:
        for value in objects(DOCUMENT):
            self.assertIn("additionalProperties", value, value)

    def test_the_limits_of_a_page_are_the_programs(self) -> None:
        parameters = DOCUMENT["paths"]["/runs"]["get"]["parameters"]
        (limit,) = [p["schema"] for p in parameters if p["name"] == "limit"]
        known = (RUNS_PAGE, RUNS_PAGE_LIMIT)
        self.assertEqual((limit["default"], limit["maximum"]), known)

    def test_it_is_of_this_version(self) -> None:
        self.assertEqual(DOCUMENT["info"]["version"], VERSION)

    def test_every_reference_leads_somewhere(self) -> None:
        for name in re.findall(r'"\$ref": "([^"]+)"', json.dumps(DOCUMENT)):
            self.assertTrue(resolved({"$ref": name}), name)


def asks(operation: dict[str, Any]) -> Any:
    """Return the ways in which an operation may be given the secret."""
    return operation.get("security", DOCUMENT["security"])


if __name__ == "__main__":
    unittest.main()
