"""Crontabs as Debian's packages install them, and what becomes of each.

They are written anew after what packages have; the commands are as they are there.
"""

from __future__ import annotations

import json
import os
import unittest
from pathlib import Path
from typing import Any, Mapping, NamedTuple, Optional

from cron_trigger.crontab.conversion import Conversion, convert
from cron_trigger.crontab.entries import Host
from cron_trigger.crontab.lines import Source
from cron_trigger.registry.checker import Checker
from cron_trigger.registry.crons import CRON_NAME

RUN = "/usr/local/bin/cron-trigger run"
DEBIAN_PATH = "/usr/local/sbin:/usr/local/bin:/sbin:/bin:/usr/sbin:/usr/bin"
HOMES = {"root": "/root", "www-data": "/var/www", "munin": "/var/lib/munin"}
HOMES.update({"anna": "/home/anna", "logcheck": "/var/lib/logcheck"})
#: A host that is the same everywhere.
HOST = Host(home_of=HOMES.get, which=lambda name, path: None)


def converted(text: str, user: Optional[str] = None, file: str = "tab") -> Conversion:
    return convert([Source(file, text, user)], host=HOST)


class Case(NamedTuple):
    """A crontab, and its jobs in the registry, with all keys but `description`."""

    title: str
    text: str
    #: Name to entry, in the order of the lines.
    entries: Mapping[str, Mapping[str, Any]]
    user: Optional[str] = None


def by_shell(text: str, **others: Any) -> dict[str, Any]:
    return {"command": ["/bin/sh", "-c", text], "workingDirectory": "/root", **others}


def plain(*command: str, **others: Any) -> dict[str, Any]:
    return {"command": list(command), "workingDirectory": "/root", **others}


WITH_PATH = {"environment": {"PATH": DEBIAN_PATH}}
OF_WWW = {"user": "www-data", "workingDirectory": "/var/www"}
OF_ANNA = {"user": "anna", "workingDirectory": "/home/anna"}

#: What packages of Debian install.
PACKAGES = [
    Case(
        "/etc/crontab",
        f"""\
# The host's own crontab.
SHELL=/bin/sh
PATH={DEBIAN_PATH}

# .---------------- minute (0 - 59)
# |  .------------- hour (0 - 23)
# *  *  *  *  * user-name command to be executed
17 *\t* * *\troot\tcd / && run-parts --report /etc/cron.hourly
25 6\t* * *\troot\ttest -x /usr/sbin/anacron || {{ cd / && run-parts --report /etc/cron.daily; }}
47 6\t* * 7\troot\ttest -x /usr/sbin/anacron || {{ cd / && run-parts --report /etc/cron.weekly; }}
52 6\t1 * *\troot\ttest -x /usr/sbin/anacron || {{ cd / && run-parts --report /etc/cron.monthly; }}
#
""",  # noqa: E501
        {
            "cron.hourly": {
                **plain("run-parts", "--report", "/etc/cron.hourly", **WITH_PATH),
                "workingDirectory": "/",
                "schedule": "17 * * * *",
            },
            "cron.daily": by_shell(
                "test -x /usr/sbin/anacron || "
                "{ cd / && run-parts --report /etc/cron.daily; }",
                **WITH_PATH,
                schedule="25 6 * * *",
            ),
            "cron.weekly": by_shell(
                "test -x /usr/sbin/anacron || "
                "{ cd / && run-parts --report /etc/cron.weekly; }",
                **WITH_PATH,
                schedule="47 6 * * 7",
            ),
            "cron.monthly": by_shell(
                "test -x /usr/sbin/anacron || "
                "{ cd / && run-parts --report /etc/cron.monthly; }",
                **WITH_PATH,
                schedule="52 6 1 * *",
            ),
        },
    ),
    Case(
        "php-common",
        "# Purges old sessions twice an hour\n"
        "09,39 *     * * *     root   [ -x /usr/lib/php/sessionclean ] && "
        "if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi\n",
        {
            "sessionclean": by_shell(
                "[ -x /usr/lib/php/sessionclean ] && "
                "if [ ! -d /run/systemd/system ]; then /usr/lib/php/sessionclean; fi",
                schedule="09,39 * * * *",
            )
        },
    ),
    Case(
        "certbot",
        f"SHELL=/bin/sh\nPATH={DEBIAN_PATH}\n\n"
        "0 */12 * * * root test -x /usr/bin/certbot -a \\! -d /run/systemd/system && "
        "perl -e 'sleep int(rand(43200))' && "
        "certbot -q renew --no-random-sleep-on-renew\n",
        {
            "certbot-renew": by_shell(
                "test -x /usr/bin/certbot -a \\! -d /run/systemd/system && "
                "perl -e 'sleep int(rand(43200))' && "
                "certbot -q renew --no-random-sleep-on-renew",
                **WITH_PATH,
                schedule="0 */12 * * *",
            )
        },
    ),
    Case(
        "sysstat",
        "PATH=/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin\n\n"
        "# A sample of the host's activity\n"
        "5-55/10 * * * * root command -v debian-sa1 > /dev/null && debian-sa1 1 1\n\n"
        "59 23 * * * root command -v debian-sa1 > /dev/null && debian-sa1 60 2\n",
        {
            "debian-sa1": by_shell(
                "command -v debian-sa1 > /dev/null && debian-sa1 1 1",
                environment={
                    "PATH": "/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
                },
                schedule="5-55/10 * * * *",
            ),
            "debian-sa1-2": by_shell(
                "command -v debian-sa1 > /dev/null && debian-sa1 60 2",
                environment={
                    "PATH": "/usr/lib/sysstat:/usr/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
                },
                schedule="59 23 * * *",
            ),
        },
    ),
    Case(
        "mdadm: an escaped %",
        "57 0 * * 0 root if [ -x /usr/share/mdadm/checkarray ] && "
        "[ $(date +\\%d) -le 7 ]; then /usr/share/mdadm/checkarray --cron --all "
        "--idle --quiet; fi\n",
        {
            "checkarray": by_shell(
                "if [ -x /usr/share/mdadm/checkarray ] && [ $(date +%d) -le 7 ]; then "
                "/usr/share/mdadm/checkarray --cron --all --idle --quiet; fi",
                schedule="57 0 * * 0",
            )
        },
    ),
    Case(
        "e2fsprogs",
        "30 3 * * 0 root test -e /run/systemd/system || SERVICE_MODE=1 "
        "/usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron\n"
        "10 3 * * * root test -e /run/systemd/system || SERVICE_MODE=1 "
        "/sbin/e2scrub_all -A -r\n",
        {
            "e2scrub_all_cron": by_shell(
                "test -e /run/systemd/system || SERVICE_MODE=1 "
                "/usr/lib/x86_64-linux-gnu/e2fsprogs/e2scrub_all_cron",
                schedule="30 3 * * 0",
            ),
            "e2scrub_all": by_shell(
                "test -e /run/systemd/system || SERVICE_MODE=1 /sbin/e2scrub_all -A -r",
                schedule="10 3 * * *",
            ),
        },
    ),
    Case(
        "logcheck: @reboot, and another user",
        f"PATH={DEBIAN_PATH}\nMAILTO=root\n\n"
        "@reboot         logcheck    if [ -x /usr/sbin/logcheck ]; then "
        "nice -n10 /usr/sbin/logcheck -R; fi\n"
        "2 * * * *       logcheck    if [ -x /usr/sbin/logcheck ]; then "
        "nice -n10 /usr/sbin/logcheck; fi\n\n# EOF\n",
        {
            "logcheck": {
                **by_shell(
                    "if [ -x /usr/sbin/logcheck ]; then "
                    "nice -n10 /usr/sbin/logcheck -R; fi",
                    **WITH_PATH,
                ),
                "user": "logcheck",
                "workingDirectory": "/var/lib/logcheck",
            },
            "logcheck-2": {
                **by_shell(
                    "if [ -x /usr/sbin/logcheck ]; then "
                    "nice -n10 /usr/sbin/logcheck; fi",
                    **WITH_PATH,
                ),
                "user": "logcheck",
                "workingDirectory": "/var/lib/logcheck",
                "schedule": "2 * * * *",
            },
        },
    ),
    Case(
        "popularity-contest",
        "SHELL=/bin/sh\nPATH=/usr/local/sbin:/usr/local/bin:/sbin:/bin\n"
        "13 4 * * *   root    test -x /etc/cron.daily/popularity-contest && "
        "/etc/cron.daily/popularity-contest --crond\n",
        {
            "popularity-contest": by_shell(
                "test -x /etc/cron.daily/popularity-contest && "
                "/etc/cron.daily/popularity-contest --crond",
                environment={"PATH": "/usr/local/sbin:/usr/local/bin:/sbin:/bin"},
                schedule="13 4 * * *",
            )
        },
    ),
    Case(
        "munin: a % in quotes is none of cron's where it is not there",
        "MAILTO=root\n\n"
        "*/5 * * * *     munin if [ -x /usr/bin/munin-cron ]; then "
        "/usr/bin/munin-cron; fi\n"
        "27 03 * * *     munin htmldir=$({ cat /etc/munin/munin.conf 2>/dev/null || "
        "true; } | sed -nE 's/^\\s*htmldir\\s+(\\S.*)$/\\1/p' | tail -1); "
        'find "$htmldir/" -type f -name "*.html" -mtime +30 -delete\n',
        {
            "munin-cron": {
                **by_shell(
                    "if [ -x /usr/bin/munin-cron ]; then /usr/bin/munin-cron; fi"
                ),
                "user": "munin",
                "workingDirectory": "/var/lib/munin",
                "schedule": "*/5 * * * *",
            },
            "find": {
                **by_shell(
                    "htmldir=$({ cat /etc/munin/munin.conf 2>/dev/null || true; } | "
                    "sed -nE 's/^\\s*htmldir\\s+(\\S.*)$/\\1/p' | tail -1); "
                    'find "$htmldir/" -type f -name "*.html" -mtime +30 -delete'
                ),
                "user": "munin",
                "workingDirectory": "/var/lib/munin",
                "schedule": "27 03 * * *",
            },
        },
    ),
    Case(
        "ntpsec",
        "25 6     * * * root if [ ! -d /run/systemd/system ] && "
        "[ -x /usr/libexec/ntpsec/rotate-stats ] ; then "
        "/usr/libexec/ntpsec/rotate-stats ; fi\n",
        {
            "rotate-stats": by_shell(
                "if [ ! -d /run/systemd/system ] && "
                "[ -x /usr/libexec/ntpsec/rotate-stats ] ; then "
                "/usr/libexec/ntpsec/rotate-stats ; fi",
                schedule="25 6 * * *",
            )
        },
    ),
    Case(
        "anacron",
        "30 7-23 * * *   root\t[ -x /etc/init.d/anacron ] && "
        "if [ ! -d /run/systemd/system ]; then "
        "/usr/sbin/invoke-rc.d anacron start >/dev/null; fi\n",
        {
            "anacron": by_shell(
                "[ -x /etc/init.d/anacron ] && if [ ! -d /run/systemd/system ]; then "
                "/usr/sbin/invoke-rc.d anacron start >/dev/null; fi",
                schedule="30 7-23 * * *",
            )
        },
    ),
    Case(
        "apticron",
        "25 * * * * root if test -x /usr/sbin/apticron; then "
        "/usr/sbin/apticron --cron; else true; fi\n",
        {
            "apticron": by_shell(
                "if test -x /usr/sbin/apticron; then "
                "/usr/sbin/apticron --cron; else true; fi",
                schedule="25 * * * *",
            )
        },
    ),
]


def hold_entry(case: unittest.TestCase, name: str, entry: Mapping[str, Any]) -> None:
    """Check an entry as the server does, but for its user, whom this host may lack."""
    keys = "description command user workingDirectory environment timeout killAfter"
    case.assertLessEqual(set(entry), {*keys.split(), "logFile", "schedule"})
    case.assertTrue(CRON_NAME.fullmatch(name) and name != "cron-trigger-server")
    case.assertTrue(entry["description"].strip())
    case.assertTrue(entry["description"].isprintable())
    case.assertLessEqual(len(entry["description"]), 121)
    for key in ("workingDirectory", "logFile"):
        case.assertTrue(os.path.isabs(entry.get(key, "/")))
    here = {key: value for key, value in entry.items() if key != "user"}
    checker = Checker(Path("/x/crons.json"), Path("/var/log/x"))
    checker.crons(json.dumps({name: here}))
    case.assertEqual(checker.faults, [])
