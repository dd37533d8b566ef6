#!/bin/sh
# Run a command in a Slurm cluster: its output comes at once, its exit status is this
# script's, and a cancel ends the job.
#
# Call: slurm-run.sh COMMAND [ARGUMENT…]
#   All that srun's options say, its variables say as well: SLURM_PARTITION,
#   SLURM_CPUS_PER_TASK, SLURM_MEM_PER_NODE, SLURM_TIMELIMIT, … (man srun)
#
# The registry's entry:
#   "train": {
#     "description": "Train the model, in the cluster",
#     "command": ["/opt/engines/slurm-run.sh", "train.sh", "{epochs}"],
#     "parameters": {"epochs": {"type": "integer", "minimum": 1, "default": 10}},
#     "environment": {"SLURM_PARTITION": "gpu"},
#     "timeout": "12h",
#     "killAfter": "45s"
#   }
# killAfter is longer than KillWait of slurm.conf (30 s), which Slurm leaves to a job
# between SIGTERM and SIGKILL, so that the run ends after the job.
#
# How: srun itself answers SIGTERM by SIGKILL for the job, at once.  So it is started
# apart, where a cancel of the run's family does not find it, with a watcher that asks
# Slurm to end the job when this script is told to end, or is gone.
# The job is named NAME@HOST, and waits for one of that name that is still there
# (--dependency=singleton): a host that went down leaves its job behind.
# Exit status: the command's; 1 where it was cancelled before it ran, 64 a wrong call.

set -u

# Runs apart.  Standard input ends with the script; the status goes to descriptor 4.
# shellcheck disable=SC2016
apart='
job=$1 run=$2
shift 2
exec 3<&0
srun --job-name="$job" --comment="$run" --dependency=singleton --input=none "$@" \
    3<&- 4>&- &
srun=$!
(
    read -r _ <&3
    trap "" TERM
    ours() { # by the run, since the next one has a job of the same name
        squeue -h --name="$job" --user="$(id -un)" -o "%k %i" | sed -n "s/^$run //p"
    }
    # Again and again: the job may not be in the queue yet, Slurm may not answer, and
    # srun gives up before the last process of a job that heeds no SIGTERM has ended.
    while ids=$(ours); [ -n "$ids" ] || kill -0 "$srun"; do
        [ -z "$ids" ] || scancel --quiet $ids
        sleep 1
    done
) >/dev/null 2>&1 4>&- &
watcher=$!
wait "$srun"
status=$?
kill "$watcher" 2>/dev/null
# 0 from a watcher that was not killed: cancelled.  srun may then have no status.
wait "$watcher" 2>/dev/null && [ "$status" = 0 ] && status=143
echo "$status" >&4
'

main() {
    [ $# -ge 1 ] || { echo 'Call: slurm-run.sh COMMAND [ARGUMENT…]' >&2; exit 64; }
    folder=$(mktemp -d) && mkfifo "$folder/alive" "$folder/status" || exit 1
    # Both read and written, so that opening does not wait for the other side.
    exec 3<>"$folder/alive" 4<>"$folder/status"
    setsid --fork sh -c "$apart" slurm-run "${CRON_NAME:-by-hand}@$(uname -n)" \
        "${CRON_RUN_ID:-0}-$$" "$@" <"$folder/alive" 3>&-
    rm -r "$folder"
    # Nobody but this script writes to 3: closed or gone, the watcher reads the end.
    trap 'exec 3>&-' HUP INT TERM
    until read -r status <&4; do :; done
    exit "$status"
}

main "$@"
