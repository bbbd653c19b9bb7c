// Package filelock has locks that are files. It needs no server, only a folder
// that all processes see: of one host, or on a file system that several share.
//
//	locks := filelock.New()                                     // the lock of /lake/q.db is /lake/q.db.lock
//	locks := filelock.New(filelock.WithDir("/srv/locks"))       // any name is a target
//	held, err := locks.Acquire(ctx, "/lake/q.db", swanlock.WithTTL(30*time.Second))
//
// The lock file is SwanLake's own: processes of SwanLake's that lock /lake/q.db
// exclude this package's and are excluded. Beside it, in the folder .swanlock, is
// what they do not know.
//
// # What it promises
//
//   - One holder, or several readers, provided that flock excludes the processes
//     of all hosts (Probe tells), and that nobody removes the files of .swanlock.
//   - First come, first served. Readers wait for a writer that came first.
//   - A process that was killed frees its locks at once, with and without a TTL.
//     On a network file system the server must first notice that the host is gone
//     (NFS 4: after its lease, often 90 s), or the TTL ends.
//   - A holder that hangs loses a lock with a TTL when that has passed, and knows
//     it when it wakes. A lock without a TTL is refreshed in the background; a
//     holder that hangs loses it after WithStaleAfter, ten minutes by default.
//   - Fences rise, also through a crash of the host: they are on the disk before
//     the grant. If .swanlock is removed, they go on by the clock, in microseconds
//     since 1970.
//   - On a full disk what is held can be refreshed and released; what is new is
//     refused, with the error of the system, and leaves nothing.
//
// Leases count by the clock of the file system: a process that judges one touches a file
// and compares the times of both. So the clocks of hosts need not agree; only
// their rates must, to one in a thousand. If the clock of the file system is set
// forward by more than what is left of a lease, that lease ends early for others;
// on the same host the holder notices, as it looks at the wall clock too.
//
// # What it does not
//
//   - SwanLake's processes remove a lock file that they find stale, or gone, even
//     if it has been made anew a moment later. Among themselves they may so hold a
//     lock together. This package waits for 50 ms after it has made a lock file and
//     looks whether it is still there, which WithoutSwanLake saves. A process of
//     theirs that is slower than that, or that refreshes a lock after its time, is
//     noticed at the next Refresh: the lock is lost then.
//   - They wait in no line, judge by the clocks of their own hosts, and know of no
//     readers: one reader's lock file excludes them.
//   - A process that is stopped (SIGSTOP) in the some 50 µs in which it changes the
//     state of a lock keeps that and some others from being acquired, refreshed and
//     released, until it goes on or is killed. Contexts and TTLs end all the same.
//   - Two paths to one folder are one; two hard links to one file are two targets.
//
// Flock does not reach other hosts on NFS that is mounted with nolock or
// local_lock, on SMB with nobrl, and on many file systems in user space: run Probe
// on two hosts. Without WithDir a target is an absolute path. Windows, Solaris and
// others without flock are refused with errors.ErrUnsupported, as are TTLs beyond
// WithStaleAfter.
//
// Processes of several users lock together in a folder that all of them may write
// to, unless it is sticky, as /tmp is.
//
// Each lock that is held, and each waiter, has one file open.
package filelock
