package pglock

// Only a pool's session has several readers of one key. To the server they are
// one lock: the first of them takes it, and the last one frees it.

// countReaderLocked notes that the session has n more readers of the key of id,
// if that is a reader's.
func (led *ledger) countReaderLocked(id lockID, n int) {
	if id.reader == 0 {
		return
	}
	if led.readers == nil {
		led.readers = make(map[Key]int)
	}
	if led.readers[id.key] += n; led.readers[id.key] == 0 {
		delete(led.readers, id.key)
	}
}

// readersOf returns how many readers of key the session has.
func (led *ledger) readersOf(key Key) int {
	led.mu.Lock()
	defer led.mu.Unlock()
	return led.readers[key]
}

// shared reports whether the session has the lock of h for other readers, too.
func (led *ledger) shared(h *hold) bool {
	led.mu.Lock()
	defer led.mu.Unlock()
	others := led.readers[h.key]
	if led.locks[h.id] == h && h.id.reader > 0 {
		others--
	}
	return others > 0
}
