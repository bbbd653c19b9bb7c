# swanlock's completions for fish.

complete -c swanlock -f
complete -c swanlock -n __fish_use_subcommand -a run -d 'Run a command while holding a lock'
complete -c swanlock -n __fish_use_subcommand -a key -d 'Print the advisory key of a target'
complete -c swanlock -n __fish_use_subcommand -a migrate -d 'Create the audit table, or remove it'
complete -c swanlock -n __fish_use_subcommand -a dev -d 'Start a throw-away PostgreSQL'
complete -c swanlock -n __fish_use_subcommand -a demo -d 'Prove on this machine that the locks work'
complete -c swanlock -n __fish_use_subcommand -a completion -d 'Print the completions for a shell'
complete -c swanlock -n __fish_use_subcommand -a version -d 'Print the version'
complete -c swanlock -n __fish_use_subcommand -a help -d 'Tell about a command'
complete -c swanlock -l help -d 'Tell about the command'
complete -c swanlock -n '__fish_seen_subcommand_from run' -F
complete -c swanlock -n '__fish_seen_subcommand_from run' -l wait -d 'Wait for as long as it takes'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l timeout -x -d 'Wait for this long at most'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l ttl -x -d 'The lease of the lock'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l grace -x -d 'From SIGTERM to SIGKILL when the lock is lost'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l shared -d 'Lock as a reader'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l fence -d 'Get a number that rises with every holder'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l audit -d 'Write a row of lock_audit'
complete -c swanlock -n '__fish_seen_subcommand_from run' -l owner -x -d 'Name of the holder'
complete -c swanlock -n '__fish_seen_subcommand_from run' -s E -l conflict-exit-code -x -d 'Exit code if held elsewhere'
complete -c swanlock -n '__fish_seen_subcommand_from key' -F
complete -c swanlock -n '__fish_seen_subcommand_from migrate' -a 'up down status print'
complete -c swanlock -n '__fish_seen_subcommand_from completion' -a 'bash zsh fish'
complete -c swanlock -n '__fish_seen_subcommand_from help' -a 'run key migrate dev demo completion'
