#compdef swanlock
# swanlock's completions for zsh.

_swanlock() {
    local -a commands
    commands=(
        'run:run a command while holding a lock'
        'key:print the advisory key of a target'
        'ls:list who holds what, and who waits'
        'audit:show who held what and when'
        'kill:end the session that holds a lock'
        'doctor:check a server for use with swanlock'
        'migrate:create the audit table, or remove it'
        'serve:a web page of who holds what and who waits'
        'dev:start a throw-away PostgreSQL'
        'demo:prove on this machine that the locks work'
        'verify:try to break the locks, and check what happened'
        'completion:print the completions for a shell'
        'version:print the version'
        'help:tell about a command'
    )
    if ((CURRENT == 2)); then
        _describe command commands
        return
    fi
    case $words[2] in
    run)
        local i
        for ((i = 4; i < CURRENT; i++)); do
            if [[ $words[i] == -- ]]; then
                ((CURRENT -= i))
                words=("${(@)words[i+1,-1]}")
                _normal
                return
            fi
        done
        ((CURRENT--))
        shift words
        _arguments \
            '--wait[wait for as long as it takes]' \
            '--timeout[wait for this long at most]:duration:' \
            '--poll[ask from time to time instead of waiting in the server]' \
            '--ttl[the lease of the lock]:duration:' \
            '--grace[from SIGTERM to SIGKILL when the lock is lost]:duration:' \
            '--shared[lock as a reader]' \
            '--fence[get a number that rises with every holder]' \
            '--audit[write a row of lock_audit]' \
            '--owner[name of the holder]:owner:' \
            '(-E --conflict-exit-code)'{-E,--conflict-exit-code}'[exit code if held elsewhere]:code:' \
            '--at-least[keep the lock for that long, even if the command takes less]:duration:' \
            '--file[lock a file, without a server]' \
            '--dir[the folder for the files of --file]:folder:_files -/' \
            '--detach[free the lock when the command itself has ended]' \
            '--quiet[say nothing if the lock is held elsewhere]' \
            '--help[tell about run]' \
            '1:target:_files' '2:separator:(--)'
        ;;
    verify)
        ((CURRENT--))
        shift words
        _arguments \
            '--embedded[a throw-away server of its own]' \
            '--dsn[a server that is not in production]:connection string:' \
            '--duration[how long to try]:duration:' \
            '--workers[how many processes]:number:' \
            '--faults[what is done to them]:faults:_values -s , fault all none kill stop terminate cut restart cancel' \
            '--seed[what to try, again]:number:' \
            '--json[the report as JSON]' \
            '--out[where the history goes]:folder:_files -/' \
            '--help[tell about verify]'
        ;;
    serve)
        ((CURRENT--))
        shift words
        _arguments \
            '--listen[address and port]:address:' \
            '--token-file[file of the token]:file:_files' \
            '*--host[name under which the page is reached]:host:_hosts' \
            '--help[tell about serve]'
        ;;
    ls)
        ((CURRENT--))
        shift words
        _arguments \
            '--target[only those targets]:pattern:' \
            '--json[everything, as JSON]' \
            '--watch[look again and again]' \
            '--interval[how often to look]:duration:' \
            '--help[tell about ls]'
        ;;
    audit)
        ((CURRENT--))
        shift words
        if [[ $words[2] == prune ]]; then
            _arguments '--older-than[what ended longer ago]:duration:' '--help[tell about audit]' '1:command:(prune)'
            return
        fi
        _arguments \
            '--target[only those targets]:pattern:' \
            '--owner[only those owners]:pattern:' \
            '--since[only holds that began then or later]:time:' \
            '--until[only holds that began before]:time:' \
            '--at[what was held at that moment]:time:' \
            '--limit[at most that many]:number:' \
            '(--csv)--json[everything, as JSON]' \
            '(--json)--csv[everything, as CSV]' \
            '--help[tell about audit]' \
            '1:command:(prune)'
        ;;
    kill)
        ((CURRENT--))
        shift words
        _arguments \
            '--yes[do not ask]' \
            '--by[who does it, for the audit]:name:' \
            '--target[the argument is a target, not a PID]' \
            '--help[tell about kill]' \
            '1:target:_files'
        ;;
    doctor) _arguments '--json[everything, as JSON]' '--verbose[the why of what is ok, too]' '--help[tell about doctor]' ;;
    migrate) ((CURRENT == 3)) && _values command up down status print ;;
    completion) ((CURRENT == 3)) && _values shell bash zsh fish ;;
    help) ((CURRENT == 3)) && _values command run key ls audit kill doctor migrate serve dev demo verify completion ;;
    key) ((CURRENT == 3)) && _files ;;
    esac
}
compdef _swanlock swanlock
