"""`crontab`: lines as packages and documents have them, and what becomes of each.

The crontabs are written anew after those that Debian's packages install and that the
documents of well-known programs give; their commands are as they are there.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import pwd
import random
import shutil
import stat
import subprocess
import tempfile
import unittest
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional

import support

from cron_trigger.crontab.conversion import Conversion, convert
from cron_trigger.crontab.entries import Host
from cron_trigger.crontab.lines import Source, read_sources
from cron_trigger.crontab.table import (
    merged_registry,
    print_table,
    to_json,
    write_registry,
)
from cron_trigger.crontab.words import tokens_of
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


def by_shell(text: str, **others: Any) -> Dict[str, Any]:
    return {"command": ["/bin/sh", "-c", text], "workingDirectory": "/root", **others}


def plain(*command: str, **others: Any) -> Dict[str, Any]:
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

#: What the documents of programs tell people to put into their crontabs.
DOCUMENTS = [
    Case(
        "flock, timeout, and a log",
        "0 2 * * * flock -n /tmp/x timeout 30m /usr/bin/rsync -a --delete "
        "/srv/ /backup/ >> /var/log/rsync.log 2>&1\n",
        {
            "rsync": plain(
                *("/usr/bin/rsync", "-a", "--delete", "/srv/", "/backup/"),
                timeout="30m",
                logFile="/var/log/rsync.log",
                schedule="0 2 * * *",
            )
        },
        "root",
    ),
    Case(
        "mysqldump",
        "30 1 * * * /usr/bin/mysqldump --single-transaction shop | gzip "
        "> /backup/shop-$(date +\\%Y-\\%m-\\%d).sql.gz\n"
        "45 1 * * * mysqldump shop > /backup/shop-`date +\\%u`.sql\n"
        "50 1 * * * mysqldump shop -r /backup/shop.sql\n",
        {
            "mysqldump": by_shell(
                "/usr/bin/mysqldump --single-transaction shop | gzip "
                "> /backup/shop-$(date +%Y-%m-%d).sql.gz",
                schedule="30 1 * * *",
            ),
            "mysqldump-2": by_shell(
                "mysqldump shop > /backup/shop-`date +%u`.sql", schedule="45 1 * * *"
            ),
            "mysqldump-3": plain(
                *("mysqldump", "shop", "-r", "/backup/shop.sql"), schedule="50 1 * * *"
            ),
        },
        "root",
    ),
    Case(
        "Laravel",
        "* * * * * cd /srv/app && php artisan schedule:run >> /dev/null 2>&1\n",
        {
            "artisan-schedule-run": {
                **plain("php", "artisan", "schedule:run", schedule="* * * * *"),
                "user": "www-data",
                "workingDirectory": "/srv/app",
            }
        },
        "www-data",
    ),
    Case(
        "Nextcloud",
        "*/5  *  *  *  * php -f /var/www/nextcloud/cron.php\n",
        {
            "nextcloud-cron": {
                **plain("php", "-f", "/var/www/nextcloud/cron.php"),
                **OF_WWW,
                "schedule": "*/5 * * * *",
            }
        },
        "www-data",
    ),
    Case(
        "Moodle and Drupal",
        "* * * * * /usr/bin/php /var/www/moodle/admin/cli/cron.php >/dev/null\n"
        "0 * * * * cd /opt/drupal && ./vendor/bin/drush cron\n",
        {
            "cli-cron": {
                **plain("/usr/bin/php", "/var/www/moodle/admin/cli/cron.php"),
                **OF_WWW,
                "schedule": "* * * * *",
            },
            "drush-cron": {
                **plain("/opt/drupal/vendor/bin/drush", "cron"),
                "user": "www-data",
                "workingDirectory": "/opt/drupal",
                "schedule": "0 * * * *",
            },
        },
        "www-data",
    ),
    Case(
        "a page that is fetched",
        "*/10 * * * * wget -q -O /dev/null https://example.org/cron.php?key=a1\n"
        "5 * * * * curl -s 'https://example.org/wp-cron.php?a=1&b=2' > /dev/null 2>&1\n"
        "6 * * * * curl -s https://example.org/wp-cron.php?a=1&b=2\n",
        {
            "wget": plain(
                *("wget", "-q", "-O", "/dev/null"),
                "https://example.org/cron.php?key=a1",
                schedule="*/10 * * * *",
            ),
            "curl": plain(
                *("curl", "-s", "https://example.org/wp-cron.php?a=1&b=2"),
                schedule="5 * * * *",
            ),
            "curl-2": by_shell(
                "curl -s https://example.org/wp-cron.php?a=1&b=2", schedule="6 * * * *"
            ),
        },
        "root",
    ),
    Case(
        "crontab(5): $HOME, a log, a standard input",
        "5 0 * * *       $HOME/bin/daily.job >> $HOME/tmp/out 2>&1\n"
        "15 14 1 * *     $HOME/bin/monthly\n"
        '0 22 * * 1-5    mail -s "It\'s 10pm" joe%Joe,%%Where are your kids?%\n'
        '23 0-23/2 * * * echo "run 23 minutes after midn, 2am, 4am ..., everyday"\n'
        '5 4 * * sun     echo "run at 5 after 4 every Sunday"\n',
        {
            "daily.job": {
                **plain("/home/anna/bin/daily.job", logFile="/home/anna/tmp/out"),
                **OF_ANNA,
                "schedule": "5 0 * * *",
            },
            "monthly": {
                **plain("/home/anna/bin/monthly"),
                **OF_ANNA,
                "schedule": "15 14 1 * *",
            },
            "mail": {
                **by_shell(
                    "{ mail -s \"It's 10pm\" joe\n} <<'END_OF_INPUT'\n"
                    "Joe,\n\nWhere are your kids?\nEND_OF_INPUT\n"
                ),
                **OF_ANNA,
                "schedule": "0 22 * * 1-5",
            },
            "job": {
                **plain("echo", "run 23 minutes after midn, 2am, 4am ..., everyday"),
                **OF_ANNA,
                "schedule": "23 0-23/2 * * *",
            },
            "job-2": {
                **plain("echo", "run at 5 after 4 every Sunday"),
                **OF_ANNA,
                "schedule": "5 4 * * sun",
            },
        },
        "anna",
    ),
    Case(
        "borg, restic, acme.sh",
        "0 3 * * 0 /usr/bin/flock -w 10 /run/borg.lock -c 'borg create x && borg prune'"
        "\n15 3 * * * RESTIC_REPOSITORY=/mnt/r timeout --kill-after=30s 2h restic "
        "backup /home\n"
        '38 0 * * * "/root/.acme.sh"/acme.sh --cron --home "/root/.acme.sh" '
        "> /dev/null\n",
        {
            "borg-create": by_shell(
                "borg create x && borg prune", schedule="0 3 * * 0"
            ),
            "restic-backup": plain(
                *("restic", "backup", "/home"),
                environment={"RESTIC_REPOSITORY": "/mnt/r"},
                timeout="2h",
                killAfter="30s",
                schedule="15 3 * * *",
            ),
            "acme": plain(
                *("/root/.acme.sh/acme.sh", "--cron", "--home", "/root/.acme.sh"),
                schedule="38 0 * * *",
            ),
        },
        "root",
    ),
    Case(
        "Django, a virtual environment, a module",
        "0 4 * * * cd /srv/site && /srv/site/venv/bin/python manage.py clearsessions\n"
        "0 5 * * * /srv/venv/bin/python3 -m myapp.cleanup --days 30 # old files\n"
        "0 6 * * * cd /srv/site && . venv/bin/activate && python job.py\n",
        {
            "manage-clearsessions": {
                **plain("/srv/site/venv/bin/python", "manage.py", "clearsessions"),
                "workingDirectory": "/srv/site",
                "schedule": "0 4 * * *",
            },
            "myapp.cleanup": plain(
                *("/srv/venv/bin/python3", "-m", "myapp.cleanup", "--days", "30"),
                schedule="0 5 * * *",
            ),
            "job": {
                **by_shell(". venv/bin/activate && python job.py"),
                "workingDirectory": "/srv/site",
                "schedule": "0 6 * * *",
            },
        },
        "root",
    ),
    Case(
        "words for times, variables with quotes, bash",
        'SHELL="/bin/bash"\nMAILTO=""\n  GREETING = " hello "  \n'
        "'ODD NAME'=x\nLANG=de_DE.UTF-8\n"
        "@daily source /etc/profile; /opt/tools/report.sh\n"
        "@weekly /opt/tools/report.sh --week &>> /var/log/report.log\n"
        "@hourly /opt/tools/report.sh --hour {a,b}\n",
        {
            "report": {
                "command": [
                    *("/bin/bash", "-c"),
                    "source /etc/profile; /opt/tools/report.sh",
                ],
                "workingDirectory": "/root",
                "environment": {"GREETING": " hello ", "LANG": "de_DE.UTF-8"},
                "schedule": "@daily",
            },
            "report-2": plain(
                *("/opt/tools/report.sh", "--week"),
                environment={"GREETING": " hello ", "LANG": "de_DE.UTF-8"},
                logFile="/var/log/report.log",
                schedule="@weekly",
            ),
            "report-3": {
                "command": ["/bin/bash", "-c", "/opt/tools/report.sh --hour {a,b}"],
                "workingDirectory": "/root",
                "environment": {"GREETING": " hello ", "LANG": "de_DE.UTF-8"},
                "schedule": "@hourly",
            },
        },
        "root",
    ),
]


class RealCrontabsTest(unittest.TestCase):
    maxDiff = None

    def test_each_job_becomes_the_entry_that_a_person_would_write(self) -> None:
        jobs = 0
        for case in PACKAGES + DOCUMENTS:
            with self.subTest(case.title):
                entries = converted(case.text, case.user).entries
                for entry in entries.values():
                    self.assertTrue(entry.pop("description"))
                self.assertEqual(entries, case.entries)
                self.assertEqual(list(entries), list(case.entries))
                jobs += len(entries)
        self.assertGreater(jobs, 35)

    def test_each_entry_is_one_that_the_registry_takes(self) -> None:
        for case in PACKAGES + DOCUMENTS:
            for name, entry in converted(case.text, case.user).entries.items():
                with self.subTest(case.title, name=name):
                    hold_entry(self, name, entry)

    def test_the_new_line_has_the_same_schedule_and_calls_run_as_root(self) -> None:
        for case in PACKAGES + DOCUMENTS:
            result = converted(case.text, case.user)
            rows = case.text.split("\n")
            for line in result.lines:
                with self.subTest(case.title, line=line.line):
                    self.assertEqual(line.old, rows[line.line - 1])
                    assert line.new is not None
                    count = 1 if line.old.startswith("@") else 5
                    old, new = line.old.split(), line.new.split()
                    self.assertEqual(new[:count], old[:count])
                    column = [] if case.user else ["root"]
                    expected = [*column, *f"{RUN} {line.name}".split()]
                    self.assertEqual(new[count:], expected)

    def test_of_the_line_only_the_user_and_the_command_change(self) -> None:
        table = {
            "17 *\t* * *\troot\tcd / && x": f"17 *\t* * *\troot\t{RUN} x",
            " 2 * * * *   munin    /bin/x y": f" 2 * * * *   root    {RUN} x",
            "@reboot\tmunin\t/bin/x": f"@reboot\troot\t{RUN} x",
        }
        for old, new in table.items():
            with self.subTest(old):
                self.assertEqual([line.new for line in converted(old).lines], [new])


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


class NoteTest(unittest.TestCase):
    def note(self, line: str, user: Optional[str] = "root") -> str:
        return " ".join(line.note for line in converted(line, user).lines)

    def test_what_became_different_is_said_in_a_sentence_each(self) -> None:
        table = {
            "0 1 * * * /bin/a": "",
            "0 1 * * * /bin/a; /bin/b": (
                'Runs by /bin/sh -c, because of shell syntax: ";".'
            ),
            "0 1 * * * /bin/a *.txt": (
                'Runs by /bin/sh -c, because of shell syntax: "*.txt".'
            ),
            "0 1 * * * umask 077": (
                'Runs by /bin/sh -c, because of shell syntax: "umask".'
            ),
            "0 1 * * * /bin/a 'b": (
                "Runs by /bin/sh -c, because of shell syntax: a quote or a bracket is "
                "not closed."
            ),
            "0 1 * * * flock -n /l /bin/a": (
                "flock is left out: a cron never runs twice at once."
            ),
            "0 1 * * * flock /l /bin/a": (
                "flock is left out: a cron never runs twice at once; it waited for the "
                "lock, a second start is refused."
            ),
            "0 1 * * * timeout 90 /bin/a": 'timeout is now "timeout" of the entry.',
            "0 1 * * * /bin/a > /var/log/a.log 2>&1": (
                "Its log was begun anew each time, and is appended to now."
            ),
            "0 1 * * * /bin/a >> /var/log/a.log 2>&1": "",
            "0 1 * * * /bin/a >/dev/null 2>&1": (
                "What went to /dev/null goes to the cron's log."
            ),
            "0 1 * * * /bin/a%in": (
                'What follows "%" was its standard input, and is now part of the '
                "command."
            ),
            "@reboot /bin/a": "No schedule: @reboot has no time, so it cannot be late.",
            "SHELL=/bin/csh\n0 1 * * * /bin/a": (
                "Runs by /bin/csh -c, because of shell syntax: SHELL is /bin/csh."
            ),
            "CRON_TZ=Asia/Tokyo\n0 1 * * * /bin/a": (
                "The variable CRON_TZ is left out."
            ),
            "0 1 * * * CRON_NAME=x /bin/a": "The variable CRON_NAME is left out.",
            "CRON_TRIGGER_PORT=1\n0 1 * * * /bin/a": (
                "The variable CRON_TRIGGER_PORT is left out."
            ),
        }
        for line, note in table.items():
            with self.subTest(line):
                self.assertEqual(self.note(line), note)

    def test_another_user_is_said_and_where_the_new_line_belongs(self) -> None:
        self.assertEqual(
            self.note("0 1 * * * munin /bin/a", None),
            "root calls it, and the script runs as munin.",
        )
        self.assertEqual(
            self.note("0 1 * * * /bin/a", "anna"),
            "The new line belongs into root's crontab, instead of this one: the script "
            "runs as anna.",
        )
        self.assertEqual(
            self.note("0 1 * * * nobody-here /bin/a", None),
            "This host has no user nobody-here.",
        )

    def test_a_server_of_ones_own_needs_no_other_user(self) -> None:
        sources = [Source("-", "0 1 * * * /bin/a", "anna")]
        result = convert(sources, own_user="anna", program="/p", host=HOST)
        self.assertNotIn("user", result.entries["a"])
        self.assertEqual(result.lines[0].new, "0 1 * * * /p run a")
        self.assertEqual(result.lines[0].note, "")

    def test_what_is_left_out_says_why_and_has_no_new_line(self) -> None:
        table = {
            "0 4 * * * /usr/local/bin/cron-trigger run backup": (
                "This line calls cron-trigger already."
            ),
            "0 4 * * * python3 /opt/x/cron_trigger_server.py --port 1 run b --output": (
                "This line calls cron-trigger already."
            ),
            "61 * * * * /bin/a": (
                "Invalid schedule: minute: expected 0 to 59, got 61."
            ),
            "0 0 31 2 * /bin/a": (
                "Invalid schedule: schedule: expected a day that comes in some "
                'year, got "0 0 31 2 *".'
            ),
            "hello world": (
                "This is no line of a crontab: expected a schedule and a command."
            ),
            "* * * * *": (
                "This is no line of a crontab: expected a schedule and a command."
            ),
            "0 4 * * * echo \udcff": "This line is not UTF-8.",
            "0 4 * * * %input": "This line has no command.",
        }
        for text, note in table.items():
            with self.subTest(text):
                (line,) = converted(text, "root").lines
                self.assertEqual((line.name, line.new, line.note), (None, None, note))
                self.assertEqual(converted(text, "root").entries, {})

    def test_a_system_crontab_without_the_user_is_refused(self) -> None:
        (line,) = converted("0 4 * * * /usr/bin/backup --all").lines
        self.assertEqual(
            line.note, "Expected a user's name before the command (see --user)."
        )


class CommandTest(unittest.TestCase):
    """Commands of one line of root's, each with what it becomes."""

    def entry(self, command: str, before: str = "") -> Dict[str, Any]:
        entries = converted(f"{before}0 1 * * * {command}", "root").entries
        (entry,) = entries.values()
        return {
            key: entry[key] for key in entry if key not in ("description", "schedule")
        }

    def test_flock_goes_only_where_it_was_this_jobs_own_lock(self) -> None:
        gone = plain("/bin/a", "-v")
        for options in (
            *("-n", "-xn", "-n -x", "--nonblock --exclusive", "-w 5", "--wait=5 -E 1"),
            *("", "-o -n", "-n -E 99"),
        ):
            with self.subTest(options):
                command = f"flock {options} /run/lock/a /bin/a -v"
                self.assertEqual(self.entry(command), gone)
        for command in (
            *("flock -s /l /bin/a", "flock -n 9", "flock -u 9", "flock /l"),
            "flock -n $LOCK /bin/a",
        ):
            with self.subTest(command):
                words = self.entry(command)["command"]
                self.assertIn("flock", " ".join(words))

    def test_a_lock_that_several_lines_take_stays(self) -> None:
        result = converted(
            "0 1 * * * flock /l /bin/a\n0 2 * * * flock -n /l /bin/b\n"
            "0 3 * * * flock -n /m /bin/c\n",
            "root",
        )
        commands = [entry["command"] for entry in result.entries.values()]
        self.assertEqual(list(result.entries), ["a", "b", "c"])
        self.assertEqual(
            commands,
            [["flock", "/l", "/bin/a"], ["flock", "-n", "/l", "/bin/b"], ["/bin/c"]],
        )
        self.assertEqual(result.lines[0].note, "flock stays: other lines take /l, too.")

    def test_timeout_becomes_the_entrys_in_its_words(self) -> None:
        table = {
            "30m": "30m",
            "90": "1m30s",
            "90s": "1m30s",
            "45s": "45s",
            "2h": "2h",
            "1d": "24h",
            "1.5h": "1h30m",
            "3600": "1h",
        }
        for text, timeout in table.items():
            with self.subTest(text):
                entry = self.entry(f"timeout {text} /bin/a")
                self.assertEqual(entry, plain("/bin/a", timeout=timeout))
        with_kill = plain("/bin/a", timeout="5m", killAfter="10s")
        for options in ("-k 10", "--kill-after=10s", "-k10 --preserve-status"):
            with self.subTest(options):
                entry = self.entry(f"/usr/bin/timeout {options} 5m /bin/a")
                self.assertEqual(entry, with_kill)
        for text in ("-s KILL 5m", "--signal=INT 5m", "0", "soon", "0.1", "1.2345s"):
            with self.subTest(text):
                entry = self.entry(f"timeout {text} /bin/a")
                self.assertNotIn("timeout", entry)
                self.assertEqual(entry["command"][0], "timeout")

    def test_redirections_become_the_log_where_all_goes_to_one_file(self) -> None:
        to_log = plain("/bin/a", "-v", logFile="/var/log/a.log")
        nowhere = plain("/bin/a", "-v")
        table = {
            ">> /var/log/a.log 2>&1": to_log,
            ">>/var/log/a.log 2>>/var/log/a.log": to_log,
            ">>/var/log/a.log": to_log,
            "2>> /var/log/a.log": to_log,
            "1>>/var/log/a.log 2>/dev/null </dev/null": to_log,
            ">> ../var/log/a.log 2>&1": to_log,
            ">> /srv/a.txt 2>&1": plain("/bin/a", "-v", logFile="/srv/a.txt"),
            "> /dev/null": nowhere,
            "2>&1 > /dev/null": nowhere,
            "2>&1": nowhere,
            "</dev/null >/dev/null 2>&1": nowhere,
        }
        for tail, entry in table.items():
            with self.subTest(tail):
                self.assertEqual(self.entry(f"/bin/a -v {tail}"), entry)
        for tail in (
            *(">> /l/a 2>> /l/b", "> /l/$(date).log", "< /etc/motd", "3> /l/x"),
            *("&> /l/x", ">> /dev/tty1 2>&1", ">&- 2>&1", "<<< x", ">> /l/x.log -w"),
        ):
            with self.subTest(tail):
                entry = self.entry(f"/bin/a -v {tail}")
                self.assertEqual(entry, by_shell(f"/bin/a -v {tail}"))

    def test_a_file_that_is_no_log_is_written_as_before(self) -> None:
        """The two lines around each run have no place in a dump."""
        for command in (
            *("mysqldump shop > /backup/shop.sql", "date >> /srv/days.csv"),
            *(
                "pg_dump x 2>&1 > /backup/x",
                "> /var/log/app.log",
                "/bin/a > /var/log/a",
            ),
            *("cat /dev/null > /var/log/app.log", "/bin/a > /srv/x 2>&1"),
            "> /var/log/app.log 2>&1",
            *("tar cf - /srv > /dev/null", "echo '' > /var/log/app.log"),
        ):
            with self.subTest(command):
                self.assertEqual(self.entry(command), by_shell(command))

    def test_a_log_goes_with_a_command_that_needs_a_shell_too(self) -> None:
        self.assertEqual(
            self.entry('/bin/a "$(date)" >> /l/a.log 2>&1'),
            by_shell('/bin/a "$(date)"', logFile="/l/a.log"),
        )
        self.assertEqual(
            self.entry("/bin/a; /bin/b >> /l/a.log"),
            by_shell("/bin/a; /bin/b >> /l/a.log"),
        )

    def test_a_log_that_another_cron_has_is_left_to_it(self) -> None:
        text = "0 1 * * * /bin/a >> /l/x.log\n0 2 * * * /bin/b >> /l/x.log\n"
        result = converted(text, "root")
        self.assertEqual(result.entries["a"]["logFile"], "/l/x.log")
        self.assertNotIn("logFile", result.entries["b"])
        self.assertEqual(
            result.lines[1].note,
            "Another cron logs to /l/x.log: this one has its own log.",
        )

    def test_cd_becomes_the_folder_where_the_rest_needs_it(self) -> None:
        table = {
            "cd /srv && /bin/a": {**plain("/bin/a"), "workingDirectory": "/srv"},
            "cd srv && ./a.sh": {
                **plain("/root/srv/a.sh"),
                "workingDirectory": "/root/srv",
            },
            "cd /srv && cd app && bin/a": {
                **plain("/srv/app/bin/a"),
                "workingDirectory": "/srv/app",
            },
            "cd ~/x && /bin/a": {**plain("/bin/a"), "workingDirectory": "/root/x"},
            "cd /srv && /bin/a | /bin/b": {
                **by_shell("/bin/a | /bin/b"),
                "workingDirectory": "/srv",
            },
            "cd /srv && flock -n l timeout 5m ./a >> log 2>&1": {
                **plain("/srv/a", timeout="5m", logFile="/srv/log"),
                "workingDirectory": "/srv",
            },
            "cd /srv && /bin/a || /bin/b": by_shell("cd /srv && /bin/a || /bin/b"),
            "cd /srv; /bin/a": by_shell("cd /srv; /bin/a"),
            "cd $X && /bin/a": by_shell("cd $X && /bin/a"),
            "cd - && /bin/a": by_shell("cd - && /bin/a"),
        }
        for command, entry in table.items():
            with self.subTest(command):
                self.assertEqual(self.entry(command), entry)

    def test_variables_of_the_line_go_over_those_of_the_crontab(self) -> None:
        before = "A=1\nB=2\nHOME=/srv\n"
        self.assertEqual(
            self.entry("A=3 C='x y' env D=4 bin/a $HOME ~", before),
            {
                "command": ["/srv/bin/a", "/srv", "/srv"],
                "workingDirectory": "/srv",
                "environment": {
                    "A": "3",
                    "B": "2",
                    "HOME": "/srv",
                    "C": "x y",
                    "D": "4",
                },
            },
        )

    def test_a_variable_that_the_line_itself_would_not_see_stays_in_it(self) -> None:
        for command in ('A=1 /bin/a "$A"', "A=$B /bin/a", "A=1 /bin/a; /bin/b"):
            with self.subTest(command):
                self.assertEqual(self.entry(command), by_shell(command))

    def test_a_variable_counts_for_the_lines_below_it(self) -> None:
        entries = converted(
            "0 1 * * * /bin/a\nX=1\n0 2 * * * /bin/b\nX=2\n0 3 * * * /bin/c\n", "root"
        ).entries
        values = [entry.get("environment") for entry in entries.values()]
        self.assertEqual(values, [None, {"X": "1"}, {"X": "2"}])

    def test_a_program_of_the_crontabs_own_path_is_named_in_full(self) -> None:
        found = {"/opt/bin:/usr/bin": "/opt/bin/php"}
        host = Host(HOMES.get, lambda name, path: found.get(path, "/usr/bin/php"))
        for path, program in (("/opt/bin:/usr/bin", "/opt/bin/php"), ("/bin", "php")):
            text = f"PATH={path}\n0 1 * * * php x.php\n"
            entries = convert([Source("-", text, "root")], host=host).entries
            with self.subTest(path):
                self.assertEqual(entries["x"]["command"], [program, "x.php"])


class ShellTest(unittest.TestCase):
    """The words that need no shell, held against a real one."""

    def words_of_shell(self, shell: str, text: str) -> Optional[List[str]]:
        done = subprocess.run(
            [shell, "-c", f"show() {{ printf '%s\\0' \"$@\"; }}; show {text}"],
            cwd=self.folder,
            env={"HOME": "/h/x", "PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=30,
            check=False,
        )
        if done.returncode:
            return None
        return done.stdout.decode("utf-8").split("\0")[:-1]

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def test_words_that_are_known_are_those_that_the_shell_makes(self) -> None:
        chance = random.Random(5)
        pieces = (
            *("a", "b-c", "1", " ", " ", "'", '"', "\\", "$HOME", "${HOME}", "~", "/"),
            *("$", "=", ":", "é", "''", "'x y'", '"x  y"', "\\ ", "\\'", '\\"', "%"),
            *("{", "}", ",", "!", "^", "@", '"$HOME/a"', "'$HOME'", "://", "?", "#"),
        )
        compared = 0
        for shell in filter(shutil.which, ("sh", "bash")):
            for _ in range(400):
                text = "".join(chance.choices(pieces, k=chance.randint(1, 7)))
                try:
                    tokens = tokens_of(text, "/h/x", shell == "bash")
                except ValueError:
                    continue
                words = [token for token in tokens if token.kind == "word"]
                if all(token.known for token in words) and len(words) > 0:
                    compared += 1
                    with self.subTest(text, shell=shell):
                        expected = [token.value for token in words]
                        self.assertEqual(self.words_of_shell(shell, text), expected)
        self.assertGreater(compared, 200)

    def test_the_input_reaches_the_command_as_cron_gives_it(self) -> None:
        table = {
            "cat%a%b": "a\nb\n",
            "cat%a%b%": "a\nb\n",
            "cat%%": "\n",
            "cat%$HOME `id` 'x' \\%5 \\n": "$HOME `id` 'x' %5 \\n\n",
            "cat; echo and%x": "x\nand\n",
            "cat | tr a-z A-Z # loud%x": "X\n",
            "sed s/x/\\%/%x": "%\n",
            "cat%END_OF_INPUT%x": "END_OF_INPUT\nx\n",
            "echo 50\\%": "50%\n",
            "cat%": "",
        }
        for command, output in table.items():
            (entry,) = converted(f"0 1 * * * {command}", "root").entries.values()
            with self.subTest(command):
                done = subprocess.run(
                    entry["command"],
                    stdin=subprocess.DEVNULL,
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                self.assertEqual((done.stdout, done.stderr), (output, ""))

    def test_no_line_makes_it_fail(self) -> None:
        chance = random.Random(6)
        pieces = (
            *("0 1 * * * ", "@daily ", "root ", "A=1", "\n", "#", "%", "\\", "'", '"'),
            *("flock ", "-n ", "/l ", "timeout ", "5m ", "cd ", "&&", "||", ">", ">>"),
            *("2>&1", "/dev/null ", "$(", ")", "`", "${", "}", " ", "-c ", "env ", "<"),
        )
        for _ in range(3000):
            text = "".join(chance.choices(pieces, k=chance.randint(1, 14)))
            with self.subTest(text):
                for user in (None, "root"):
                    for name, entry in converted(text, user).entries.items():
                        hold_entry(self, name, entry)


class NameTest(unittest.TestCase):
    def test_a_name_is_the_scripts(self) -> None:
        table = {
            "/opt/backup.sh": "backup",
            "/opt/app/run.sh": "app-run",
            "nice -n 19 ionice -c 3 /opt/index.py -x": "opt-index",
            "sudo -u anna /opt/mail-report": "mail-report",
            "bash -x /opt/a.b.sh": "a.b",
            "sh -c 'cd /x; /opt/in.sh'": "in",
            "bash -lc '/opt/deep.sh'": "deep",
            "flock -s /l /opt/kept.sh": "kept",
            "[ -x /a ] && /opt/if.sh": "if",
            "/opt/_odd name.sh": "odd",
            "'/opt/with space ü!.sh'": "with-space",
            "/opt/...": "job",
            "true": "job",
            "perl -e 1": "job",
            "/opt/cron-trigger-server": "cron-trigger-server-2",
            "/opt/" + "x" * 99: "x" * 56,
            "docker exec -t app php occ": "docker-exec",
        }
        for command, name in table.items():
            with self.subTest(command):
                names = list(converted(f"0 1 * * * {command}", "root").entries)
                self.assertEqual(names, [name])
                self.assertTrue(CRON_NAME.fullmatch(name))

    def test_a_name_is_used_once_over_all_files_and_the_registry(self) -> None:
        sources = [
            Source("a", "0 1 * * * /x/job-a\n0 2 * * * /y/job-a\n", "root"),
            Source("b", "0 3 * * * /z/job-a\n", "root"),
        ]
        existing = {"$schema": "crons.schema.json", "job-a": {"command": "job-a"}}
        names = list(convert(sources, existing, host=HOST).entries)
        self.assertEqual(names, ["job-a-2", "job-a-3", "job-a-4"])

    def test_what_the_registry_has_already_is_not_added_again(self) -> None:
        sources = [Source("a", "0 1 * * * /x/a\n0 2 * * * /x/a\n", "anna")]
        first = convert(sources, host=HOST)
        again = convert(sources, {"x": {}, **first.entries}, host=HOST)
        self.assertEqual(again.entries, {})
        self.assertEqual([line.name for line in again.lines], ["a", "a-2"])
        self.assertEqual(
            [line.new for line in again.lines], [line.new for line in first.lines]
        )
        self.assertIn('The registry has it already, as "a".', again.lines[0].note)


class DescriptionTest(unittest.TestCase):
    def description(self, text: str, user: Optional[str] = "root") -> str:
        (entry,) = converted(text, user, "/etc/cron.d/x").entries.values()
        return str(entry["description"])

    def test_it_is_the_comment_just_above_or_at_the_end(self) -> None:
        table = {
            "# Saves all\n0 1 * * * /bin/a": "Saves all",
            "# Head\n#\n# Saves all,\n#  twice\n0 1 * * * /bin/a": "Saves all, twice",
            "## Saves ##\n0 1 * * * /bin/a # other": "Saves ##",
            "0 1 * * * /bin/a   # at night": "at night",
            "# Old\n\n0 1 * * * /bin/a": "a, from the crontab of root",
            "# m h  dom mon dow   command\n0 1 * * * /bin/a": (
                "a, from the crontab of root"
            ),
            "# 0 2 * * * /bin/old\n0 1 * * * /bin/a": "a, from the crontab of root",
            "#0 2 * * * /bin/old\n# New\n0 1 * * * /bin/a": "New",
            "# A\x1b[2J\n0 1 * * * /bin/a": "A\\x1b[2J",
            f"# {'word ' * 60}\n0 1 * * * /bin/a": "word " * 23 + "word…",
            f"# Saves approx. all. Then {'more ' * 60}\n0 1 * * * /bin/a": (
                "Saves approx. all."
            ),
        }
        for text, description in table.items():
            with self.subTest(text):
                self.assertEqual(self.description(text), description)
        self.assertEqual(
            self.description("0 1 * * * root /bin/a", None), "a, from /etc/cron.d/x"
        )

    def test_no_argument_stands_in_it_that_may_be_a_password(self) -> None:
        line = "0 1 * * * mysqldump -phunter2 shop > /x"
        self.assertNotIn("hunter2", self.description(line))


class SourcesTest(unittest.TestCase):
    def setUp(self) -> None:
        self.root = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.root)

    def put(self, path: str, text: str = "") -> Path:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def test_what_cron_reads_is_read_and_what_it_ignores_is_said(self) -> None:
        user = pwd.getpwuid(os.getuid()).pw_name
        names = ("munin", "e2scrub_all", "A-b", "x.dpkg-old", "x~", ".placeholder")
        for name in (*names, "#x#", "php.bak"):
            self.put(f"etc/cron.d/{name}")
        self.put("etc/crontab", "text")
        self.put("etc/cron.d/folder/x")
        self.put(f"var/spool/cron/crontabs/{user}")
        self.put("var/spool/cron/crontabs/tmp.Xy12")
        sources, notes = read_sources(root=self.root)
        found = [(os.path.relpath(s.file, self.root), s.user) for s in sources]
        self.assertEqual(
            found,
            [
                ("etc/crontab", None),
                ("etc/cron.d/A-b", None),
                ("etc/cron.d/e2scrub_all", None),
                ("etc/cron.d/munin", None),
                (f"var/spool/cron/crontabs/{user}", user),
            ],
        )
        self.assertEqual(sources[0].text, "text")
        left = [note.split(" is ")[0].rpartition("/")[2] for note in notes]
        self.assertEqual(left, ["#x#", "php.bak", "x.dpkg-old", "x~", "tmp.Xy12"])

    def test_an_empty_host_has_none(self) -> None:
        self.assertEqual(read_sources(root=self.root), ([], []))

    def test_a_file_given_has_a_column_of_users_unless_it_is_said(self) -> None:
        path = str(self.put("mine", "A=1\r\n\r\n0 1 * * * /bin/a\r\n"))
        self.assertEqual(read_sources([path])[0][0].user, None)
        (source,), _ = read_sources([path], user="anna")
        self.assertEqual(source.user, "anna")
        result = convert([source], host=HOST)
        self.assertEqual(result.entries["a"]["command"], ["/bin/a"])
        self.assertEqual([line.new for line in result.lines], [f"0 1 * * * {RUN} a"])

    def test_of_a_folder_given_those_files_are_read_that_cron_would_read(self) -> None:
        for name in ("cron.d/b", "cron.d/a", "cron.d/a.bak"):
            self.put(name)
        sources, notes = read_sources([str(self.root / "cron.d")])
        self.assertEqual([Path(source.file).name for source in sources], ["a", "b"])
        self.assertEqual(len(notes), 1)

    def test_a_file_that_cannot_be_read_is_said_and_the_others_are_read(self) -> None:
        path = str(self.put("mine"))
        sources, notes = read_sources([str(self.root / "missing"), path])
        self.assertEqual([source.file for source in sources], [path])
        self.assertEqual(
            notes,
            [f"{self.root}/missing cannot be read: No such file or directory."],
        )


class OutputTest(unittest.TestCase):
    def test_json_has_the_entries_and_the_lines(self) -> None:
        result = converted("# A\n0 1 * * * root /bin/a\n", file="/etc/crontab")
        self.assertEqual(
            json.loads(json.dumps(to_json(result))),
            {
                "entries": {
                    "a": {
                        "description": "A",
                        "command": ["/bin/a"],
                        "workingDirectory": "/root",
                        "schedule": "0 1 * * *",
                    }
                },
                "lines": [
                    {
                        "file": "/etc/crontab",
                        "line": 2,
                        "name": "a",
                        "old": "0 1 * * * root /bin/a",
                        "new": f"0 1 * * * root {RUN} a",
                        "note": "",
                    }
                ],
            },
        )

    def table(self, text: str, user: str = "root", width: int = 100) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            print_table(converted(text, user), width)
        return output.getvalue()

    def test_entry_and_new_line_stand_side_by_side(self) -> None:
        rows = self.table("0 1 * * *\t/bin/a >/dev/null\n").split("\n")
        pairs = (
            (
                '"description": "a, from the crontab of root"',
                "old:",
                "/bin/a >/dev/null",
            ),
            ('"command": ["/bin/a"]', "new:", f"{RUN} a"),
        )
        self.assertEqual(rows[0], "tab, line 1: a")
        for row, (key, word, command) in zip(rows[1:], pairs):
            self.assertEqual(row, f"  {key:48}  {word}  0 1 * * * {command}")
        self.assertIn("note: What went to /dev/null goes", rows[3])

    def test_nothing_reaches_the_terminal_but_what_can_be_seen(self) -> None:
        shown = self.table("# \x1b]0;x\x07\n0 1 * * * /bin/a '\x1b[2J\x9b\u202e'\n")
        self.assertTrue(shown.replace("\n", "").isprintable())
        self.assertIn("\\x1b[2J", shown)

    def test_the_new_line_is_never_broken(self) -> None:
        name = "long-" * 10 + "name"
        for width in (40, 80, 200):
            shown = self.table(f"0 1 * * * /bin/{name}\n", width=width)
            self.assertRegex(shown, f"new:  0 1 \\* \\* \\* {RUN} {name}\n")


class WriteTest(unittest.TestCase):
    ENTRIES: Dict[str, Dict[str, Any]] = {
        "a": {"description": "é", "command": ["/bin/a"]},
        "b": {"description": "B", "command": ["/bin/b", "{x}"]},
    }

    def test_what_is_there_stays_as_it_was_written(self) -> None:
        before = (
            '{\n  "$schema": "crons.schema.json",\n'
            '    "z": {"description": "}", "command": ["x",  "y"]}\n}\n'
        )
        after = merged_registry(before, self.ENTRIES)
        self.assertTrue(after.startswith(before.rstrip("}\n")))
        self.assertEqual(json.loads(after), {**json.loads(before), **self.ENTRIES})
        self.assertEqual(list(json.loads(after)), ["$schema", "z", "a", "b"])
        self.assertIn('\n  },\n  "b": {\n    "description": "B",\n', after)
        self.assertIn("é", after)

    def test_every_form_of_an_object_can_be_added_to(self) -> None:
        for before in ("{}", "{ }\n", '{"x": {}}', '{"x": {}}\n\n', "\ufeff{\n}\n"):
            with self.subTest(before):
                after = merged_registry(before, self.ENTRIES)
                document = json.loads(before.lstrip("\ufeff"))
                self.assertEqual(
                    json.loads(after.lstrip("\ufeff")), {**document, **self.ENTRIES}
                )
                self.assertEqual(after.startswith("\ufeff"), before[0] == "\ufeff")

    def test_nothing_to_add_changes_nothing(self) -> None:
        self.assertEqual(merged_registry(' {"x":1} ', {}), ' {"x":1} ')

    def test_a_registry_with_a_fault_is_not_touched(self) -> None:
        table = {
            "[]": "expected an object",
            '{"x": 1, "x": 2}': '"x" is given twice',
            '{"a": {}}': '"a" is in the registry already',
            '{"x": }': "Expecting value",
            "": "Expecting value",
        }
        for text, why in table.items():
            with self.subTest(text), self.assertRaisesRegex(ValueError, why):
                merged_registry(text, self.ENTRIES)

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, self.folder)

    def test_the_file_is_replaced_at_once_and_keeps_mode_and_owner(self) -> None:
        path = self.folder / "crons.json"
        path.write_text("old")
        path.chmod(0o640)
        if os.geteuid() == 0:
            os.chown(path, 12, 34)
        before = path.stat()
        reader = path.open()
        self.addCleanup(reader.close)
        write_registry(path, "new é")
        after = path.stat()
        self.assertEqual(path.read_text("utf-8"), "new é")
        self.assertEqual(reader.read(), "old")
        self.assertEqual(
            (after.st_mode, after.st_uid, after.st_gid),
            (before.st_mode, before.st_uid, before.st_gid),
        )
        self.assertEqual(os.listdir(self.folder), ["crons.json"])

    def test_a_link_stays_and_what_it_leads_to_is_written(self) -> None:
        (self.folder / "link").symlink_to("real")
        write_registry(self.folder / "link", "x")
        self.assertTrue((self.folder / "link").is_symlink())
        self.assertEqual((self.folder / "real").read_text(), "x")
        self.assertEqual(stat.S_IMODE((self.folder / "real").stat().st_mode), 0o644)

    def test_where_it_cannot_be_written_the_old_one_stays(self) -> None:
        target = self.folder / "crons.json"
        target.mkdir()
        (target / "x").touch()
        with self.assertRaises(OSError):
            write_registry(target, "x")
        self.assertEqual(os.listdir(self.folder), ["crons.json"])


class HostTest(unittest.TestCase):
    """The crontabs of the machine that runs the tests."""

    def test_every_crontab_of_this_host_is_converted(self) -> None:
        sources, _ = read_sources()
        support.need(sources, "this host has no crontab that can be read")
        result = convert(sources)
        for name, entry in result.entries.items():
            with self.subTest(name):
                hold_entry(self, name, entry)
        merged_registry("{}", result.entries)


if __name__ == "__main__":
    unittest.main()
