package pglock

// hasOtherReader reports whether the session holds key for a reader other than
// except.
func (led *ledger) hasOtherReader(key Key, except *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	// Only a pool's session has many locks, and it seldom asks.
	for id, h := range led.locks {
		if id.key == key && id.reader > 0 && h != except {
			return true
		}
	}
	return false
}

// doubt notes that the server may have given the session one more share of key
// than the ledger has readers. The server does not show how often a session has
// a lock, so the extra share is released after the last reader has gone.
func (led *ledger) doubt(key Key) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.doubts == nil {
		led.doubts = make(map[Key]bool)
	}
	led.doubts[key] = true
}

// doubted reports whether the extra share of key is to be released now, and
// strikes it out if so.
func (led *ledger) doubted(key Key) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	if !led.doubts[key] {
		return false
	}
	for id := range led.locks {
		if id.key == key {
			return false
		}
	}
	delete(led.doubts, key)
	return true
}
