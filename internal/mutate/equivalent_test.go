//go:build mutants

package mutate

// equivalent is why no test can tell these from pglock itself.
var equivalent = map[string]string{
	"a lock that the session has is held elsewhere":           "the wait that follows begins with enter, which looks again and says so",
	"the audit is told of a loss in a row that is not closed": "AuditLost corrects only rows that were closed as released: it is a statement for nothing",
	"a refresh restarts a lease that has ended":               "nobody looks at the lease of a lock that has ended: expire and the timer skip it",
	"checkFree goes on with a session that is dead":           "whoever destroyed it has closed the connection, which ledgerOf finds: only the error's text differs",
	"a mark takes another client's backend":                   "the try that follows is refused all the same, and so is the next mark: only the error's text differs",
	"who leaves on a closed connection keeps his place":       "whoever comes to the session next comes with another *sql.Conn, and abandons what was taken through others before he settles",
}
