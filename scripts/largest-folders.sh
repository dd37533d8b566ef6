#!/bin/sh
# Show what fills a file system: its largest folders, each with all that it contains.
# Only reads, and writes no temporary file: it works on a full disk.
#
# Call: largest-folders.sh [FOLDER [COUNT]]
#   FOLDER  where to begin, an absolute path (/); other file systems are not entered
#   COUNT   how many folders to show, 1 to 9999 (20)
#
# Settings, by environment:
#   LARGEST_FOLDERS_DEPTH  how far below FOLDER, 1 to 99 (4)
#
# Exit status: 0 done, 1 not all could be measured, 64 wrong call, 78 invalid setting,
# or a tool is missing.

set -u
export LC_ALL=C # du's own words for what went wrong

fail() { # fail STATUS SENTENCE
    printf 'largest-folders : %s\n' "$2" >&2
    exit "$1"
}

main() {
    folder=${1:-/} count=${2:-20} depth=${LARGEST_FOLDERS_DEPTH:-4}
    case $folder in /*) ;; *) fail 64 'DOSSIER est un chemin absolu, comme /var.' ;; esac
    [ -d "$folder" ] || fail 64 "DOSSIER n'est pas un dossier de cette machine."
    case $count in '' | *[!0-9]* | 0* | ?????*) fail 64 'NOMBRE va de 1 à 9999.' ;; esac
    case $depth in '' | *[!0-9]* | 0* | ???*) fail 78 'LARGEST_FOLDERS_DEPTH : 1 à 99.' ;; esac
    command -v du >/dev/null || fail 78 'Il faut la commande du (coreutils).'
    df -h "$folder"
    # All in memory. No control characters: they could drive a terminal.
    found=$(nice du -H -x -h -d "$depth" "$folder" 2>&1)
    printf '%s\n' "$found" | grep -v '^du: ' | sort -rh | head -n "$count" |
        tr -d '\000-\010\013-\037\177' || fail 1 "La liste n'a pas pu être écrite."
    # What went away meanwhile is no fault.
    missed=$(printf '%s\n' "$found" | grep '^du: ' | grep -vc 'No such file')
    [ "$missed" = 0 ] || fail 1 "$missed dossier(s) illisible(s), non compté(s)."
}

main "$@"
