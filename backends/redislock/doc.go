// Package redislock has a swanlock.Locker for Redis 7 or later: one server, or an
// odd number of servers that know nothing of each other, of which a majority
// grants a lock (Redlock).
//
//	locker, err := redislock.New([]redis.Scripter{client})       // one server
//	locker, err := redislock.New([]redis.Scripter{a, b, c})      // a majority of three
//	held, err := locker.Acquire(ctx, "jobs/nightly", swanlock.WithTTL(30*time.Second), swanlock.WithAutoRefresh())
//
// # What it promises
//
// At most one holder at a time, as its own Err tells it, provided that a majority
// of the servers
//
//   - do not let their wall clocks run faster than the holder's, or jump forward,
//     by more than 1 % of the TTL and 2 ms: Redis ends a lease by the wall clock;
//   - do not evict keys (maxmemory-policy noeviction), and do not lose keys to
//     SWAPDB with a database in which others lock, or to FLUSHALL together with
//     SCRIPT FLUSH, or before the first acquire of a new version of this package.
//     From Redis 7.4 on it is like SCRIPT FLUSH if programs send 500 different
//     scripts by EVAL: they push ours out;
//   - have replicas only with a repl-backlog-ttl, an hour by default, that is not
//     shorter than the longest TTL;
//   - are served by clients with the same WithMaxTTL, which wait for 5 ms or longer
//     before they repeat a command (MinRetryBackoff; the default is longer).
//
// A server that has restarted, or has taken over from another as a replica does,
// may have forgotten locks. It gives no vote until each of these has ended: for
// the longest TTL (a minute, see WithMaxTTL) and a second. So does a server that
// is used for the first time, unless it has run for that long. With a single
// server that is for how long nobody gets a lock after its restart; with three,
// nobody notices if one restarts at a time. While votes are missing, TryAcquire
// fails with ErrQuarantined and Acquire waits. Locks that the server still knows
// are refreshed and released as ever.
//
// The scripts look for that before each vote: they compare the master_replid of INFO
// and, if that has changed, the run_id and the master_replid2, with those in
// swanlock:born, which they saw last.
//
// # What it does not promise
//
// A holder that was paused past its TTL may write late, as with any lock that
// ends by itself. Use swanlock.WithFence, and have the storage check it. Fences
// rise with each grant, by a majority too, unless a majority of the servers have
// lost their data and the clients' clocks differ by more than the longest TTL, or
// a target was not locked with a fence for a day.
//
// Redis replicates late: a failover of a single server loses locks. Their holders
// find out at their next refresh, nobody else gets them before, and the fences
// may fall by what was not replicated. Where a lock must outlive a machine, take
// three servers, or etcd.
//
// There are no readers. Several servers serve waiters in no order. A lock without
// a TTL has a lease of ten seconds that is kept alive, and so ends ten seconds
// after its holder's process does.
//
// # What it costs
//
// An acquire, a refresh and a release are one round trip each, to all servers at
// once; what comes after the majority is not waited for, so that a server that
// hangs or is slow costs nobody anything. Where it has the deciding vote, it is
// waited for, for half of the lease, and a second at most. An acquire with a fence
// needs one more if the majority had seen different ones; a vote that is split is
// repeated. A waiter on a single server asks once when it comes, once a second, and
// when it is woken, over one more connection for each Locker. What many goroutines
// ask at a time travels together, in a pipeline of the client's.
//
// On a single server the release of a lock gives it to the first in line in the same
// step, and tells it so: a hand-over costs one trip. That is done if the waiter was
// heard of within a second and a half, and the lease is of 5 s or longer; the waiter
// counts the lease from its last question, and so has up to that much less of it. A
// waiter whose host was cut off in that second and a half keeps others from the lock
// until its lease ends, as a holder would.
//
// # Keys
//
// Spellings of one path are one target, as with swanlock.KeyOf. Different paths to
// which KeyOf gives one key, such as a/bcdefg/h and abcde/f/gh, are two targets here,
// unlike with other lockers: the keys in Redis have the path itself.
//
// A target's keys begin with swanlock:{target}: the lock, whose value is a token
// and the owner (redis-cli get 'swanlock:{jobs/nightly}'), its line, and its last
// fence, which is kept for a day. swanlock:born and swanlock:quarantine are the
// server's. Programs that may call INFO, PUBLISH and SUBSCRIBE on swanlock:wake:*
// need nothing else but scripts and these keys; without PUBSUB NUMSUB a release gives
// the lock to nobody, and wakes the next waiter.
//
// A redis.ClusterClient works as a single server, with WithoutQuarantine: no key
// of a cluster can speak for all of its machines. A redis.Ring does not exclude:
// it moves keys to other servers when one is down.
package redislock
