"""Fields: what a query, a body and their headers must look like, and what they say.

Each function returns what was asked for or raises the refusal that says how to send it
right.  What ordinary clients send is taken (chunks, null, a byte order mark, any
spelling of UTF-8); what could be read in two ways is not (a field twice, an unknown
one).  Values only, so any thread may call.
"""

from __future__ import annotations

import re
import urllib.parse
from typing import Callable, Mapping, Optional, Sequence

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import RUN_STATUSES, Trigger
from cron_trigger.registry.strict_json import SURROGATE, Json, JsonObject, parse_json
from cron_trigger.registry.texts import (
    CONTROL_CHARACTER,
    LINE_CONTROL,
    printable,
    shown,
    whole_number,
)
from cron_trigger.registry.times import epoch_of, now_text
from cron_trigger.web.reader import Reader, body_too_large
from cron_trigger.web.routes import Route
from cron_trigger.web.wire import BODY_BYTES, Request, invalid

REQUESTED_BY_CHARS = 200
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,64}")
TIME_EXAMPLE = "2026-11-23T10:00:00+01:00"


# ---- the query


def read_query(request: Request, route: Route) -> dict[str, str]:
    if not request.query_text or route.query is None:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(
            request.query_text,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=20,
        )
    except ValueError:
        raise invalid("The query is not of the form name=value&name=value.") from None
    given: dict[str, str] = {}
    for name, value in pairs:
        if name not in route.query:
            raise _unknown("query parameter", name, route.query)
        if name in given:
            raise invalid(f'The query parameter "{name}" is given twice.')
        given[name] = value
    return given


def _unknown(kind: str, name: str, known: Sequence[str]) -> Refusal:
    takes = ", ".join(known) or "none"
    return invalid(
        f'The {kind} "{printable(name, 80)}" is not known; this address takes: {takes}.'
    )


def query_number(
    query: Mapping[str, str], name: str, low: int, high: int
) -> Optional[int]:
    if name not in query:
        return None
    number = whole_number(query[name], low, high)
    if number is None:
        raise invalid(
            f'"{name}" must be a whole number from {low} to {high}, got '
            f'"{printable(query[name], 40)}".'
        )
    return number


def query_time(query: Mapping[str, str], name: str) -> Optional[str]:
    """Return a time as the history writes it; else `invalid_request`."""
    if name not in query:
        return None
    # A plus sign that was not escaped arrives as a blank.
    text = query[name].replace(" ", "+") if "T" in query[name] else query[name]
    try:
        return now_text(epoch_of(text))
    except (ValueError, OverflowError, OSError):
        raise invalid(
            f'"{name}" must be a time with an offset, such as {TIME_EXAMPLE}, got '
            f'"{printable(query[name], 40)}".'
        ) from None


def query_statuses(query: Mapping[str, str]) -> tuple[str, ...]:
    if "status" not in query:
        return ()
    statuses = tuple(dict.fromkeys(query["status"].split(",")))
    for status in statuses:
        if status not in RUN_STATUSES:
            raise invalid(
                f'"status" must be one of {", ".join(RUN_STATUSES)}, or several with '
                f'commas between them, got "{printable(status, 40)}".'
            )
    return statuses


def query_flag(query: Mapping[str, str], name: str) -> bool:
    text = query.get(name, "false")
    if text not in ("true", "false"):
        raise invalid(f'"{name}" must be true or false, got "{printable(text, 40)}".')
    return text == "true"


# ---- the body


def read_body(
    request: Request, route: Route, reader: Reader, go_on: Callable[[], None]
) -> bytes:
    """Return a request's body, once its headers were found well; else a Refusal.

    `go_on` tells a client to send it that asked first (RFC 9110, 10.1.1).
    """
    length = _content_length(request, route)
    _check_content_type(request, route)
    expected = request.headers.get("expect", "").lower() == "100-continue"
    if expected and request.has_body and not request.old:
        go_on()
    if request.chunked:
        return reader.chunks()
    return reader.body(length) if length else b""


def _content_length(request: Request, route: Route) -> int:
    """Return the length of the body to read; else a Refusal, before any of it is read.

    Of two ways to say where a body ends, two programs may believe different ones
    (request smuggling, RFC 9112, 6.1).
    """
    text = request.headers.get("content-length")
    if request.chunked:
        way = request.headers["transfer-encoding"].lower()
        if way != "chunked" or text is not None or request.old:
            raise Refusal(
                "length_required",
                "A body must come with a Content-Length, or with Transfer-Encoding: "
                "chunked alone.",
            )
        return 0
    if text is None:
        if route.body:
            raise Refusal(
                "length_required",
                "This request needs a body, with a Content-Length or in chunks.",
            )
        return 0
    length = whole_number(text, 0, 10**19)
    if length is None:
        raise invalid("Content-Length must be a decimal number.")
    if length > BODY_BYTES:
        raise body_too_large(str(length))
    return length


def _check_content_type(request: Request, route: Route) -> None:
    """Refuse a changing request that is not JSON: what a foreign form can send.

    One with nothing in it may be of any type, or none: there, its Origin tells.
    """
    if not route.changes or not (request.has_body or route.body):
        return
    kind, *parameters = request.headers.get("content-type", "").lower().split(";")
    pairs = [parameter.strip().partition("=") for parameter in parameters]
    charsets = {
        re.sub("[\"'_-]", "", value).strip()
        for name, _, value in pairs
        if name.strip() == "charset"
    }
    if kind.strip() != "application/json" or charsets - {"utf8"}:
        raise Refusal(
            "unsupported_media_type",
            "The body must be JSON in UTF-8; send it with the header Content-Type: "
            "application/json.",
        )


def read_fields(request: Request, known: Sequence[str]) -> dict[str, Json]:
    """Return the fields of a request's JSON object; else `invalid_request`.

    A field that is null is as if it were not given: some languages write all of them.
    """
    if not request.body:
        return {}
    try:
        value = parse_json(request.body.decode("utf-8"))
    except UnicodeDecodeError:
        raise invalid("The body is not UTF-8.") from None
    except ValueError as error:
        raise invalid(f"The body is not JSON: {printable(str(error), 200)}.") from None
    if not isinstance(value, dict):
        raise invalid("The body must be a JSON object.")
    objects = [v for v in (value, *value.values()) if isinstance(v, JsonObject)]
    twice = [key for v in objects for key in v.twice]
    if twice:
        raise invalid(f'The field "{printable(twice[0], 80)}" is given twice.')
    for name in value:
        if name not in known:
            raise _unknown("field", name, known)
    return _without_null(value)


def _without_null(given: Mapping[str, Json]) -> dict[str, Json]:
    return {name: value for name, value in given.items() if value is not None}


def read_requested_by(fields: Mapping[str, Json]) -> Optional[str]:
    """Return who asks, cut where it is long; else `invalid_request`."""
    value = fields.get("requestedBy", "")
    cut = value[:REQUESTED_BY_CHARS] if isinstance(value, str) else "\0"
    if any(p.search(cut) for p in (CONTROL_CHARACTER, LINE_CONTROL, SURROGATE)):
        raise invalid(
            '"requestedBy" must be a text without control characters, got '
            f"{shown(value)}."
        )
    return cut or None


def read_trigger(request: Request) -> Trigger:
    fields = read_fields(request, ("cronName", "params", "requestedBy", "runAt"))
    name = fields.get("cronName")
    if not isinstance(name, str) or not name:
        raise invalid(
            'The body must name a cron, such as {"cronName": "check-alerts"}.'
        )
    params = fields.get("params", {})
    if not isinstance(params, dict):
        raise invalid(f'"params" must be an object of parameters, got {shown(params)}.')
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise invalid("An Idempotency-Key must be 1 to 64 visible ASCII characters.")
    return Trigger(
        name,
        "http",
        _without_null(params),
        read_requested_by(fields),
        request.address,
        key,
        run_at=_read_run_at(fields),
    )


def _read_run_at(fields: Mapping[str, Json]) -> Optional[str]:
    if "runAt" not in fields:
        return None
    value = fields["runAt"]
    try:
        epoch_of(value)
    except (TypeError, ValueError, OverflowError):
        raise invalid(
            f'"runAt" must be a time with an offset, such as "{TIME_EXAMPLE}", got '
            f"{shown(value)}."
        ) from None
    return str(value)
