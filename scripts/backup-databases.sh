#!/bin/sh
# Back up SQLite files, also while they are in use, and PostgreSQL databases. A copy
# gets its name once it is whole and checked; then the oldest ones of its database go.
#
# Settings, by environment:
#   BACKUP_SQLITE        SQLite files, separated by ":" (cron-trigger-server's own)
#   BACKUP_PG_DATABASES  PostgreSQL databases for pg_dump, separated by spaces (none)
#   BACKUP_PG_RUN_AS     as root, the user who runs pg_dump, or "root" (postgres)
#   BACKUP_DIR           where to (/var/backups/cron-trigger-server as root, else
#                        $XDG_STATE_HOME/cron-trigger-server/backup)
#   BACKUP_KEEP          backups to keep of each database, 1 to 9999 (7)
#
# Exit status: 0 done, 1 a database is not backed up, 78 invalid setting, missing tool.
# shellcheck disable=SC2317 # back_up calls the two ways to save by their names

set -uf # -f: no setting is ever taken for a pattern
umask 077

fail() { # fail STATUS SENTENCE
    printf 'backup-databases : %s\n' "$2" >&2
    exit "$1"
}

save_sqlite() { # save_sqlite FILE: only reads it, and never makes one
    python3 -c '
import pathlib, sqlite3, sys
sys.tracebacklimit = 0
source, copy = pathlib.Path(sys.argv[1]).absolute(), sqlite3.connect(sys.argv[2])
if source.stat().st_size == 0: sys.exit("fichier vide")
sqlite3.connect(source.as_uri() + "?mode=ro", uri=True, timeout=30).backup(copy)
copy.execute("pragma journal_mode = delete")  # one file, not the three of WAL
verdict = copy.execute("pragma quick_check").fetchone()[0]
sys.exit(0 if verdict == "ok" else verdict)' "$1" "$work/copy" &&
        gzip <"$work/copy" >"$work/part"
}

save_postgres() { # save_postgres DATABASE: its user needs no right on our folder
    set -- pg_dump --format=custom --no-password --dbname="$1"
    [ "$user" = root ] || set -- runuser -u "$user" -- "$@"
    (cd / && "$@") >"$work/part"
}

back_up() { # back_up HOW SOURCE NAME ENDING
    case " $done " in *" $3.$4 "*) fail 78 "Deux bases auraient le nom $3.$4." ;; esac
    done="$done $3.$4"
    rm -f "$work/copy" "$work/part"
    if "$1" "$2" </dev/null && sync "$work/part" &&
        mv "$work/part" "$folder/$3.$(date -u +%Y%m%dT%H%M%SZ).$4" &&
        find "$folder/" -maxdepth 1 -name "$3.????????T??????Z.$4" | sort -r |
        tail -n "+$((keep + 1))" | tr '\n' '\0' | xargs -0 rm -f; then
        printf 'OK      %s\n' "$2"
    else
        printf 'ÉCHEC   %s\n' "$2"
        failed=1
    fi
}

main() {
    own=${XDG_STATE_HOME:-${HOME:-}/.local/state}/cron-trigger-server
    folder=$own/backup user=root keep=${BACKUP_KEEP:-7} done='' failed=0
    files=${BACKUP_SQLITE:-} bases=${BACKUP_PG_DATABASES:-}
    if [ "$(id -u)" = 0 ]; then
        own=/var/lib/cron-trigger-server folder=/var/backups/cron-trigger-server
        user=${BACKUP_PG_RUN_AS:-postgres}
    fi
    if [ -z "$files" ]; then
        [ ! -e "$own/history.db" ] || files=$own/history.db
        [ ! -e "$own/kb-index.db" ] || files=$files:$own/kb-index.db
    fi
    case $keep in '' | *[!0-9]* | 0* | ?????*) fail 78 'BACKUP_KEEP va de 1 à 9999.' ;; esac
    case $bases in *[!\ A-Za-z0-9_.-]*) fail 78 'BACKUP_PG_DATABASES : noms seuls.' ;; esac
    for tool in python3 gzip flock ${bases:+pg_dump}; do
        command -v "$tool" >/dev/null || fail 78 "Il faut la commande $tool."
    done
    folder=${BACKUP_DIR:-$folder} work=${BACKUP_DIR:-$folder}/.unfinished
    mkdir -p -- "$folder"
    [ -n "$(find "$folder/" -maxdepth 0 -user "$(id -u)" ! -perm /022)" ] ||
        fail 78 "BACKUP_DIR : $folder doit être à vous, et à nul autre (chmod 700)."
    exec 9<"$folder"
    flock -n 9 || fail 1 "Une autre sauvegarde vers $folder est en cours."
    trap 'rm -rf "$work"' EXIT
    trap 'exit 143' HUP INT TERM
    rm -rf "$work"
    mkdir "$work" || fail 78 "BACKUP_DIR : rien ne peut être écrit dans $folder."
    for base in $bases; do
        back_up save_postgres "$base" "postgresql-$base" pgdump
    done
    IFS=:
    for file in $files; do
        name=$(printf %s "${file#/}" | tr -c 'A-Za-z0-9._-' -)
        [ -z "$file" ] || back_up save_sqlite "$file" "$name" gz
    done
    [ -n "$done" ] || fail 1 'Rien à sauvegarder : nommez vos bases (BACKUP_SQLITE).'
    exit "$failed"
}

main "$@"
