// Package mutate breaks pglock in one place at a time and has its tests find
// that.
package mutate
