"""`completion`: what bash and zsh complete.

source <(cron-trigger completion bash)
"""

from __future__ import annotations

import argparse

BASH = r"""# cron-trigger: source <(cron-trigger completion bash)
_cron_trigger() {
    local word=${COMP_WORDS[COMP_CWORD]} command=${COMP_WORDS[1]} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="COMMANDS"
    elif [ "${word:0:1}" = - ]; then
        words=$("${COMP_WORDS[0]}" "$command" --help 2>/dev/null |
            grep -Eo -- '(^|[ ,])--[a-z][a-z-]*' | tr -d ' ,' | sort -u)
    else
        case $command in
            run | trigger | history)
                words=$("${COMP_WORDS[0]}" list 2>/dev/null |
                    awk 'NR > 1 {print $1}') ;;
            log | cancel)
                words=$("${COMP_WORDS[0]}" history 2>/dev/null |
                    awk 'NR > 1 {print $1}') ;;
            help) words="COMMANDS" ;;
            completion) words="bash zsh" ;;
        esac
    fi
    mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}
complete -o default -F _cron_trigger cron-trigger
"""
ZSH = "autoload -Uz bashcompinit && bashcompinit\n"


def command(options: argparse.Namespace) -> int:
    text = BASH.replace("COMMANDS", " ".join(options.commands))
    if options.shell == "zsh":
        # zsh's bashcompinit has no mapfile.
        text = ZSH + text.replace(
            'mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")',
            'COMPREPLY=($(compgen -W "$words" -- "$word"))',
        )
    print(text, end="")
    return 0
