package lease

import "time"

// Extender returns a function that tells the lock that the server has restarted its
// lease, by a request that was sent after start, and reports whether the lock is
// still held. It is for a lock that its locker keeps (Request.Kept), and does not
// keep the Lock from being found to be dropped. The first start may be before the
// lock's own, if it has joined a lease that was there. One that is before that of a
// Refresh, which has overtaken it, changes nothing.
func (l *Lock) Extender() (extend func(start time.Time) (held bool)) {
	h := l.h
	begun := false
	return func(start time.Time) bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.expireLocked(time.Now()); h.err == nil {
			if !begun || start.After(h.term.Start) {
				begun, h.term.Start = true, start
			}
			// Leases that are extended are looked at in time without a new timer;
			// one that has become shorter is not.
			h.expiry.Reset(h.nextLook(time.Now()))
		}
		return h.err == nil
	}
}
