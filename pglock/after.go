package pglock

// AfterDone calls f, in a goroutine of its own, when Done is closed, with what
// Err returns then; at once if it is closed already. stop prevents that, and
// reports whether it did. Unlike a goroutine that waits for Done, this costs
// nothing while the lock is held. f must not refer to the lock: otherwise a lock
// that is dropped without Release is not found. swanlock.Observe uses it.
func (l *PostgresLock) AfterDone(f func(err error)) (stop func() bool) {
	h := l.h
	h.led.mu.Lock()
	defer h.led.mu.Unlock()
	if h.err != nil {
		go f(h.err)
		return func() bool { return false }
	}
	remove := h.after.Add(f)
	return func() bool {
		h.led.mu.Lock()
		defer h.led.mu.Unlock()
		return remove()
	}
}
