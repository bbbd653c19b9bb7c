// Package verify puts the lockers of the other packages to what swanlock verify
// puts PostgreSQL's to: worker processes that are killed and stopped, servers that
// are killed, stopped, cut off and restarted with and without their data, and a
// judge of the history (internal/verify). It is tests alone:
//
//	make verify-backends            // a minute of each
//	make verify-backends-knockouts  // and each finds what is taken out of it
package verify
