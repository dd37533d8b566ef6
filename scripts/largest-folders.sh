#!/bin/sh
# Show what fills a file system: its largest folders, each with all that it contains.
#
# Call: largest-folders.sh [FOLDER [COUNT]]
#   FOLDER  where to begin, an absolute path (/); other file systems mounted below it
#           are not entered
#   COUNT   how many folders to show, 1 to 1000 (20)
#
# Settings, by environment:
#   LARGEST_FOLDERS_DEPTH  how far below FOLDER, 1 to 20 (4)
#
# Only reads, and writes no temporary file: it works on a full disk.
# Exit status: 0 done, 1 nothing could be measured, 64 wrong call, 78 a setting that
# does not hold.

set -eu
LC_ALL=C
export LC_ALL

fail() { # fail STATUS SENTENCE
    printf 'largest-folders : %s\n' "$2" >&2
    exit "$1"
}

is_number() { # is_number TEXT MAXIMUM
    case $1 in
        '' | *[!0-9]* | 0* | ?????*) return 1 ;;
    esac
    [ "$1" -le "$2" ]
}

# Reads du's lines, largest first, then its errors, which sort as 0.
report() {
    sort -rn | awk -v count="$1" '
        function human(kib) {
            if (kib >= 1048576) return sprintf("%.1f Gio", kib / 1048576)
            if (kib >= 1024) return sprintf("%.1f Mio", kib / 1024)
            return kib " Kio"
        }
        /^[0-9]+\t/ {
            if (++shown > count) next
            size = human($1)
            sub(/^[0-9]+\t/, "")
            gsub(/[[:cntrl:]]/, "?")
            printf "%12s  %s\n", size, $0
            next
        }
        /^du: / { unreadable++ }
        END {
            if (unreadable)
                print unreadable " élément(s) illisible(s), non compté(s) ; " \
                    "relancez en root pour tout voir."
            exit shown ? 0 : 1
        }'
}

main() {
    [ $# -le 2 ] || fail 64 'Appel : largest-folders.sh [DOSSIER [NOMBRE]]'
    folder=${1:-/} count=${2:-20} depth=${LARGEST_FOLDERS_DEPTH:-4}
    is_number "$count" 1000 || fail 64 'NOMBRE est un entier de 1 à 1000.'
    is_number "$depth" 20 ||
        fail 78 'LARGEST_FOLDERS_DEPTH doit être un entier de 1 à 20.'
    case $folder in
        /*) ;;
        *) fail 64 'DOSSIER est un chemin absolu, par exemple /var.' ;;
    esac
    [ -d "$folder" ] || fail 64 "DOSSIER n'est pas un dossier de cette machine."
    # With a relative "." it is the folder itself, even where its name was a link.
    cd -P "$folder" 2>/dev/null ||
        fail 1 "Ce dossier n'est pas accessible : relancez en root."
    here=$(pwd -P)
    printf 'Dossiers les plus volumineux sous %s\n' "$(printf %s "$here" | tr -d '[:cntrl:]')"
    df -kP . | awk 'NR == 2 {
        printf "Système de fichiers : %s occupés, %.1f Gio libres\n", $5, $4 / 1048576
    }'
    nice du -xk -d "$depth" "$here" 2>&1 | report "$count" ||
        fail 1 "Aucun dossier n'a pu être mesuré."
}

main "$@"
