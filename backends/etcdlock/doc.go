// Package etcdlock takes locks in etcd, for those who need a lock that survives the
// loss of a machine: etcd replicates it by Raft, and a failover keeps it.
//
// What it promises:
//
//   - One holder, or several readers, at a time, by the holder's own Err: its lease is
//     counted from before the request was sent, so that it ends for the holder before
//     it does for etcd. This needs the clocks of the holder and of etcd's leader to run
//     at the same pace; they need not agree on the time.
//   - First come, first served, among readers and writers of all processes: the line is
//     the order in which etcd created their keys.
//   - A fence that rises: the revision at which the lock's key was created.
//   - A waiter whose place in line is lost is told at once, with an error that matches
//     swanlock.ErrLost, and not when it would have been its turn.
//
// What it does not:
//
//   - A crash frees nothing at once. A lock is free when its lease ends: after its TTL,
//     in whole seconds, rounded up, 2 at least, or after 10 s without one (see
//     WithSessionTTL). The holder counts the TTL that it asked for. etcd looks for
//     leases that have ended every half second, and a new leader begins them anew.
//   - A cluster that has lost its data knows of no lock: another may hold it before the
//     old holder has found that out. So may one that was restored from a snapshot; its
//     revisions, and so the fences, fall back, too, unless it was restored with
//     etcdutl snapshot restore --bump-revision. See
//     https://etcd.io/docs/v3.6/op-guide/recovery/
//   - A holder that was paused past its TTL may act before it looks at Err. Use
//     swanlock.WithFence, and have the storage check it.
//
// A lock costs a round trip to take and one to release; with a TTL, the first costs
// another. Locks without a TTL, and those with swanlock.WithAutoRefresh, share a lease
// for each TTL, so that ten thousand of them are kept alive by one; two requests every
// third of the TTL renew it and prove that all keys are there. A lock that its holder
// refreshes has a lease of its own, since sharing would let one holder's refresh keep
// another's lock.
//
// The package links go.etcd.io/etcd/client/v3, and not its package concurrency: there
// a holder of "a/b" keeps out one of "a", one session locks a name twice, and a waiter
// whose lease has ended waits on.
package etcdlock
