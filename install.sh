#!/bin/sh
# shellcheck shell=dash
#
# Installs cron-trigger-server as a systemd service: `sudo ./install.sh`. Run it again
# to upgrade. Everything is in functions and the last line calls main, so that a
# half-downloaded copy does nothing. `--dry-run` shows each step and takes none.

set -eu
umask 022

service=cron-trigger-server
program=/opt/cron-trigger-server
config=/etc/cron-trigger-server
settings=/etc/default/cron-trigger-server
secret_file=$config/secret
logs=
state=/var/lib/cron-trigger-server
run_dir=/run/cron-trigger-server
unit=/etc/systemd/system/cron-trigger-server.service
rotation=/etc/logrotate.d/cron-trigger-server

root=${DESTDIR:-}      # Set by packagers: files only, nothing is started.
source_dir=
scratch=
python=
asked=
action=install
dry_run=
wanted_port=
wanted_secret=
changed=               # Not empty: the service has to be restarted.

usage() {
    cat <<'TEXT'
Usage: sudo ./install.sh [OPTION]

Installs cron-trigger-server as a systemd service, or upgrades it. An upgrade keeps
the registry, the settings, the history and the crons that run.

  --port N      listen on port N (9998 unless the settings name another)
  --secret      make a random secret, which every request then needs
  --uninstall   remove the service; keep registry, settings, logs and history
  --purge       remove these too
  --dry-run     show what would be done, do nothing
  --help        show this

With DESTDIR set (for packagers), files go below that folder and nothing is started.
TEXT
}

main() {
    parse_arguments "$@"
    asked=$*
    logs=$(setting CRON_TRIGGER_LOG_DIR "$root$settings")
    logs=${logs:-/var/log/qadhya}
    source_dir=$(cd -- "$(dirname -- "$0")" && pwd)
    scratch=$(mktemp -d)
    trap 'rm -rf -- "$scratch"' EXIT
    trap 'exit 130' INT TERM

    case $action in
        install)
            check_source
            check_host
            install_program
            install_registry
            install_settings
            install_logs
            install_unit
            start_service
            end_with show_result
            ;;
        uninstall)
            check_host_for_removal
            remove_service
            show_what_is_kept
            end_with show_how_to_purge
            ;;
        purge)
            check_host_for_removal
            remove_service
            remove_logs
            remove_everything_else
            end_with show_how_to_install
            ;;
    esac
}

# --- Talking and doing -----------------------------------------------------------

say() { printf '%s\n' "$*"; }

err() { printf 'install.sh: %s\n' "$*" >&2; }

# A precondition that fails ends the installation; a dry run names it and goes on.
refuse() {
    err "$1"
    [ -n "$dry_run" ] || exit 1
}

wrong_call() {
    err "$1 See: $0 --help"
    exit 64
}

run() {
    if [ -n "$dry_run" ]; then
        say "would run: $*"
    else
        "$@"
    fi
}

# End with function $1, which tells what was done; a dry run did nothing, and ends with
# the command that does it.
end_with() {
    local as
    if [ -z "$dry_run" ]; then
        "$1"
        return
    fi
    as=sudo
    [ -z "$root" ] || as="DESTDIR=$root"
    say "That is all. To do it:"
    say "$as $source_dir/install.sh$(say " $asked" | sed 's/ --dry-run//g; s/^ $//')"
}

need_cmd() {
    command -v "$1" >/dev/null 2>&1 ||
        refuse "The command $1 is missing: install the package $2 (apt install $2)."
}

# --- What was asked for ----------------------------------------------------------

parse_arguments() {
    while [ $# -gt 0 ]; do
        case $1 in
            --port)
                [ $# -ge 2 ] || wrong_call "--port needs a number."
                set_port "$2"
                shift
                ;;
            --port=*) set_port "${1#--port=}" ;;
            --secret) wanted_secret=yes ;;
            --uninstall) set_action uninstall ;;
            --purge) set_action purge ;;
            --dry-run) dry_run=yes ;;
            --help | -h)
                usage
                exit 0
                ;;
            *) wrong_call "There is no option $1." ;;
        esac
        shift
    done
    [ "$action" = install ] || [ -z "$wanted_port$wanted_secret" ] ||
        wrong_call "--$action takes neither --port nor --secret."
    [ "$action" = install ] || [ -z "$root" ] ||
        wrong_call "--$action does not work with DESTDIR."
    [ -z "$root" ] || [ -z "$wanted_secret" ] ||
        wrong_call "--secret does not work with DESTDIR: a package's secret is none."
}

set_action() {
    case $action in
        install | "$1") action=$1 ;;
        *) action=purge ;; # --uninstall --purge, in either order
    esac
}

set_port() {
    case $1 in
        '' | *[!0-9]* | ??????*) wrong_call "--port takes 1 to 65535, not '$1'." ;;
    esac
    { [ "$1" -ge 1 ] && [ "$1" -le 65535 ]; } ||
        wrong_call "--port takes 1 to 65535, not '$1'."
    wanted_port=$1
}

# --- Preconditions ---------------------------------------------------------------

check_source() {
    local file
    for file in cron_trigger_server.py dashboard.html crons.json scripts \
        cron-trigger-server.service; do
        [ -e "$source_dir/$file" ] ||
            refuse "$file is missing beside install.sh: run it in a whole checkout."
    done
}

check_host() {
    need_cmd cmp diffutils
    [ -z "$root" ] || return 0
    check_root
    check_systemd "start the server yourself with 'python3 cron_trigger_server.py \
serve'"
    find_python
    check_port
    check_logs
}

check_host_for_removal() {
    check_root
    check_systemd "run this where systemd runs the service that is to go"
}

check_root() {
    [ "$(id -u)" = 0 ] || [ -n "$dry_run" ] || refuse "Only root may do this: sudo $0"
    settings_are_known ||
        say "Only root can read $settings: what follows goes by the defaults."
}

# An ordinary user, in a dry run, may not read them.
settings_are_known() { [ ! -e "$root$settings" ] || [ -r "$root$settings" ]; }

# Refuse a host without systemd; $1 is the remedy.
check_systemd() {
    [ -d /run/systemd/system ] ||
        refuse "This host is not run by systemd, which the service needs: $1."
}

# Sets python: the first interpreter, of those that belong to the system, that is new
# enough. One from a user's PATH could be changed by that user, and runs as root.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 /usr/local/bin/python3 \
        /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 \
        /usr/bin/python3.11 /usr/bin/python3.10 /usr/bin/python3.9; do
        if "$candidate" -I -c 'import sqlite3, sys; assert sys.version_info >= (3, 9)' \
            2>/dev/null; then
            python=$candidate
            return
        fi
    done
    python=/usr/bin/python3
    refuse "Python 3.9 or newer is needed, $(python_fault)."
}

# Print what is wrong with the system's Python, and the remedy.
python_fault() {
    local version
    version=$("$python" --version 2>/dev/null) || :
    case $version in
        '') say "and there is no $python: apt install python3" ;;
        'Python 2.'* | 'Python 3.'[0-8] | 'Python 3.'[0-8].*)
            say "but $python is $version: install a newer one beside it, such as" \
                "python3.9 (apt install python3.9), which this then finds"
            ;;
        *)
            say "with its sqlite3 module, which $python ($version) lacks:" \
                "apt install python3"
            ;;
    esac
}

check_port() {
    local port holder pid
    [ -n "$wanted_port" ] || settings_are_known || return 0
    port=$(port_in_force)
    command -v "$python" >/dev/null 2>&1 || return 0
    holder=$(port_holder "$port")
    pid=${holder%% *}
    case $pid in
        '') return 0 ;;
        1) is_installed && return 0 ;; # systemd keeps our socket between two starts
        '?')
            if [ "$(id -u)" != 0 ]; then
                say "can't tell who uses port $port: only root can see it"
                return
            fi
            ;;
        *) [ "$pid" != "$(service_pid)" ] || return 0 ;;
    esac
    refuse "Port $port is used by ${holder#* } (process $pid): stop that, or choose \
another port with --port N."
}

# The server refuses such a folder, too, but could not say so before it is installed.
check_logs() {
    local folder
    folder=$(readlink -m -- "$logs")
    [ ! -d "$folder" ] || check_log_folder "$folder" go
    # Those above it may be their group's: Ubuntu's /var/log is that of syslog.
    while [ -n "$folder" ]; do
        folder=${folder%/*}
        [ ! -d "$folder/" ] || check_log_folder "${folder:-/}" o
    done
}

# Refuse folder $1 if it is not root's, or if $2 may write it: go, its group and others,
# or o, others, to whom the sticky ones above the logs (/tmp) are no danger.
check_log_folder() {
    local owner danger
    danger="who could put links there that root would follow"
    owner=$(stat -c '%U' "$1")
    [ "$owner" = root ] ||
        refuse "$1 belongs to $owner, $danger: sudo chown root $1."
    case $2:$(stat -c '%A' "$1") in
        go:?????w* | go:????????w* | o:????????w[!tT])
            refuse "Others than root may write $1, $danger: sudo chmod $2-w $1."
            ;;
    esac
}

is_installed() { [ -e "$unit" ]; }

service_pid() { systemctl show --property MainPID --value "$service" 2>/dev/null; }

# Print "PID NAME" of the first process that listens on TCP port $1, if any.
port_holder() {
    "$python" -I - "$1" <<'CODE'
import glob
import os
import sys

LISTEN = "0A"
sockets = set()
for table in "/proc/net/tcp", "/proc/net/tcp6":
    if not os.path.exists(table):
        continue
    with open(table) as lines:
        for line in list(lines)[1:]:
            fields = line.split()
            port = int(fields[1].rpartition(":")[2], 16)
            if fields[3] == LISTEN and port == int(sys.argv[1]):
                sockets.add("socket:[%s]" % fields[9])
holders = set()
for link in glob.glob("/proc/[0-9]*/fd/*"):
    try:
        if os.readlink(link) in sockets:
            holders.add(int(link.split("/")[2]))
    except OSError:
        pass
if holders:
    # Beside the server, systemd holds the socket too: name the server.
    pid = max(holders)
    with open("/proc/%d/comm" % pid) as name:
        print(pid, name.read().strip())
elif sockets:
    print("? another process")
CODE
}

# --- Files -----------------------------------------------------------------------

# Put file $1 in place as $2 with mode $3, owned by root, in one step: a script that
# runs at the moment goes on with the old one. Returns 1 if it was there already.
put() {
    local target
    target=$root$2
    if cmp -s -- "$1" "$target" && [ "$(stat -c '%a' "$target")" = "${3#0}" ] &&
        is_roots "$target"; then
        return 1
    fi
    if [ -n "$dry_run" ]; then
        say "would write: $target (mode $3)"
        return 0
    fi
    # Nobody may read the settings meanwhile: a secret may stand there.
    (umask 077 && cp -- "$1" "$target.new")
    own "$target.new"
    chmod "$3" "$target.new"
    mv -f -- "$target.new" "$target"
    say "wrote $target"
}

# A packager who is not root leaves the owner to the package.
is_roots() { [ "$(id -u)" != 0 ] || [ "$(stat -c '%u:%g' "$1")" = 0:0 ]; }
own() { [ "$(id -u)" != 0 ] || chown -h root:root "$1"; }

# Make folder $1, ours alone, with mode 0755: who could write there could replace
# what root runs.
make_own_folder() {
    run mkdir -p -- "$root$1"
    [ -n "$dry_run" ] || own "$root$1"
    run chmod 0755 "$root$1"
}

install_program() {
    local path name mode
    make_own_folder "$program"
    put "$source_dir/cron_trigger_server.py" "$program/cron_trigger_server.py" 0755 &&
        changed=yes
    put "$source_dir/dashboard.html" "$program/dashboard.html" 0644 && changed=yes
    make_own_folder "$program/scripts"
    for path in "$source_dir"/scripts/*; do
        [ -f "$path" ] || continue
        name=${path##*/}
        mode=0644
        # Not the checkout's mode: a downloaded archive may have lost it.
        [ "$(head -c 2 "$path")" != '#!' ] || mode=0755
        put "$path" "$program/scripts/$name" "$mode" || :
    done
}

# The registry is the administrator's: it is written once. Its relative paths start
# at its folder, hence the link.
install_registry() {
    make_own_folder "$config"
    if [ -e "$root$config/crons.json" ]; then
        say "kept $root$config/crons.json"
    else
        put "$source_dir/crons.json" "$config/crons.json" 0644
    fi
    if [ ! -e "$root$config/scripts" ]; then
        run ln -sfn "$program/scripts" "$root$config/scripts"
    fi
}

install_settings() {
    run mkdir -p -- "$root${settings%/*}"
    if ! settings_are_known; then
        foretell_settings
        return
    fi
    if [ -e "$root$settings" ]; then
        cp -- "$root$settings" "$scratch/settings"
    else
        default_settings >"$scratch/settings"
    fi
    [ -z "$wanted_port" ] || set_setting CRON_TRIGGER_PORT "$wanted_port"
    [ -z "$wanted_secret" ] || install_secret
    if cmp -s -- "$scratch/settings" "$root$settings"; then
        say "kept $root$settings"
    else
        put "$scratch/settings" "$settings" 0600
        changed=yes
    fi
}

foretell_settings() {
    if [ -z "$wanted_port$wanted_secret" ]; then
        say "kept $root$settings"
        return
    fi
    say "can't tell whether $root$settings changes: only root can read it"
    changed=yes # A restart is to be expected.
}

default_settings() {
    cat <<'TEXT'
# Settings of cron-trigger-server. After a change:
#     sudo systemctl restart cron-trigger-server

#CRON_TRIGGER_HOST=0.0.0.0
#CRON_TRIGGER_PORT=9998

# The secret that every request needs, in a file that only root can read.
#CRON_TRIGGER_SECRET_FILE=/etc/cron-trigger-server/secret

# Who may call: this host and Docker's bridge networks.
#CRON_TRIGGER_ALLOW=127.0.0.0/8,::1,172.16.0.0/12

# Names beside localhost and host.docker.internal by which the server is called.
#CRON_TRIGGER_ALLOWED_HOSTS=

#CRON_TRIGGER_HISTORY_DAYS=90
TEXT
}

# Set $1 to $2 in the new settings, in the place where it stood or was commented out.
set_setting() {
    if grep -q "^#\{0,1\}$1=" "$scratch/settings"; then
        sed -i "s|^#\{0,1\}$1=.*|$1=$2|" "$scratch/settings"
    else
        printf '%s=%s\n' "$1" "$2" >>"$scratch/settings"
    fi
}

# Print the value that setting $1 has in file $2, without its quotes; nothing if none.
setting() {
    [ -r "$2" ] || return 0
    sed -n "s/^$1=//p" "$2" | tail -n 1 | tr -d "\"'"
}

port_in_force() {
    local port
    port=${wanted_port:-$(setting CRON_TRIGGER_PORT "$root$settings")}
    say "${port:-9998}"
}

# A secret that is in use stays: its clients know it. It is never printed, since what
# an installer prints ends up in logs.
install_secret() {
    local old
    old=$(setting CRON_TRIGGER_SECRET_FILE "$scratch/settings")
    if [ -n "$(setting CRON_TRIGGER_SECRET "$scratch/settings")" ]; then
        say "kept the secret that $settings sets"
    elif [ -n "$old" ] && [ -e "$old" ]; then
        say "kept the secret in $old"
    elif [ -n "$(credential)" ]; then
        say "kept the secret in $(credential)"
    else
        set_setting CRON_TRIGGER_SECRET_FILE "$secret_file"
        [ -e "$secret_file" ] || make_secret
    fi
}

make_secret() {
    if [ -n "$dry_run" ]; then
        say "would write: $secret_file (mode 0600), a random secret"
        return
    fi
    (
        umask 077
        "$python" -I -c 'import secrets; print(secrets.token_urlsafe(32))' \
            >"$secret_file.new"
    )
    mv -f -- "$secret_file.new" "$secret_file"
    say "wrote $secret_file"
}

install_logs() {
    # An existing folder keeps its owner: other programs may log there.
    [ -d "$root$logs" ] || run mkdir -p -m 0755 -- "$root$logs"
    if [ ! -e "$root$logs/$service.log" ]; then
        : >"$scratch/log"
        put "$scratch/log" "$logs/$service.log" 0644
    fi
    run mkdir -p -- "$root${rotation%/*}"
    local other
    other=$(other_rotation)
    if [ -n "$other" ]; then
        say "$other rotates $logs already, so no other entry was added. It must not"
        say "use copytruncate, which loses lines."
        return
    fi
    log_rotation >"$scratch/rotation"
    put "$scratch/rotation" "$rotation" 0644 || :
}

# logrotate refuses a file that two entries name.
other_rotation() {
    grep -ls "^[^#]*$logs/\*" "$root${rotation%/*}"/* | grep -vxF "$root$rotation" |
        head -n 1 || :
}

log_rotation() {
    cat <<TEXT
# Renamed, not copied and truncated: a cron that writes goes on in the renamed file, and
# no line is lost. Hence also delaycompress. nodateext: always NAME.log.1, whatever
# /etc/logrotate.conf prefers. 13 weeks: as long as the history.
$logs/*.log {
    weekly
    rotate 13
    nodateext
    compress
    delaycompress
    missingok
    notifempty
    create 0644
}
TEXT
}

install_unit() {
    run mkdir -p -- "$root${unit%/*}"
    sed "s|/usr/bin/python3|${python:-/usr/bin/python3}|" \
        "$source_dir/cron-trigger-server.service" >"$scratch/unit"
    put "$scratch/unit" "$unit" 0644 && changed=yes
    return 0
}

# --- The service -----------------------------------------------------------------

start_service() {
    [ -z "$root" ] || return 0
    run systemctl daemon-reload
    run systemctl --quiet enable "$service"
    if [ -z "$changed" ] && systemctl --quiet is-active "$service"; then
        say "nothing changed: $service was not restarted"
        return
    fi
    if ! run systemctl restart "$service"; then
        journalctl --no-pager --unit "$service" --lines 15 >&2 || :
        err "The service did not start; the lines above say why. Mend it, then: sudo $source_dir/install.sh"
        exit 1
    fi
}

show_result() {
    if [ -n "$root" ]; then
        say "Installed below $root; on the host, the package has to run:"
        say "systemctl enable --now $service"
        return
    fi
    say
    systemctl --no-pager --lines 0 status "$service" || :
    say
    show_health
    show_container_lines
    show_secret
    show_next_command
}

show_health() {
    say "$(address)/health answers:"
    if ! ask_health; then
        err "No answer from $(address)/health: journalctl -u $service says why."
        exit 1
    fi
}

ask_health() {
    "$python" -I - "$(address)/health" <<'CODE'
import sys
import urllib.request

direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
try:
    print(direct.open(sys.argv[1], timeout=10).read().decode())
except OSError as error:
    sys.exit(str(error))
CODE
}

# Print the address at which this host reaches the server.
address() {
    local host
    host=$(setting CRON_TRIGGER_HOST "$settings")
    case $host in
        '' | 0.0.0.0 | ::) host=127.0.0.1 ;;
        *:*) host="[$host]" ;;
    esac
    say "http://$host:$(port_in_force)"
}

show_container_lines() {
    if command -v docker >/dev/null 2>&1 || [ -e /sys/class/net/docker0 ]; then
        say
        say "A container reaches it by the name host.docker.internal once its service"
        say "in compose.yaml has:"
        say "    extra_hosts: [\"host.docker.internal:host-gateway\"]"
    fi
    if LC_ALL=C ufw status 2>/dev/null | grep -q '^Status: active'; then
        say
        say "The firewall is on. If containers are to reach the server:"
        say "    sudo ufw allow from 172.16.0.0/12 to any port $(port_in_force) \
proto tcp"
    fi
}

show_secret() {
    [ -n "$(secret_in_force)" ] || return 0
    say
    say "Every request needs the header X-Trigger-Secret. Its value is in"
    say "$(secret_in_force)."
}

# Print where the server takes its secret from, never the secret: the settings, a file,
# or the unit's credential, in this order. Nothing if there is none.
secret_in_force() {
    local file
    file=$(setting CRON_TRIGGER_SECRET_FILE "$settings")
    if [ -n "$(setting CRON_TRIGGER_SECRET "$settings")" ]; then
        say "$settings"
    elif [ -n "$file" ]; then
        say "$file"
    else
        credential
    fi
}

# Print where the credential named secret comes from, if `systemctl edit` gave the unit
# one: its file, or else words. SetCredential= is followed by the secret itself.
credential() {
    systemctl cat "$service" 2>/dev/null | sed -nE '
        s,^LoadCredential=secret:(/.*),\1,p
        t
        s,^(Load|Set)Credential(Encrypted)?=secret(:.*)?$,the credential of its unit,p
        ' | tail -n 1
}

show_next_command() {
    local header place
    header=
    place=$(secret_in_force)
    case $place in
        '') ;;
        "$settings" | [!/]*) header="[the secret in $place]" ;;
        *) header="\$(sudo cat $place)" ;;
    esac
    [ -z "$place" ] || header=" -H \"X-Trigger-Secret: $header\""
    say
    say "Next, the crons that it can start:"
    say "curl -s$header $(address)/crons"
}

# --- Removal ---------------------------------------------------------------------

# The crons that run are left alone, and so is the folder of their locks: it goes with
# the next boot, and an installation before that finds them again.
remove_service() {
    if is_installed; then
        run systemctl --quiet disable --now "$service"
    fi
    run rm -f -- "$unit" "$rotation"
    run rm -rf -- "$program"
    [ ! -L "$config/scripts" ] || run rm -f -- "$config/scripts"
    run systemctl daemon-reload
    run systemctl --quiet reset-failed "$service" 2>/dev/null || :
}

show_what_is_kept() {
    local path
    if [ -n "$dry_run" ]; then say "would keep:"; else say "Removed $service. Kept:"; fi
    for path in "$config" "$settings" "$logs" "$state"; do
        [ ! -e "$path" ] || say "    $path"
    done
}

show_how_to_purge() {
    say "To remove these too:"
    say "sudo $source_dir/install.sh --purge"
}

show_how_to_install() {
    say "Removed $service with its registry, settings, logs and history."
    say "To install it again:"
    say "sudo $source_dir/install.sh"
}

# The log folder may hold other programs' logs: only those of the registry's crons go.
remove_logs() {
    local name
    remove_log "$service.log"
    [ ! -e "$config/crons.json" ] || [ -r "$config/crons.json" ] ||
        say "can't tell the crons' logs: only root can read $config/crons.json"
    cron_logs | while IFS= read -r name; do
        remove_log "$name"
    done
    [ ! -d "$logs" ] || run rmdir --ignore-fail-on-non-empty -- "$logs"
}

# Remove log file $1 and what logrotate made of it: NAME.log.1, NAME.log.2.gz.
remove_log() { run rm -f -- "$logs/$1" "$logs/$1".[0-9]*; }

# Print the name of each cron's log, one a line. A logFile elsewhere is left alone.
cron_logs() {
    [ -e "$config/crons.json" ] || return 0
    python3 -I -X utf8 - "$config/crons.json" "$logs" <<'CODE' 2>/dev/null
import json
import os
import sys

logs = os.path.normpath(sys.argv[2])
with open(sys.argv[1], encoding="utf-8") as registry:
    crons = json.load(registry)
for name, cron in crons.items():
    log_file = cron.get("logFile") if isinstance(cron, dict) else None
    if not isinstance(log_file, str):
        log_file = name + ".log"
    folder, log = os.path.split(os.path.normpath(os.path.join(logs, log_file)))
    if folder == logs and log.isprintable():
        print(log)
CODE
}

remove_everything_else() {
    run rm -rf -- "$config" "$state" "$unit.d"
    run rm -f -- "$settings"
    run systemctl daemon-reload
    if [ -n "$dry_run" ]; then
        # Who looks takes a lock, and must be root.
        say "would run: rm -rf -- $run_dir, unless a cron runs"
    elif some_cron_runs; then
        say "A cron still runs: its lock stays in $run_dir until the next boot."
    else
        run rm -rf -- "$run_dir"
    fi
}

some_cron_runs() {
    local lock
    for lock in "$run_dir"/*.pid; do
        [ -e "$lock" ] || continue
        flock --nonblock "$lock" true || return 0
    done
    return 1
}

main "$@"
