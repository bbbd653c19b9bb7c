// Package after has what a lock's AfterDone is made of: the functions that are to
// be called when the lock is over.
package after

import "slices"

// Funcs are functions that are to be called once. The zero value has none. It
// must be guarded by the mutex of the lock that has it.
type Funcs []*func(err error)

// Add adds f. remove takes it out again, and reports whether it was still there.
func (fs *Funcs) Add(f func(err error)) (remove func() bool) {
	*fs = append(*fs, &f)
	return func() bool {
		n := len(*fs)
		*fs = slices.DeleteFunc(*fs, func(other *func(error)) bool { return other == &f })
		return len(*fs) < n
	}
}

// Call calls the functions, each in a goroutine of its own, and has none then.
func (fs *Funcs) Call(err error) {
	for _, f := range *fs {
		go (*f)(err)
	}
	*fs = nil
}
