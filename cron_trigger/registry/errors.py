"""Errors: what a request, a start or a launch is refused with.

Knows every code that an answer may carry, and the exit statuses of sysexits.h.
Promises that each error's text is a sentence for people: the rule, the value, the
remedy.  Raised anywhere, caught once: by the web's one writer of errors and by
`cli.main`.
"""

from __future__ import annotations

from typing import Any, Mapping, Optional

#: sysexits.h: a wrong call, a temporary failure, a wrong configuration.
EX_USAGE, EX_TEMPFAIL, EX_CONFIG = 64, 75, 78
#: Every code that an answer may carry, and its HTTP status.
STATUS_OF_CODE = {
    "invalid_request": 400,
    "invalid_params": 400,
    "unauthorized": 401,
    "forbidden": 403,
    "unknown_cron": 404,
    "not_found": 404,
    "method_not_allowed": 405,
    "request_timeout": 408,
    "already_running": 409,
    "not_running": 409,
    "not_pending": 409,
    "too_many_scheduled": 409,
    "length_required": 411,
    "body_too_large": 413,
    "unsupported_media_type": 415,
    "misdirected_request": 421,
    "idempotency_mismatch": 422,
    "too_many_attempts": 429,
    "launch_failed": 500,
    "overloaded": 503,
    "shutting_down": 503,
}


class Refusal(Exception):
    """A request that is not carried out: one sentence, a code, and what belongs to it.

    `extra` goes into the JSON answer as it is; `headers` into its head.
    """

    def __init__(
        self,
        code: str,
        message: str,
        headers: Optional[Mapping[str, str]] = None,
        **extra: Any,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.status = STATUS_OF_CODE[code]
        self.headers = dict(headers or {})
        self.extra = extra

    def answer(self) -> dict[str, Any]:
        """Return the JSON object that every error has."""
        head = {"success": False, "error": self.message, "code": self.code}
        return {**head, **self.extra}


def overloaded(what: str, retry_after_s: int, **extra: Any) -> Refusal:
    """Return the refusal for one who finds no room just now."""
    text = f"{what}; try again in {retry_after_s} s."
    return Refusal("overloaded", text, {"Retry-After": str(retry_after_s)}, **extra)


class ConfigError(Exception):
    """A setting that does not hold; its text names the setting, value and remedy."""

    status = EX_CONFIG


class NotNow(ConfigError):
    """What a setting asks for is another's, or not there yet: later it may be had."""

    status = EX_TEMPFAIL


class LaunchError(Exception):
    """A script that can't be started; its text says which, why, and the remedy."""
