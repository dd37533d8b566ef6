#!/usr/bin/env python3
"""Compare this month's OpenAI costs (in UTC) with a budget.

Settings, by environment:
  OPENAI_ADMIN_KEY           an administration key ("sk-admin-..."); required
  OPENAI_MONTHLY_BUDGET_USD  the month's budget in dollars (100)
  OPENAI_BASE_URL            the API's address (https://api.openai.com/v1)
  CRON_PARAM_BUDGET          the budget for this run only; wins over the setting

Exit status: 0 within the budget, 1 above it or no usable answer,
78 key missing or refused, or an invalid setting.
"""

import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from datetime import datetime, timezone
from decimal import Decimal
from typing import Any, NoReturn

#: Plain HTTP to this host only: elsewhere, anybody on the way could read the key.
HOST = r"https://([\w-]{1,63}\.)*[\w-]{1,63}|http://(localhost|127\.0\.0\.1|\[::1\])"
ADDRESS = re.compile(rf"({HOST})(:\d{{1,5}})?(/[!-~]*)?", re.ASCII)


def fail(status: int, sentence: str) -> NoReturn:
    print(f"monitor-openai : {sentence}", file=sys.stderr)
    sys.exit(status)


def fetch(url: str, key: str) -> Any:
    request = urllib.request.Request(url)
    # "Unredirected": urllib would hand the key to whatever host a redirect names.
    request.add_unredirected_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=20) as answer:
        return json.loads(answer.read(4 << 20), parse_float=Decimal)


def spent_usd(url: str, key: str) -> Decimal:
    """Add up all pages of the answer; raises one of many errors where it is odd."""
    total, page = Decimal(0), ""
    for _ in range(40):  # more pages than a month can fill
        answer = fetch(url + page, key)
        for result in (r for day in answer["data"] for r in day["results"]):
            if result["amount"]["currency"].lower() != "usd":
                raise ValueError("une autre monnaie que le dollar")
            total += Decimal(str(result["amount"]["value"]))
        if not answer["has_more"]:
            return Decimal(round(total * 100)) / 100  # raises for NaN and infinity
        page = f"&page={urllib.parse.quote(answer['next_page'])}"
    raise ValueError("des pages sans fin")


def main() -> int:
    names = "CRON_PARAM_BUDGET", "OPENAI_MONTHLY_BUDGET_USD"
    setting = names[0] if os.environ.get(names[0]) else names[1]
    budget = os.environ.get(setting) or "100"
    key = os.environ.get("OPENAI_ADMIN_KEY", "").strip()
    url = os.environ.get("OPENAI_BASE_URL") or "https://api.openai.com/v1"
    if not re.fullmatch("[!-~]+", key):
        fail(78, "OPENAI_ADMIN_KEY manque ou n'est pas une clé d'administration.")
    if not ADDRESS.fullmatch(url):  # not shown: keys get pasted into wrong places
        fail(78, "OPENAI_BASE_URL n'est pas une adresse https:// (http:// : local).")
    if not re.fullmatch(r"[0-9]{1,8}([.][0-9]+)?", budget) or not Decimal(budget):
        fail(78, f"{setting} vaut {budget!r} : donnez un montant positif (USD).")
    start = datetime.now(timezone.utc).replace(day=1, hour=0, minute=0, second=0)
    query = f"start_time={int(start.timestamp())}&bucket_width=1d&limit=31"
    try:
        spent = spent_usd(f"{url.rstrip('/')}/organization/costs?{query}", key)
    except urllib.error.HTTPError as error:  # its body may quote the key
        if error.code in (401, 403):
            fail(78, f"OpenAI refuse OPENAI_ADMIN_KEY (HTTP {error.code}).")
        fail(1, f"OpenAI répond HTTP {error.code} : réessayez plus tard.")
    except Exception as error:  # no network, no JSON, another shape
        advice = "vérifiez le réseau et OPENAI_BASE_URL"
        fail(1, f"Pas de réponse utilisable d'OpenAI ({error!r}) : {advice}.")
    left = Decimal(budget) - spent
    word = "ALERTE : le budget est dépassé de" if left < 0 else "OK : il reste"
    print(f"{word} {abs(left):.2f} USD ({spent:.2f} dépensés ce mois sur {budget})")
    return 1 if left < 0 else 0


if __name__ == "__main__":
    sys.tracebacklimit = 0  # what nobody foresaw is one line, and exit status 1
    sys.exit(main())
