// Package swanlock is the contract of distributed locks: what a lock is
// (DistributedLock), what takes one (Locker), how (Option), and what may go
// wrong (the errors).
package swanlock
