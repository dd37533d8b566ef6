"""Lines that documents of programs tell people to put into a crontab."""

from __future__ import annotations

from crontabs import OF_ANNA, OF_WWW, Case, by_shell, plain

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
