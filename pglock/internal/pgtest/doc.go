// Package pgtest is the apparatus of pglock's tests: a migrated PostgreSQL, the
// drivers to test with, networks and poolers that misbehave, processes that can
// be killed, and an observer that reads outcomes from the server.
//
// It knows nothing of locks, so that any package of the module can use it: a
// target's key is a number here.
package pgtest
