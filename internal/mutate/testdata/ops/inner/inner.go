// Package inner has no test of its own.
package inner

// Last returns the last of the names.
func Last(names ...string) string { return names[len(names)-1] }
