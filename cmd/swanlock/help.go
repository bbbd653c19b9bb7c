package main

const mainHelp = `swanlock runs a command while it holds a lock that only one process on all your
hosts can hold. The lock is an advisory lock of your PostgreSQL server.

  swanlock run nightly -- ./report.sh

Without any server, where all processes see the same files:

  swanlock run --file nightly -- ./report.sh

Try it without a server of your own:

  swanlock demo      real processes, a real PostgreSQL: watch them exclude each other
  swanlock dev       a local PostgreSQL to play with, gone on Ctrl-C

Commands:
  run          run a command while holding a lock
  key          print the advisory key of a target
  ls           list who holds what, and who waits
  audit        show who held what and when; prune: delete what is old
  kill         end the session that holds a lock
  doctor       check a server for use with swanlock
  migrate      create the audit table, or remove it: up, down, status, print
  serve        a web page: who holds what, who waits, who held it before
  dev          start a throw-away PostgreSQL and print how to use it
  demo         prove on this machine that the locks work
  verify       try to break the locks, and check what happened
  completion   print the completions for bash, zsh or fish
  version      print the version
  help         as in: swanlock help run

The server is the one that SWANLAKE_LOCK_POSTGRES_CONNECTION names (a URL, or
"host=db user=app ..."), else PGCONNECTION, else PGHOST, PGPORT, PGUSER,
PGDATABASE, PGPASSWORD and the rest, as psql reads them. swanlock connects to it
with the pgx driver. Behind PgBouncer, use session mode.

Errors are one line on stderr. Exit codes: swanlock run --help.
`

const runHelp = `Usage: swanlock run [flags] TARGET -- CMD [ARG...]

Takes the lock on TARGET, runs CMD, and exits with CMD's own exit code. If the
lock is held elsewhere, CMD is not run.

  swanlock run nightly -- ./report.sh                      one try
  swanlock run --timeout 5m nightly -- ./report.sh         wait for 5 minutes at most
  swanlock run --once-every 20h nightly -- ./report.sh     once a night
  swanlock run --shared catalog -- ./read.sh               together with other readers
  swanlock run --fence /lake/t1 -- sh -c './write --fence "$SWANLOCK_FENCE"'

TARGET is a path or any other name, the same on every host; SwanLake locks its
files under the same names. A target that starts with - needs a -- before it.

Flags, all before TARGET:
  --wait            wait for the lock for as long as it takes
  --timeout D       wait for D at most, connecting to the server included; without
                    either there is one try
  --poll            wait without a session of the server: ask from time to time, up
                    to a quarter of a second late. For very long waits
  -E, --conflict-exit-code N
                    exit with N if the lock is held elsewhere (default 1); -E 0
                    also says nothing then
  --quiet           do not say that the lock is held elsewhere, nor that something
                    outlives CMD; errors are still printed
  --shared          lock as a reader: excludes only those without --shared
  --ttl D           the lock's lease (default 30s, 0: none). Refreshed all the time;
                    if this host hangs or loses its network, the lock is free
                    when D has passed since the last refresh
  --grace D         time from SIGTERM to SIGKILL when the lock is lost, or for what
                    CMD leaves running after SIGTERM (default 10s)
  --at-least D      keep the lock for D, even if CMD takes less: then hosts whose
                    clocks differ do not run a short job one after the other.
                    swanlock stays until then; a signal that would end CMD, or the
                    end of swanlock, frees the lock sooner
  --once-every D    do not run CMD if it succeeded less than D ago, on any host. What
                    counts is when it ended, by the server's clock: for a nightly
                    job D is 20h, not 24h. A CMD that failed, was killed or lost its
                    lock, or a swanlock that crashed, has not succeeded, and the next
                    attempt runs it. Turns --audit on, which remembers it; audit
                    prune forgets it. A CMD that succeeded in the moment of a crash
                    may be run again
  --file            lock a file, not a server: excludes those with --file alone. A
                    TARGET that begins with / is a path; the lock of /lake/q.db is
                    /lake/q.db.lock, which SwanLake's own processes exclude as well
                    (--ttl 10m at most). Any other is a name in the folder of --dir
  --dir D           the folder for the files of --file, for TARGETs with a / as well,
                    on a shared file system for several hosts (default: for this
                    user, on this host, /tmp/swanlock-UID, made if need be). D must exist
  --detach          free the lock when CMD itself ends, whatever it left running
  --fence           get a number that rises with every holder, in SWANLOCK_FENCE
  --audit           write a row of lock_audit (first: swanlock migrate up)
  --owner S         the holder's name in the audit (default: host/pid)
Durations are like 500ms, 30s, 5m or 1h30m.

CMD has swanlock's stdin, stdout and stderr, and in its environment
  SWANLOCK_TARGET   TARGET
  SWANLOCK_KEY      its advisory key: what swanlock key prints
  SWANLOCK_FENCE    the fence, if there is one

Signals: SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1 and SIGUSR2 are passed on to
CMD, on Linux a fifth of a second later. In a terminal, Ctrl-C and Ctrl-\ reach
CMD by themselves and are not passed on again. Without a terminal CMD leads a
process group of its own, and SIGINT, SIGQUIT and SIGTERM go to the whole group. On
Linux a signal to every process of a unit or container (systemctl stop) is not
passed on either: CMD has it.

What CMD starts: as long as any of it runs, the lock is kept, or it is killed.
  Linux       Everything that CMD started counts: in the background, in sessions of
              its own, as another user. swanlock keeps the lock until all of it has
              ended. After SIGINT, SIGQUIT or SIGTERM, what outlives CMD gets SIGTERM
              and, after the grace, SIGKILL. If swanlock is killed, even by kill -9,
              its second process, run-supervisor, kills all of it before the server
              frees the lock. If that process is killed, swanlock does it. If both
              are killed at the same time, CMD itself dies, but not what it started.
              As pid 1, swanlock reaps orphans.
              A process that becomes root, or another user that swanlock may not
              signal (sudo), cannot be killed: a line on stderr says so, and the lock
              is kept until that process ends. If swanlock is killed then, the lock
              lasts until its TTL ends.
              What a daemon starts for CMD (docker run, systemd-run, at) is not CMD's.
  elsewhere   The lock ends with CMD. What ends CMD ends its process group, if there
              is no terminal. If swanlock is killed by kill -9, CMD goes on.
With --detach only CMD and, without a terminal, its process group are killed, and
what outlives CMD has no lock.

Loss: if the server ends the lock's session, or is restarted, or somebody removes the
lock's file, CMD gets SIGTERM within 3 seconds and SIGKILL after the grace. If no
refresh gets through, CMD gets SIGTERM while the lock is still held, and SIGKILL one
grace later, shortly before the TTL ends: before anybody else can hold the lock. With
a TTL the grace is a third of it at most. While swanlock itself is stopped (Ctrl-Z)
it can do none of this: pass the fence to what CMD writes to, and let that refuse a
lower one.

Exit codes:
  CMD's own   CMD ran, and held the lock all the time
  1, or -E    the lock is held elsewhere; CMD was not run
  64          the arguments are wrong
  69          the server or the file cannot be reached, or refuses the lock; CMD was
              not run
  75          the lock was lost while CMD ran
  78          no server is configured, or --audit has no table, or --file no folder;
              CMD was not run
  79          CMD succeeded less than --once-every ago; it was not run
  126, 127    CMD cannot be run; CMD was not found
  128+N       signal N ended CMD, or swanlock before it ran CMD
`

const migrateHelp = `Usage: swanlock migrate up|down|status|print

The locks need no table. The audit (run --audit, pglock.WithAudit) needs one,
lock_audit, in the first schema of the search_path.

  up       create it, and the indexes that audit and ls need; safe to run on many
           hosts at once, and again. No acquire waits for it. A table that was
           made from what print prints is adopted, if its columns are the same
  down     remove it, with all that it holds; nothing is removed while something
           stands on it, such as a table with the trigger lock_fenced
  status   say whether it is there; only looks, and needs no right to write
  print    print the SQL, for a migration tool of your own

  swanlock migrate up
  swanlock migrate print > 0042_swanlock.sql

up keeps its version in the table swanlock_migrations (by goose), so it is not in
the way of your own migrations. up and down need a connection to PostgreSQL
itself, or to a pooler in session mode: one in transaction mode is refused. They
wait five minutes at most for another process that migrates.
`

const devHelp = `Usage: swanlock dev [-- CMD [ARG...]]

Starts a PostgreSQL server on this machine, with the audit table, and prints the
line that makes swanlock and your programs use it. Paste it in another terminal:

  $ swanlock dev
  export SWANLAKE_LOCK_POSTGRES_CONNECTION='postgres://...'

With a CMD it prints nothing, runs CMD with that in its environment, and exits
with CMD's exit code:

  swanlock dev -- go test ./...

The server asks for no password, listens on 127.0.0.1 only, and is removed with
all its data on Ctrl-C, or when CMD has ended. SWANLOCK_PG_BIN names the folder of
the PostgreSQL programs to use, if there are several.
`

const demoHelp = `Usage: swanlock demo

Starts a PostgreSQL server of its own and shows, with real processes on a real
file, that only one of them holds a lock at a time; that the lock of a killed
process is free at once and that of a stopped one within its TTL; that fences
rise; and what the audit says. Takes about 20 seconds. Every claim is checked from
outside, in the file or by another session. Exits with 0 only if all of them held.

  swanlock demo
`

const versionHelp = `Usage: swanlock version

Prints the version of this program.

  swanlock version
`

const helpHelp = `Usage: swanlock help [COMMAND]

Tells what a command does, as its --help does, or lists the commands.

  swanlock help run
`

const verifyHelp = `Usage: swanlock verify --embedded|--dsn DSN [flags]

Tries to break swanlock. Worker processes take and release a few locks, in every
way there is, and do work that the locks guard, while they are killed, stopped,
cut off and their server is restarted. What they and the server saw is recorded
and checked: who held what, fences, late writes, locks that nobody holds, the
audit. docs/verification.md tells what that proves and what it does not.

  swanlock verify --embedded --duration 1m

Flags:
  --embedded        a throw-away server of its own
  --dsn DSN         a server of yours, not one in production: its sessions are
                    left alone, but there is some load. All that is written is in
                    a schema swanlock_verify_*, which is dropped at the end
  --duration D      how long to try (default 30s)
  --workers N       how many processes (default 4)
  --faults LIST     all, none, or some of, with commas (default all):
      kill          SIGKILL of a worker
      stop          SIGSTOP of a worker, and SIGCONT after a while
      terminate     pg_terminate_backend of a worker's session
      cut           the network: connections closed, half open, slow
      restart       of the server, also as in a crash; with --embedded only
      cancel        contexts that end at random
      rollback      of transactions in which locks are taken or released
      lock          of the audit's table, by another session
      pause         of the whole server for 6 s; with --embedded only
      silence       of the network, for new connections too
  --seed N          try the same again; how it is interleaved is not repeated
  --json            the report as JSON
  --out DIR         where the history goes if there is a violation
                    (default swanlock-verify-SEED)

Exit codes: 0 no violation was found, 1 one was, 2 the arguments are wrong, it
could not be run, or some of what happened took too long to judge.
`

const completionHelp = `Usage: swanlock completion bash|zsh|fish

Prints the completions for a shell. To have them:

  bash   source <(swanlock completion bash)     in ~/.bashrc
  zsh    source <(swanlock completion zsh)      in ~/.zshrc, after compinit
  fish   swanlock completion fish | source      in ~/.config/fish/config.fish
`
