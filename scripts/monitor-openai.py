#!/usr/bin/env python3
"""Compare this month's OpenAI costs with a budget.

Asks GET /organization/costs (one bucket per day, in UTC, since the first of the month)
and adds up every page of the answer.

Settings, by environment:
  OPENAI_ADMIN_KEY           an administration key ("sk-admin-..."); required
  OPENAI_MONTHLY_BUDGET_USD  the month's budget in dollars (100)
  OPENAI_BASE_URL            the API's address (https://api.openai.com/v1)
  CRON_PARAM_BUDGET          the budget for this run only; wins over the setting

Exit status: 0 within the budget, 1 above it or no usable answer, 64 wrong call,
78 key missing or refused, or a setting that does not hold.
"""

from __future__ import annotations

import calendar
import http.client
import io
import json
import os
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from typing import Any

EX_USAGE, EX_CONFIG = 64, 78

DEFAULT_BASE_URL = "https://api.openai.com/v1"
DEFAULT_BUDGET_USD, MAX_BUDGET_USD = "100", 10_000_000
TIMEOUT_S = 20
DAYS_PER_PAGE = 31
#: More pages than a month can fill: an answer that goes on is not believed.
MAX_PAGES = 40
MAX_ANSWER_BYTES = 4 * 1024 * 1024


class Fault(Exception):
    """One sentence for people, and the exit status that goes with it."""

    def __init__(self, sentence: str, status: int = 1) -> None:
        super().__init__(sentence)
        self.status = status


class NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follow no redirect: urllib would hand the key to whatever host it names."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def admin_key() -> str:
    key = os.environ.get("OPENAI_ADMIN_KEY", "").strip()
    if not key:
        raise Fault(
            "OPENAI_ADMIN_KEY n'est pas définie : créez une clé d'administration sur "
            "platform.openai.com (Organization > Admin keys) et ajoutez-la à "
            "/etc/default/cron-trigger-server.",
            EX_CONFIG,
        )
    # http.client quotes a malformed header, hence the key, in its error.
    if not all("!" <= character <= "~" for character in key):
        raise Fault(
            "OPENAI_ADMIN_KEY contient un espace ou un caractère non ASCII : "
            "recopiez la clé sans rien autour.",
            EX_CONFIG,
        )
    return key


def base_url() -> str:
    url = os.environ.get("OPENAI_BASE_URL") or DEFAULT_BASE_URL
    try:
        parts = urllib.parse.urlsplit(url)
        _ = parts.port  # raises ValueError when it is no number
        (parts.hostname or "").encode("idna")  # as the resolver does, and may refuse to
    except ValueError:
        raise invalid_address("OPENAI_BASE_URL") from None
    local = parts.hostname in ("localhost", "127.0.0.1", "::1")
    # Over plain HTTP, anybody on the way could read the key.
    if not (parts.scheme == "https" or (parts.scheme == "http" and local)):
        raise Fault(
            "OPENAI_BASE_URL doit commencer par https:// (http:// n'est admis que pour "
            "localhost), sinon la clé circulerait en clair.",
            EX_CONFIG,
        )
    if not parts.hostname or not all("!" <= character <= "~" for character in url):
        raise invalid_address("OPENAI_BASE_URL")
    return url.rstrip("/")


def invalid_address(name: str) -> Fault:
    # Its value is not shown: a key gets pasted into the wrong setting.
    return Fault(
        f"{name} n'est pas une adresse valable : donnez par exemple "
        f"{DEFAULT_BASE_URL}.",
        EX_CONFIG,
    )


def budget_usd() -> Decimal:
    name = "OPENAI_MONTHLY_BUDGET_USD"
    if os.environ.get("CRON_PARAM_BUDGET"):
        name = "CRON_PARAM_BUDGET"
    text = os.environ.get(name) or DEFAULT_BUDGET_USD
    try:
        budget = Decimal(text)
    except InvalidOperation:
        budget = Decimal(0)
    # A cent at least: the share of a budget of 1e-999999 may be beyond Decimal.
    if not (budget.is_finite() and Decimal("0.01") <= budget <= MAX_BUDGET_USD):
        raise Fault(
            f"{name} vaut « {shown(text)} » : donnez un montant positif en dollars, "
            f"au plus {MAX_BUDGET_USD}, par exemple 100.",
            EX_CONFIG,
        )
    return budget


def shown(text: str) -> str:
    """Return the text without what could drive a terminal."""
    return "".join(c if c.isprintable() else "?" for c in text)


def fetch(url: str, key: str) -> Any:
    """Return the decoded JSON answer. The body of an error is never shown: it may
    quote the key."""
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"})
    opener = urllib.request.build_opener(NoRedirect)
    try:
        with opener.open(request, timeout=TIMEOUT_S) as answer:
            body = answer.read(MAX_ANSWER_BYTES)
    except urllib.error.HTTPError as error:
        error.close()
        raise refusal(error.code) from None
    except (ValueError, http.client.InvalidURL):  # a host that urllib can't take
        raise invalid_address("OPENAI_BASE_URL (ou https_proxy)") from None
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise Fault(
            f"OpenAI ne répond pas ({reason}) : vérifiez le réseau et OPENAI_BASE_URL."
        ) from None
    try:
        return json.loads(body, parse_float=Decimal)
    except (ValueError, RecursionError):
        raise Fault(
            "La réponse d'OpenAI n'est pas du JSON : vérifiez OPENAI_BASE_URL."
        ) from None


def refusal(code: int) -> Fault:
    if code in (401, 403):
        return Fault(
            f"OpenAI refuse la clé (HTTP {code}) : il faut une clé d'administration "
            "valide, avec le droit de lire la consommation.",
            EX_CONFIG,
        )
    if code == 429:
        return Fault("OpenAI limite les requêtes (HTTP 429) : réessayez plus tard.")
    return Fault(
        f"OpenAI répond par une erreur (HTTP {code}) : réessayez plus tard, ou "
        "vérifiez OPENAI_BASE_URL."
    )


def month_to_date_usd(base: str, key: str, month_start: datetime) -> Decimal:
    query: dict[str, str | int] = {
        "start_time": int(month_start.timestamp()),
        "bucket_width": "1d",
        "limit": DAYS_PER_PAGE,
    }
    total = Decimal(0)
    for _ in range(MAX_PAGES):
        address = f"{base}/organization/costs?{urllib.parse.urlencode(query)}"
        answer = fetch(address, key)
        try:
            total += page_total_usd(answer)
            if not answer["has_more"]:
                return total
            query["page"] = str(answer["next_page"])
        except (AttributeError, KeyError, TypeError, ArithmeticError):
            raise Fault(
                "La réponse d'OpenAI n'a pas la forme attendue : vérifiez "
                "OPENAI_BASE_URL."
            ) from None
    raise Fault("La réponse d'OpenAI ne finit pas : vérifiez OPENAI_BASE_URL.")


def page_total_usd(answer: dict[str, Any]) -> Decimal:
    total = Decimal(0)
    for bucket in answer["data"]:
        for result in bucket["results"]:
            amount = result["amount"]
            if amount["currency"].lower() != "usd":
                raise Fault("OpenAI répond dans une autre monnaie que le dollar (USD).")
            # A number in the reference, a string in some real answers.
            value = Decimal(str(amount["value"]))
            if not value.is_finite():
                raise ArithmeticError
            total += value
    return total


def report(spent: Decimal, budget: Decimal, now: datetime) -> int:
    """Print the figures; return the exit status."""
    days = calendar.monthrange(now.year, now.month)[1]
    elapsed_days = Decimal(now.day - 1) + Decimal(now.hour * 60 + now.minute) / 1440
    print(f"Dépensé depuis le 1er du mois : {spent:.2f} USD")
    print(f"Budget du mois : {budget:.2f} USD ({spent / budget:.0%} consommé)")
    if elapsed_days >= 1:
        forecast = spent / elapsed_days * days
        print(f"À ce rythme, en fin de mois : {forecast:.2f} USD")
    if spent > budget:
        print(f"ALERTE : le budget est dépassé de {spent - budget:.2f} USD.")
        return 1
    print(f"OK : il reste {budget - spent:.2f} USD.")
    return 0


def main(argv: list[str]) -> int:
    if argv:
        raise Fault("Ce script ne prend pas d'argument.", EX_USAGE)
    key, base, budget = admin_key(), base_url(), budget_usd()
    now = datetime.now(timezone.utc)
    month_start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    print(f"Coûts OpenAI du mois {now:%m/%Y} (jours UTC)")
    return report(month_to_date_usd(base, key, month_start), budget, now)


class Output(io.FileIO):
    """A stream that drops what it can't write: on a full disk, or once the reader of a
    pipe has left, the work goes on and the exit status tells how it ended."""

    def write(self, data: Any) -> int:
        try:
            # None: its pipe is full, and whoever made it wanted no waiting
            return super().write(data) or len(data)
        except OSError:
            return len(data)


def output(number: int) -> io.TextIOWrapper:
    """Return the standard stream of this number, for any text, in UTF-8."""
    file = io.BufferedWriter(Output(number, "wb", closefd=False))
    return io.TextIOWrapper(file, "utf-8", "backslashreplace", line_buffering=True)


def open_outputs() -> None:
    # Closed ones first lead nowhere, or the next file opened would take their place.
    while (spare := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(spare)
    sys.stdout, sys.stderr = output(1), output(2)


def cli() -> int:
    open_outputs()
    try:
        return main(sys.argv[1:])
    except Fault as fault:
        print(f"monitor-openai : {fault}", file=sys.stderr)
        return fault.status
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(cli())
