"""Fields."""

from __future__ import annotations

import re
import urllib.parse
from typing import Dict, Mapping, Optional, Sequence

from cron_trigger.registry.errors import Refusal
from cron_trigger.registry.records import Trigger
from cron_trigger.registry.strict_json import Json, parse_json
from cron_trigger.registry.texts import (
    CONTROL_CHARACTER,
    LINE_CONTROL,
    SURROGATE,
    printable,
    shown,
)
from cron_trigger.registry.times import epoch_of
from cron_trigger.web.routes import Route
from cron_trigger.web.wire import BODY_BYTES, Request

REQUESTED_BY_CHARS = 200
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,64}")


def read_query(request: Request, route: Route) -> Dict[str, str]:
    """Return the query's parameters; else `invalid_request`."""
    if not request.query:
        return {}
    try:
        pairs = urllib.parse.parse_qsl(
            request.query,
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=20,
        )
    except ValueError:
        raise Refusal(
            "invalid_request", "The query is not of the form name=value&name=value."
        ) from None
    given: Dict[str, str] = {}
    for name, value in pairs:
        shown = printable(name, 80)
        if name not in route.query:
            takes = ", ".join(route.query) or "none"
            raise Refusal(
                "invalid_request",
                f'The query parameter "{shown}" is not known; this address takes: '
                f"{takes}.",
            )
        if name in given:
            raise Refusal(
                "invalid_request", f'The query parameter "{shown}" is given twice.'
            )
        given[name] = value
    return given


def query_number(
    query: Mapping[str, str],
    name: str,
    low: int,
    high: int,
    default: Optional[int] = None,
) -> Optional[int]:
    """Return a whole number out of a query; else `invalid_request`."""
    if name not in query:
        return default
    text = query[name]
    if re.fullmatch(r"\d{1,19}", text, re.ASCII) and low <= int(text) <= high:
        return int(text)
    raise Refusal(
        "invalid_request",
        f'"{name}" must be a whole number from {low} to {high}, got '
        f'"{printable(text, 40)}".',
    )


def read_body(request: Request, known: Sequence[str]) -> Dict[str, Json]:
    """Return the fields of a request's JSON object; else `invalid_request`."""
    if not request.body:
        return {}
    try:
        value = parse_json(request.body.decode("utf-8"))
    except UnicodeDecodeError:
        raise Refusal("invalid_request", "The body is not UTF-8.") from None
    except ValueError as error:
        raise Refusal(
            "invalid_request",
            f"The body is not JSON: {printable(str(error), 200)}.",
        ) from None
    if not isinstance(value, dict):
        raise Refusal("invalid_request", "The body must be a JSON object.")
    twice = [
        *getattr(value, "twice", ()),
        *(key for v in value.values() for key in getattr(v, "twice", ())),
    ]
    if twice:
        raise Refusal(
            "invalid_request", f'The field "{printable(twice[0], 80)}" is given twice.'
        )
    for name in value:
        if name not in known:
            raise Refusal(
                "invalid_request",
                f'The field "{printable(name, 80)}" is not known; this address takes: '
                f"{', '.join(known)}.",
            )
    return value


def read_requested_by(body: Mapping[str, Json]) -> Optional[str]:
    """Return the field `requestedBy`; else `invalid_request`."""
    value = body.get("requestedBy")
    if value is None and "requestedBy" not in body:
        return None
    if (
        not isinstance(value, str)
        or len(value) > REQUESTED_BY_CHARS
        or any(p.search(value) for p in (CONTROL_CHARACTER, LINE_CONTROL, SURROGATE))
    ):
        raise Refusal(
            "invalid_request",
            f'"requestedBy" must be a text of up to {REQUESTED_BY_CHARS} '
            f"characters, none of them a control character, got {shown(value)}.",
        )
    return value or None


def read_trigger(request: Request) -> Trigger:
    """Return the trigger that a request's body asks for; else `invalid_request`."""
    body = read_body(request, ("cronName", "params", "requestedBy", "runAt"))
    name = body.get("cronName")
    if not isinstance(name, str) or not name:
        raise Refusal(
            "invalid_request",
            'The body must name a cron, such as {"cronName": "check-alerts"}.',
        )
    params = body.get("params", {})
    if not isinstance(params, dict):
        raise Refusal(
            "invalid_request",
            f'"params" must be an object of parameters, got {shown(params)}.',
        )
    key = request.headers.get("idempotency-key")
    if key is not None and not IDEMPOTENCY_KEY.fullmatch(key):
        raise Refusal(
            "invalid_request",
            "An Idempotency-Key has 1 to 64 visible ASCII characters.",
        )
    return Trigger(
        name,
        "http",
        params,
        read_requested_by(body),
        request.address,
        key,
        run_at=_read_run_at(body),
    )


def _read_run_at(body: Mapping[str, Json]) -> Optional[str]:
    if "runAt" not in body:
        return None
    value = body["runAt"]
    try:
        epoch_of(value)
    except (TypeError, ValueError, OverflowError):
        raise Refusal(
            "invalid_request",
            '"runAt" must be a time with an offset, such as '
            f'"2026-11-23T10:00:00+01:00", got {shown(value)}.',
        ) from None
    return str(value)


def content_length(request: Request, route: Route) -> int:
    """Return the length of the body to read; else a Refusal, before any of it is read.

    A chunked body is refused: its length would be known only after it was read.
    """
    if "transfer-encoding" in request.headers:
        raise Refusal(
            "length_required",
            "A body must come with a Content-Length, not in chunks.",
        )
    text = request.headers.get("content-length")
    if text is None:
        if route.body:
            raise Refusal("length_required", "This request needs a Content-Length.")
        return 0
    if not re.fullmatch(r"\d{1,19}", text, re.ASCII):
        raise Refusal("invalid_request", "Content-Length must be a decimal number.")
    if int(text) > BODY_BYTES:
        raise Refusal(
            "body_too_large", f"A body has at most {BODY_BYTES >> 10} KiB, got {text}."
        )
    return int(text)


def check_content_type(request: Request, route: Route) -> None:
    """Refuse a changing request that is not JSON: what a foreign form can send."""
    given = request.headers.get("content-type")
    if not route.changes or (given is None and not request.has_body and not route.body):
        return
    kind, _, rest = (given or "").partition(";")
    charset = rest.strip().lower().replace('"', "")
    if kind.strip().lower() != "application/json" or charset not in (
        "",
        "charset=utf-8",
    ):
        raise Refusal(
            "unsupported_media_type",
            "The body must be JSON in UTF-8, with Content-Type: application/json.",
        )
