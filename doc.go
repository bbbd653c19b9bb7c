// Package swanlock is the contract of distributed locks: what a lock is
// (DistributedLock), what takes one (Locker), how (Option), and what may go
// wrong (the errors). Do runs a function while a lock is held, and WithLock makes
// a context that ends with a lock.
//
//	err := swanlock.Do(ctx, locker, "/lake/checkpoint", func(ctx context.Context, held swanlock.DistributedLock) error {
//		return checkpoint(ctx) // on no other host now; ctx ends if the lock is lost
//	}, swanlock.WithTTL(30*time.Second), swanlock.WithAutoRefresh())
//
// Package pglock has the lockers for PostgreSQL; package memlock has one in
// memory, for tests; package locktest checks any. Observe tells metrics, traces
// and logs what a locker does; the modules metrics/otel and metrics/prometheus
// have observers.
//
// # What a lock promises, and what it does not
//
// At any time one caller holds a target, or several readers do. A lock ends
// when it is released, when its holder's session ends, and, with WithTTL, when
// it was not refreshed for that long. Then Done is closed, and Err says why.
//
// No lock can stop a holder that was paused for longer than its TTL from going
// on, for a short time, before it finds out. Err looks at the clock, so a
// holder that calls it before each step shortens that time. Only a fence,
// checked by the storage that is written to, closes the gap. See
// https://martin.kleppmann.com/2016/02/08/how-to-do-distributed-locking.html
package swanlock
