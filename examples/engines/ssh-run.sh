#!/bin/sh
# Run a command on another host: its output comes at once, its exit status is this
# script's, and a cancel ends it there, with all that it started.
#
# Call: ssh-run.sh HOST COMMAND [ARGUMENT…]
#   HOST  as ssh knows it; port, user and key stand in the ~/.ssh/config of the cron's user,
#         the host's key in known_hosts: nobody is there to be asked
#
# Settings, by environment:
#   SSH_RUN_CONFIG      another configuration file for ssh
#   SSH_RUN_KILL_AFTER  seconds from SIGTERM to SIGKILL there (5); have it shorter than
#                       the entry's killAfter, so that the run ends after the work
#   SSH_RUN_LOST_AFTER  seconds of silence after which the work there is ended (30);
#                       this side gives up after three times as long
#
# The registry's entry:
#   "reports": {
#     "description": "Monthly reports, on the host for them",
#     "command": ["/opt/engines/ssh-run.sh", "reports.example.org", "make-reports", "{month}"],
#     "parameters": {"month": {"type": "string", "format": "date", "required": true}},
#     "timeout": "2h"
#   }
#
# How: without a terminal no signal crosses ssh.  Instead the other side reads a pulse,
# and ends the work when the pulse ends: cancelled, killed or disconnected alike.  ssh
# itself ignores SIGTERM, so that it stays until the work has ended.  CRON_* variables go
# through the pulse as well, since a password on a command line would show in ps.
# The other side needs sh, ps, awk, setsid and timeout (Debian: procps, util-linux).
# Exit status: the command's; 255 where ssh failed, 64 a wrong call.

set -u

remote=$(cat <<'REMOTE'
kill_after=$1 lost_after=$2
shift 2
while IFS= read -r pair || exit 143; [ -n "$pair" ]; do export "$pair"; done
exec 3<&0
setsid "$@" </dev/null 3<&- &
job=$!
# Print each living process of the job, and its session: who is in one of the sessions
# that are known, and all their descendants.  Sessions are remembered, since a process
# that starts another and is killed at that moment leaves one without a parent.
family() {
    ps -A -o pid= -o ppid= -o sess= -o stat= | awk -v known="$sessions" '
        BEGIN { split(known, list); for (i in list) ours[list[i]] }
        $4 !~ /Z/ { parent[$1] = $2; session[$1] = $3; if ($3 in ours) member[$1] }
        END {
            do {
                grown = 0
                for (pid in parent) if (!(pid in member) && parent[pid] in member) {
                    member[pid]; grown = 1
                }
            } while (grown)
            for (pid in member) print pid, session[pid]
        }'
}
end_job() {
    trap '' TERM
    sessions=$job left=$((kill_after * 5)) signal=TERM
    while found=$(family); [ -n "$found" ]; do
        sessions=$(printf '%s\n' $sessions $(echo "$found" | cut -d' ' -f2) | sort -u)
        sessions=$(echo $sessions)
        [ "$left" -gt 0 ] || signal=KILL
        [ -z "$signal" ] || kill -"$signal" $(echo "$found" | cut -d' ' -f1)
        signal= left=$((left - 1))
        sleep 0.2
    done
}
(
    while [ -n "$(timeout "$lost_after" dd bs=512 count=1 <&3)" ]; do :; done
    end_job
) >/dev/null 2>&1 &
watcher=$!
wait "$job"
status=$?
kill "$watcher"
wait "$watcher" 2>/dev/null
exit "$status"
REMOTE
)

# Print the arguments as words of a shell.
quoted() {
    for word in "$@"; do
        printf "'%s' " "$(printf '%s\n' "$word" | sed "s/'/'\\\\''/g")"
    done
}

# Send the variables, then a sign of life for as long as this script lives.
pulse() {
    env | grep '^CRON_[A-Za-z0-9_]*='
    echo
    while kill -0 "$$" && printf .; do
        sleep "$1" >/dev/null
    done 2>/dev/null
}

main() {
    [ $# -ge 2 ] || { echo 'Call: ssh-run.sh HOST COMMAND [ARGUMENT…]' >&2; exit 64; }
    kill_after=${SSH_RUN_KILL_AFTER:-5} lost_after=${SSH_RUN_LOST_AFTER:-30} host=$1
    shift
    folder=$(mktemp -d) && mkfifo "$folder/pulse" || exit 1
    trap : HUP INT TERM
    pulse "$(((lost_after + 2) / 3))" >"$folder/pulse" &
    pulse=$!
    (
        exec <"$folder/pulse"
        rm -r "$folder"
        trap '' HUP INT TERM
        exec ssh -T ${SSH_RUN_CONFIG:+-F "$SSH_RUN_CONFIG"} -o BatchMode=yes \
            -o ControlMaster=no -o ControlPath=none -o ConnectTimeout="$lost_after" \
            -o ServerAliveInterval="$lost_after" -o ServerAliveCountMax=3 "$host" \
            "exec sh -c $(quoted "$remote" ssh-run "$kill_after" "$lost_after" "$@")"
    )
    status=$?
    kill "$pulse" 2>/dev/null
    [ "$status" != 255 ] || echo "ssh-run: no connection to $host, or lost;" \
        "what ran there is ended after $lost_after s without one." >&2
    exit "$status"
}

main "$@"
