package pglock

// hasOtherReader reports whether the session holds key for a reader other than
// except.
func (led *ledger) hasOtherReader(key Key, except *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	for id, h := range led.locks { // never many: only pools have several, and seldom ask
		if id.key == key && id.reader > 0 && h != except {
			return true
		}
	}
	return false
}

// doubt notes that the server may have given the session one more share of key than
// the ledger has readers. What that share is nobody can see; it goes with the last.
func (led *ledger) doubt(key Key) {
	led.mu.Lock()
	defer led.mu.Unlock()
	if led.doubts == nil {
		led.doubts = make(map[Key]bool)
	}
	led.doubts[key] = true
}

// doubted reports whether that is to be settled now, and forgets it then.
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
