#!/bin/sh
# Run a CronJob of Kubernetes now: its pod's log comes as it is written, the container's
# exit status is this script's, and a cancel deletes the job with its pod.
#
# NOT RUN BY THE TESTS: no such API was at hand.  Try it with a harmless CronJob first.
#
# Call: kubernetes-run.sh CRONJOB
#   Cluster and namespace are those of kubectl's context (KUBECONFIG).  Have in the CronJob:
#   backoffLimit 0 and restartPolicy Never: one run is one pod; ttlSecondsAfterFinished, so
#   that finished jobs go; concurrencyPolicy says nothing about the jobs made here.
#
# The registry's entry:
#   "report": {
#     "description": "The report, in the cluster",
#     "command": ["/opt/engines/kubernetes-run.sh", "report"],
#     "environment": {"KUBECONFIG": "/etc/cron-trigger-server/kubeconfig"},
#     "timeout": "2h",
#     "killAfter": "45s"
#   }
# killAfter is longer than the pod's terminationGracePeriodSeconds (30).
#
# How: kubectl may be ended by the same SIGTERM as this script, so a deletion is tried
# again, and waits until the pod has gone.  Where this script is killed without a SIGTERM,
# the job runs on; its activeDeadlineSeconds is then what ends it.
# Where the connection to the API breaks, the log is printed again from its beginning.
# Exit status: the container's; 1 where it has none (evicted, deadline), 143 cancelled.

set -u

# A name of the run's own, as Kubernetes wants it: of all hosts, at most 63 characters.
job_name() {
    name=$(printf %.25s "${CRON_NAME:-by-hand}")
    host=$(printf %.20s "$(uname -n)")
    printf 'c-%s-%s-%s' "$name" "$host" "${CRON_RUN_ID:-$$}" | tr 'A-Z_.' 'a-z--'
}

# shellcheck disable=SC2317  # the traps call it
cancel() {
    trap '' HUP INT TERM
    for _ in 1 2 3; do
        kubectl delete job "$job" --cascade=foreground --ignore-not-found && exit 143
        sleep 1
    done
    echo "kubernetes-run: the job $job could not be deleted; it may still run." >&2
    exit 1
}

ended() {
    ends=$(kubectl get job "$job" \
        -o 'jsonpath={.status.conditions[?(@.status=="True")].type}') || return 1
    case " $ends " in
        *' Complete '* | *' Failed '*) return 0 ;;
        *) return 1 ;;
    esac
}

main() {
    [ $# -eq 1 ] || { echo 'Call: kubernetes-run.sh CRONJOB' >&2; exit 64; }
    job=$(job_name)
    kubectl create job "$job" --from="cronjob/$1" || exit 1
    trap cancel HUP INT TERM
    # Fails for as long as the container waits for its start.
    until kubectl logs --follow "job/$job" 2>/dev/null || ended; do sleep 2; done
    until ended; do sleep 2; done
    status=$(kubectl get pods --selector="job-name=$job" -o \
        'jsonpath={.items[-1:].status.containerStatuses[0].state.terminated.exitCode}')
    case " $ends " in *' Failed '*) [ "${status:-0}" != 0 ] || status=1 ;; esac
    exit "${status:-1}"
}

main "$@"
