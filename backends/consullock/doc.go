// Package consullock takes locks in Consul, for those who run Consul already.
//
// What it promises:
//
//   - One holder at a time, by the holder's own Err: its TTL is counted from before the
//     request was sent, so that it ends for the holder long before it does for Consul.
//     Consul may count twice as fast as the holder and it would still be true.
//   - A fence that rises: the key's ModifyIndex when it was locked, which is the index
//     of Raft's log.
//   - The lock does not depend on health checks: not on the agent's, as sessions do by
//     default, and on none of yours.
//
// What it does not:
//
//   - A TTL under the server's minimum (session_ttl_min, 10 s by default) is refused with
//     an error that matches errors.ErrUnsupported and names the minimum.
//   - A lock whose holder died or was cut off is free after twice its TTL: that is when
//     Consul ends a session. Without a TTL this is 20 s; see WithSessionTTL.
//     https://developer.hashicorp.com/consul/docs/dynamic-app-config/sessions
//   - There are no readers, and no order: callers of one Locker wait in the order in
//     which they came, but several Lockers race for a lock that became free.
//   - Consul ends the sessions of a node that leaves, and their locks are free before
//     the holders know: each is told by its next refresh. A client agent leaves when it
//     is stopped by SIGTERM, unless its leave_on_terminate is false: set that, or give
//     the client the address of a server. The same goes for somebody that ends a session
//     or deletes a key.
//     https://developer.hashicorp.com/consul/docs/agent/config/config-files#leave_on_terminate
//   - A cluster that has lost its data knows of no lock, and its fences begin anew.
//   - Locks in Consul are advisory: a write by somebody that does not ask for the lock
//     is let through, and leaves the lock as it is.
//   - A holder that was paused past its TTL may act before it looks at Err. Use
//     swanlock.WithFence, and have the storage check it.
//
// A lock costs two round trips to take (a session, and the lock) and two to release.
//
// The package links github.com/hashicorp/consul/api, of which it uses Session, Txn and
// KV. It does not use api.Lock, whose holder learns that it was cut off after minutes,
// and whose next holder waits for a lock delay of 15 s.
package consullock
