// Package mocks helps to test code that takes locks, without a server.
//
// There are two ways. Code that takes a swanlock.Locker gets a Locker and
// DistributedLocks, whose functions a test replaces and whose calls it reads.
// Code that calls pglock on a *sql.Conn gets one from NewConn: a PostgreSQL that
// answers by script, with pglock's own code in between, so that a test sees the
// very errors that the service will see. Either takes microseconds.
//
// Mocks exclude nobody. A test of two copies of a service that contend wants
// the package memlock.
package mocks
