# swanlock's completions for bash. Where they offer nothing, bash completes file
# names: targets are often paths.

_swanlock() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} i words=
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        words='run key ls audit kill doctor migrate serve dev demo verify completion version help --help --version'
    else
        case ${COMP_WORDS[1]} in
        run)
            # Past "TARGET --" the command's own completions apply.
            for ((i = 3; i < COMP_CWORD; i++)); do
                if [[ ${COMP_WORDS[i]} == -- ]]; then
                    if ((i + 1 == COMP_CWORD)); then
                        COMPREPLY=($(compgen -c -- "$cur"))
                    elif declare -F _command_offset >/dev/null; then
                        _command_offset $((i + 1))
                    fi
                    return
                fi
            done
            case $prev in
            --dir)
                COMPREPLY=($(compgen -d -- "$cur"))
                return
                ;;
            --ttl | --timeout | --grace | --owner | -E | --conflict-exit-code) return ;;
            esac
            if [[ $cur == -* ]]; then
                words='--wait --timeout --ttl --grace --at-least --shared --fence --audit --owner -E --conflict-exit-code --poll --detach --quiet --file --dir --help --'
            fi
            ;;
        verify)
            case $prev in
            --faults) words='all none kill stop terminate cut restart cancel' ;;
            --dsn | --duration | --workers | --seed | --out) return ;;
            *) words='--embedded --dsn --duration --workers --faults --seed --json --out --help' ;;
            esac
            ;;
        serve)
            case $prev in
            --listen | --host) return ;;
            --token-file) ;;
            *) words='--listen --token-file --host --help' ;;
            esac
            ;;
        ls)
            case $prev in
            --target | --interval) return ;;
            esac
            words='--target --json --watch --interval --help'
            ;;
        audit)
            case $prev in
            --target | --owner | --since | --until | --at | --limit | --older-than) return ;;
            esac
            words='--target --owner --since --until --at --limit --json --csv --help'
            if ((COMP_CWORD == 2)); then
                words="prune $words"
            elif [[ ${COMP_WORDS[2]} == prune ]]; then
                words='--older-than --help'
            fi
            ;;
        kill)
            [[ $prev == --by ]] && return
            [[ $cur == -* ]] && words='--yes --by --target --help'
            ;;
        doctor) words='--json --verbose --help' ;;
        migrate) words='up down status print --help' ;;
        completion) words='bash zsh fish --help' ;;
        help) words='run key ls audit kill doctor migrate serve dev demo verify completion' ;;
        key | dev | demo) words='--help' ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$cur"))
}
complete -o default -F _swanlock swanlock
