#!/bin/sh
# shellcheck shell=dash
#
# Installs cron-trigger-server as a systemd service: `sudo ./install.sh`. Run it again
# to upgrade. Everything is in functions and the last line calls main, so that a
# half-downloaded copy does nothing. `--dry-run` shows each step and takes none.
#
# It may be interrupted anywhere and run again. The program is made whole in a folder
# beside its place and takes that by one rename; each other file does so, too. What has
# to be done is found by comparing, with the files and with the process that runs.

set -eu
umask 022

service=cron-trigger-server
program=/opt/cron-trigger-server
config=/etc/cron-trigger-server
settings=/etc/default/cron-trigger-server
secret_file=$config/secret
header_file=$config/secret.header
command=/usr/local/bin/cron-trigger
logs=
state=/var/lib/cron-trigger-server
run_dir=/run/cron-trigger-server
unit=/etc/systemd/system/cron-trigger-server.service
rotation=/etc/logrotate.d/cron-trigger-server

root=${DESTDIR:-}      # Set by packagers: files only, nothing is started.
source_dir=
scratch=               # What nobody else may read, gone at the end.
stage=                 # The new program beside the old one; after the swap, the old.
python=
asked=
action=install
dry_run=
force=
wanted_port=
wanted_secret=
changed=               # Not empty: the service has to be restarted.
replaced=              # Not empty: the old program is in the stage.

usage() {
    cat <<'TEXT'
Usage: sudo ./install.sh [OPTION]

Installs cron-trigger-server as a systemd service, or upgrades it. An upgrade keeps
the registry, the settings, the history and the crons that run.

  --port N      listen on port N (9998 unless the settings name another)
  --secret      make a random secret, which every request then needs
  --uninstall   remove the service; keep registry, settings, logs and history
  --purge       remove these too
  --force       upgrade although crons or clients that work now would be refused
  --dry-run     show what would be done, do nothing
  --help        show this

With DESTDIR set (for packagers), files go below that folder and nothing is started.
TEXT
}

main() {
    parse_arguments "$@"
    asked=$*
    prepare
    case $action in
        install)
            check_source
            check_host
            check_places
            stage_program
            ask_new_program
            ask_about_callers
            install_registry
            install_settings
            install_logs
            install_program
            install_unit
            install_command
            start_service
            end_with show_result
            ;;
        uninstall)
            check_host_for_removal
            remove_service
            show_what_is_kept
            end_with say "To remove these too:" "sudo $source_dir/install.sh --purge"
            ;;
        purge)
            check_host_for_removal
            remove_service
            remove_logs
            remove_everything_else
            end_with say "Removed $service with its registry, settings, logs and history." \
                "To install it again:" "sudo $source_dir/install.sh"
            ;;
    esac
}

prepare() {
    logs=$(setting CRON_TRIGGER_LOG_DIR "$root$settings")
    logs=${logs:-/var/log/qadhya}
    source_dir=$(cd -- "$(dirname -- "$0")" && pwd -P)
    # Neither a lost connection nor a reader that has gone (| head) stops it half-way.
    trap '' HUP PIPE
    trap 'exit 130' INT TERM
    trap 'rm -rf -- "$scratch" "$stage"' EXIT
    scratch=$(mktemp -d /tmp/cron-trigger-install.XXXXXXXXXX)
}

# --- Talking and doing -----------------------------------------------------------

# Print lines.
say() { printf '%s\n' "$@" 2>/dev/null || :; }

err() { printf 'install.sh: %s\n' "$*" >&2 || :; }

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

# End with command $@, which says what was done and what comes next; a dry run did
# nothing, and ends with the command that does it.
end_with() {
    local as=sudo
    [ -n "$dry_run" ] || { "$@"; return; }
    [ -z "$root" ] || as="DESTDIR=$root"
    say "That is all. To do it:" \
        "$as $source_dir/install.sh$(say " $asked" | sed 's/ --dry-run//g; s/^ $//')"
}

# Ask question $1 with the values that follow: see cron_trigger/commands/installing.py.
ask() {
    "${python:-python3}" -IB -c 'import sys; sys.path.append(sys.argv[1])
from cron_trigger.commands.installing import main; sys.exit(main(*sys.argv[2:]))' \
        "$source_dir" "$@"
}

exchange() { ask exchange "$root$program" "$stage"; }

# Refuse to go on where a question has an answer, which is the fault and its remedy.
# What it notes beside is printed.
doubt() {
    local fault
    { fault=$(ask "$@"); } 3>&1
    [ -z "$fault" ] || refuse "$fault"
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
            --force) force=yes ;;
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

# What the program's folder gets; of the documents, what the server serves.
program_files() {
    say cron_trigger_server.py cron_trigger scripts crons.json crons.schema.json \
        docs/openapi.json
}

check_source() {
    local file
    for file in $(program_files) cron-trigger-server.service; do
        [ -e "$source_dir/$file" ] ||
            refuse "$file is missing beside install.sh: run it in a whole checkout."
    done
}

check_host() {
    need_cmd cmp diffutils
    need_cmd find findutils
    [ -z "$root" ] || { need_cmd python3 python3; return 0; }
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
    check_checkout
    is_installed || [ -e "$program" ] || [ "$action" = purge ] || {
        say "$service is not installed: there is nothing to remove."
        exit 0
    }
}

# Refuse to replace or to remove the folder that this runs from, by whatever path, and
# any other checkout: its history may be nowhere else.
check_checkout() {
    local folder other place
    place=/usr/local/src/cron-trigger-server
    folder=$source_dir
    while [ -n "$folder" ]; do
        for other in "$program" "$config" "$state"; do
            [ ! "$folder" -ef "$root$other" ] ||
                refuse "This checkout lies in $root$other, which is for what install.sh \
puts there: sudo mv $source_dir $place && sudo $place/install.sh"
        done
        folder=${folder%/*}
    done
    [ ! -e "$root$program/.git" ] ||
        refuse "$root$program is a git checkout, which would be lost: sudo mv \
$root$program $place && sudo $place/install.sh"
}

# Refuse places that are not root's alone, or can't be written, before any is touched.
check_places() {
    local file folder
    check_checkout
    for folder in "$root$program" "$root$config"; do
        [ ! -L "$folder" ] ||
            refuse "$folder is a link of $(owner_of "$folder") to $(readlink "$folder"): \
sudo rm $folder"
        [ ! -e "$folder" ] || [ "$(id -u)" != 0 ] || [ -O "$folder" ] ||
            refuse "$folder belongs to $(owner_of "$folder"), who could change what root \
runs: see what it holds, then sudo mv $folder $folder.old"
    done
    # A packager's folders above are the packager's.
    [ -n "$root" ] || doubt folder_fault o "${program%/*}"
    [ "$(id -u)" = 0 ] || return 0
    for file in "$program" "$config" "$settings" "$unit" "$rotation" "$command"; do
        folder=$root${file%/*}
        while [ ! -e "$folder" ] && [ -n "$folder" ]; do folder=${folder%/*}; done
        [ -w "${folder:-/}" ] ||
            refuse "${folder:-/} can't be written: if its file system is mounted \
read-only, mount it to be written (mount -o remount,rw), then run this again."
    done
}

owner_of() { stat -c '%U' "$1"; }

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
# enough and whole. One from a user's PATH could be changed by that user, and runs as
# root.
find_python() {
    local candidate
    for candidate in /usr/bin/python3 /usr/local/bin/python3 \
        /usr/bin/python3.14 /usr/bin/python3.13 /usr/bin/python3.12 \
        /usr/bin/python3.11 /usr/bin/python3.10 /usr/bin/python3.9; do
        if "$candidate" -I -c 'import sys; assert sys.version_info >= (3, 9)
import compileall, hmac, http.server, secrets, sqlite3' 2>/dev/null; then
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
            say "but $python is $version: install a newer one beside it, such as \
python3.9 (apt install python3.9), which this then finds"
            ;;
        *)
            say "with its whole standard library, of which $python ($version) lacks a \
part (sqlite3, hmac or another): apt install python3"
            ;;
    esac
}

check_port() {
    local port
    [ -n "$wanted_port" ] || settings_are_known || return 0
    port=$(port_in_force)
    command -v "$python" >/dev/null 2>&1 || return 0
    if ! is_installed; then
        doubt port_fault "$port"
    else # systemd keeps our socket between two starts
        doubt port_fault "$port" "$(service_pid)" 1
    fi
}

# The server refuses such a folder, too, but could not say so before it is installed.
check_logs() {
    doubt folder_fault go "$(readlink -m -- "$logs")"
}

is_installed() { [ -e "$unit" ]; }

service_pid() { systemctl show --property MainPID --value "$service" 2>/dev/null; }

# --- Files -----------------------------------------------------------------------

# Put file $1 in place as $2 with mode $3, owned by root, in one step: whoever has the
# old one open goes on with it. Returns 1 if it was there already.
put() {
    local target fresh
    target=$root$2
    # Hidden and with a tilde: neither systemd nor logrotate reads one that is left.
    fresh=${target%/*}/.${target##*/}.
    if cmp -s -- "$1" "$target" && [ "$(stat -c '%a' "$target")" = "${3#0}" ] &&
        is_roots "$target"; then
        return 1
    fi
    if [ -n "$dry_run" ]; then
        say "would write: $target (mode $3)"
        return 0
    fi
    rm -f -- "$fresh"??????~
    # mktemp: nobody can have put a link there, and nobody may read it meanwhile.
    fresh=$(mktemp "$fresh"XXXXXX~)
    cat -- "$1" >"$fresh"
    own "$fresh"
    chmod "$3" "$fresh"
    mv -fT -- "$fresh" "$target"
    say "wrote $target"
}

# A packager who is not root leaves the owner to the package.
is_roots() { [ "$(id -u)" != 0 ] || [ "$(stat -c '%u:%g' "$1")" = 0:0 ]; }
own() { [ "$(id -u)" != 0 ] || chown -hR root:root "$1"; }

# Make folder $1, ours alone, with mode 0755: who could write there could replace
# what root runs.
make_own_folder() {
    run mkdir -p -- "$root$1"
    [ -n "$dry_run" ] || [ "$(id -u)" != 0 ] || chown -h root:root "$root$1"
    run chmod 0755 "$root$1"
}

# --- The program -----------------------------------------------------------------

# Make the new program, whole, in a folder beside its place: a rename is one step.
stage_program() {
    local file
    stage=$scratch/program
    if [ -z "$dry_run" ]; then
        mkdir -p -- "$root${program%/*}"
        forget_stages
        stage=$(mktemp -d "$root${program%/*}/.$service.XXXXXXXXXX")
    else
        mkdir "$stage"
    fi
    for file in $(program_files); do
        (cd -- "$source_dir" && cp -R --parents -- "$file" "$stage")
    done
    find "$stage" -name __pycache__ -prune -exec rm -rf {} +
    own "$stage"
    set_modes
    keep_other_scripts
    compile "$stage"
}

# What an interruption has left.
forget_stages() {
    local left
    for left in "$root${program%/*}/.$service".??????????*; do
        case $left in
            *.old)
                # Between the two renames: the program has no place but this one.
                [ -e "$root$program" ] || mv -T -- "$left" "$root$program"
                ;;
        esac
        rm -rf -- "$left"
    done
}

# Not the checkout's modes: a downloaded archive may have lost them, and another user
# may have set them.
set_modes() {
    local path
    find "$stage" -type d -exec chmod 0755 {} + -o -type f -exec chmod 0644 {} +
    for path in "$stage/cron_trigger_server.py" "$stage"/scripts/*; do
        [ "$(head -c 2 "$path" 2>/dev/null)" != '#!' ] || chmod 0755 "$path"
    done
    # An interpreter that is not the host's python3.
    case $python in
        '' | /usr/bin/python3) ;;
        *) sed -i "1s|.*|#!$python|" "$stage/cron_trigger_server.py" ;;
    esac
}

# A registry may name a script that this version no longer has, or one of the host's.
keep_other_scripts() {
    local path name
    for path in "$root$program"/scripts/*; do
        name=scripts/${path##*/}
        if [ "$name" = scripts/__pycache__ ] || [ -e "$stage/$name" ]; then continue; fi
        [ -e "$path" ] || continue
        cp -a -- "$path" "$stage/$name"
        say "kept $root$program/$name, which this version does not bring"
    done
}

# Compile what is new of program $1: a start has nothing to compile. By the sources'
# times, so that who changes a file by hand changes what runs.
compile() {
    [ -n "$python" ] && [ -z "$dry_run" ] || return 0
    "$python" -I -m compileall -q -s "$1" -p "$program" "$1/cron_trigger" >&2 || :
}

# Ask the new program whether it would run with this host's settings and registry, and
# start each cron that the old one starts.
ask_new_program() {
    if [ -n "$root" ] || [ "$(id -u)" != 0 ]; then return; fi
    doubt new_program "$stage" "$program" "$force"
}

# Version 1 let in all of 172.16.0.0/12, the LAN of many hosts; version 2 the networks of
# this host's containers. Refuse to lock out who called lately.
ask_about_callers() {
    local history
    if [ -n "$root$force" ] || [ "$(id -u)" != 0 ]; then return; fi
    [ ! -d "$program/cron_trigger" ] || return 0
    [ -z "$(setting CRON_TRIGGER_ALLOW "$settings")" ] || return 0
    history=$(setting CRON_TRIGGER_STATE_DIR "$settings")
    history=${history:-$state}/history.db
    [ ! -e "$history" ] || doubt callers "$history" "$settings"
}

# The stage takes the program's place.
install_program() {
    if [ -z "$(ask other_program "$stage" "$root$program")" ]; then
        compile "$root$program" # Python itself may be another.
        return
    fi
    changed=yes
    if [ -n "$dry_run" ]; then
        say "would write: $root$program/cron_trigger_server.py, cron_trigger, scripts"
        return
    fi
    if [ -e "$root$program" ]; then
        exchange # At each moment there is a whole program.
        replaced=yes
    else
        mv -T -- "$stage" "$root$program"
    fi
    say "wrote $root$program"
}

# --- Registry, settings, logs ----------------------------------------------------

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
    if ! settings_are_known && [ -n "$wanted_port$wanted_secret" ]; then
        say "can't tell whether $root$settings changes: only root can read it"
        changed=yes # A restart is to be expected.
        return
    elif ! settings_are_known; then
        say "kept $root$settings"
        return
    elif [ -e "$root$settings" ]; then
        cp -- "$root$settings" "$scratch/settings"
        cp -p -- "$root$settings" "$scratch/old-${settings##*/}"
    else
        default_settings >"$scratch/settings"
    fi
    [ -z "$wanted_port" ] || set_setting CRON_TRIGGER_PORT "$wanted_port"
    [ -z "$wanted_secret" ] || install_secret
    install_header
    if cmp -s -- "$scratch/settings" "$root$settings"; then
        say "kept $root$settings"
    else
        put "$scratch/settings" "$settings" 0600
        changed=yes
    fi
}

default_settings() {
    cat <<'TEXT'
# Settings of cron-trigger-server. After a change:
#     sudo systemctl restart cron-trigger-server

#CRON_TRIGGER_HOST=127.0.0.1
#CRON_TRIGGER_PORT=9998

# The secret that every request needs, in a file that only root can read.
#CRON_TRIGGER_SECRET_FILE=/etc/cron-trigger-server/secret

# Who may call beside this host, instead of the networks of its containers.
#CRON_TRIGGER_ALLOW=172.31.0.0/24

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
        # Its last line may have no end.
        [ -z "$(tail -c 1 "$scratch/settings")" ] || say "" >>"$scratch/settings"
        printf '%s=%s\n' "$1" "$2" >>"$scratch/settings"
    fi
}

# Print the value that setting $1 has in file $2, without its quotes; nothing if none.
# As for systemd, a carriage return ends a line, and blanks around a value are none of it.
setting() {
    [ -r "$2" ] || return 0
    tr '\r' '\n' <"$2" |
        sed "/^[[:blank:]]*$1[[:blank:]]*=[[:blank:]]*/!d; s///; s/[[:blank:]]*\$//" |
        tail -n 1 | tr -d "\"'"
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
        [ ! -e "$secret_file" ] || return 0
        "${python:-python3}" -I -c 'import secrets; print(secrets.token_hex(32))' \
            >"$scratch/secret"
        put "$scratch/secret" "$secret_file" 0600
    fi
}

# The secret as curl takes it, so that it stands in no command line: -H @FILE. Nothing
# prints it: printf is the shell's own.
install_header() {
    local secret file
    secret=$(setting CRON_TRIGGER_SECRET "$scratch/settings")
    file=$(setting CRON_TRIGGER_SECRET_FILE "$scratch/settings")
    [ -n "$file" ] || [ -n "$root" ] || file=$(credential)
    [ -n "$secret" ] || [ ! -r "$file" ] || secret=$(cat -- "$file")
    if [ -n "$secret" ]; then
        printf 'X-Trigger-Secret: %s\n' "$secret" >"$scratch/header"
        put "$scratch/header" "$header_file" 0600 || :
    elif [ -e "$root$header_file" ]; then
        run rm -f -- "$root$header_file"
    fi
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
        say "$other rotates $logs already, so no other entry was added. It must not \
use copytruncate, which loses lines."
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
# /etc/logrotate.conf prefers. 13 weeks: as long as the history; sooner where a log
# grows fast. su, create: not the group that /etc/logrotate.conf may name.
"$logs"/*.log {
    su root root
    weekly
    maxsize 100M
    rotate 13
    nodateext
    compress
    delaycompress
    missingok
    notifempty
    create 0644 root root
}
TEXT
}

# --- Unit and command ------------------------------------------------------------

install_unit() {
    run mkdir -p -- "$root${unit%/*}"
    [ ! -e "$root$unit" ] || cp -p -- "$root$unit" "$scratch/old-${unit##*/}"
    sed "s|/usr/bin/python3|${python:-/usr/bin/python3}|" \
        "$source_dir/cron-trigger-server.service" >"$scratch/unit"
    put "$scratch/unit" "$unit" 0644 && changed=yes
    return 0
}

# `cron-trigger` at a prompt and in crontabs.
install_command() {
    if [ -e "$root$command" ] || [ -L "$root$command" ]; then
        is_our_command || say "$root$command is another program's: it was left alone"
        return 0
    fi
    run mkdir -p -- "$root${command%/*}"
    run ln -s "$program/cron_trigger_server.py" "$root$command"
}

is_our_command() {
    [ "$(readlink "$root$command")" = "$program/cron_trigger_server.py" ]
}

# --- The service -----------------------------------------------------------------

start_service() {
    [ -z "$root" ] || return 0
    run systemctl daemon-reload
    run systemctl --quiet enable "$service"
    if [ -z "$changed" ] && systemctl --quiet is-active "$service" && ! runs_old_files
    then
        say "nothing changed: $service was not restarted"
        return
    fi
    run systemctl restart "$service" || take_back
}

# Tell whether the service's process is older than a file that it is made from.
runs_old_files() {
    local pid
    pid=$(service_pid)
    [ -r "/proc/${pid:-0}/stat" ] || return 1
    [ -n "$(ask older "$pid" "$program" "$settings" "$unit")" ]
}

# The new version does not start: the old one has to, if there was one.
take_back() {
    local saved
    journalctl --sync || :  # what it said last may be on its way
    journalctl --no-pager --unit "$service" --lines 15 >&2 || :
    [ -n "$replaced" ] || {
        err "The service did not start; the lines above say why. Fix that, then: sudo $source_dir/install.sh"
        exit 1
    }
    exchange
    for saved in "$unit" "$settings"; do
        [ ! -e "$scratch/old-${saved##*/}" ] ||
            put "$scratch/old-${saved##*/}" "$saved" \
                "$(stat -c '%a' "$scratch/old-${saved##*/}")" >&2 || :
    done
    systemctl daemon-reload
    systemctl restart "$service" || :
    err "The new version did not start, so the old one was put back; the lines above say why. Fix that, then: sudo $source_dir/install.sh"
    exit 1
}

show_result() {
    if [ -n "$root" ]; then
        say "Installed below $root; on the host, the package has to run:" \
            "systemctl enable --now $service"
        return
    fi
    say ""
    systemctl --no-pager --lines 0 status "$service" || :
    say "" "$(address)/health answers:"
    ask health "$(address)/health" 2>/dev/null || {
        err "No answer from $(address)/health: journalctl -u $service says why."
        exit 1
    }
    # Who is let in, and what containers and a firewall need.
    say ""
    "$python" -IB "$program/cron_trigger_server.py" doctor || :
    show_secret
    show_next_command
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

show_secret() {
    local place
    place=$(secret_in_force)
    [ -z "$place" ] || say "" "Every request needs the header X-Trigger-Secret. Its value \
is in" "$place."
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
    local curl="curl -s"
    if [ -e "$header_file" ]; then
        curl="sudo curl -s -H @$header_file"
    elif [ -n "$(secret_in_force)" ]; then
        curl="curl -s -H \"X-Trigger-Secret: [the secret in $(secret_in_force)]\""
    fi
    say "" "Next, the crons that it can start:" "$curl $(address)/crons"
}

# --- Removal ---------------------------------------------------------------------

# The crons that run are left alone, and so is the folder of their locks: it goes with
# the next boot, and an installation before that finds them again.
remove_service() {
    if is_installed; then
        run systemctl --quiet disable --now "$service"
    fi
    run rm -f -- "$unit" "$rotation"
    ! is_our_command || run rm -f -- "$command"
    [ -n "$dry_run" ] || forget_stages
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

# The log folder may hold other programs' logs: only those of the registry's crons go.
remove_logs() {
    local path
    [ ! -e "$config/crons.json" ] || [ -r "$config/crons.json" ] ||
        say "can't tell the crons' logs: only root can read $config/crons.json"
    ask logs "$logs" "$config/crons.json" | while IFS= read -r path; do
        run rm -f -- "$path"
    done
    [ ! -d "$logs" ] || run rmdir --ignore-fail-on-non-empty -- "$logs"
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
