#!/bin/sh
# Dispatch a parameterized batch job of Nomad: its output comes as it is written, its
# task's exit status is this script's, and a cancel stops it.
#
# NOT RUN BY THE TESTS: no such API was at hand.  Try it with a harmless job first.
#
# Call: nomad-run.sh JOB [KEY=VALUE…]
#   KEY=VALUE  a value of the job's meta.  Address and token: NOMAD_ADDR, NOMAD_TOKEN, …
#   Have one group with one task in the job, restart { attempts = 0 } and
#   reschedule { attempts = 0 }: one run is one allocation.
#
# The registry's entry:
#   "encode": {
#     "description": "Encode a film, wherever there is room",
#     "command": ["/opt/engines/nomad-run.sh", "encode", "film={film}"],
#     "parameters": {"film": {"type": "string", "pattern": "^[a-z0-9-]+$", "required": true}},
#     "environment": {"NOMAD_ADDR": "http://10.0.0.5:4646"},
#     "timeout": "6h"
#   }
# killAfter (10 s) is longer than the task's kill_timeout (5 s).
#
# How: nomad may be ended by the same SIGTERM as this script, so what it was asked is asked
# again.  The idempotency token makes a second dispatch answer with the first one's job.
# Where this script is killed without a SIGTERM, the job runs on.
# Exit status: the task's; 1 where it has none, 143 cancelled.

set -u

dispatch() { # dispatch JOB [-meta=KEY=VALUE…]
    parameterized=$1
    shift
    nomad job dispatch -detach -idempotency-token="$token" "$@" "$parameterized" \
        | sed -n 's/^Dispatched Job ID *= *//p'
}

allocation() {
    nomad job allocs -t '{{range .}}{{.ID}}{{"\n"}}{{end}}' "$job" 2>/dev/null | head -n 1
}

ended() {
    case $(nomad alloc status -t '{{.ClientStatus}}' "$alloc") in
        complete | failed | lost) return 0 ;;
        *) return 1 ;;
    esac
}

exit_status() {
    nomad alloc status -t '{{range .TaskStates}}{{range .Events}}{{if eq .Type "Terminated"
        }}{{.ExitCode}}{{"\n"}}{{end}}{{end}}{{end}}' "$alloc" | tail -n 1
}

cancel() {
    trap '' HUP INT TERM
    for _ in 1 2 3; do
        nomad job stop "$job" && break
        sleep 1
    done
    until [ -z "$alloc" ] || ended; do sleep 1; done
    exit 143
}

main() {
    [ $# -ge 1 ] || { echo 'Call: nomad-run.sh JOB [KEY=VALUE…]' >&2; exit 64; }
    parameterized=$1 alloc=
    shift
    for pair in "$@"; do set -- "$@" "-meta=$pair"; shift; done
    token="${CRON_NAME:-by-hand}-$(uname -n)-${CRON_RUN_ID:-$$}-$(date +%s)"
    # Told to end in the midst of it: the second answer has the job's name for sure.
    trap 'told=1' HUP INT TERM
    told=
    job=$(dispatch "$parameterized" "$@")
    [ -n "$job" ] || job=$(dispatch "$parameterized" "$@")
    [ -n "$job" ] || exit 1
    trap cancel HUP INT TERM
    [ -z "$told" ] || cancel
    until alloc=$(allocation) && [ -n "$alloc" ]; do sleep 1; done
    nomad alloc logs -f "$alloc" &
    logs=$!
    until ended; do sleep 2; done
    # The last lines may be on their way; a follower does not end by itself.
    sleep 2
    kill "$logs" 2>/dev/null
    status=$(exit_status)
    exit "${status:-1}"
}

main "$@"
