package pglock

import (
	"maps"
	"slices"
	"sync"
	"time"
)

// Books are the locks and the places in line that the server may hold for a
// session, and which of them are to be given back. They are entries alone: when
// and why a lock ends is the ledger's.
type books struct {
	mu        sync.Mutex
	locks     map[lockID]*hold     // the locks that the server may hold for this session
	readers   readers              // how many of locks are readers' of a key
	unsettled []*hold              // those of locks that have ended here, and are to be unlocked
	tickets   map[*ticket]struct{} // the session's places in line
	abandoned []*ticket            // those of tickets that are to be dropped, because no caller waits on them
}

// A lockID tells the locks of a session apart. A session has one lock on a key;
// only the readers of a pool share a key on one session, and are numbered from
// 1.
type lockID struct {
	key    Key
	reader int
}

func newBooks() books {
	return books{locks: make(map[lockID]*hold), tickets: make(map[*ticket]struct{})}
}

// putLocked enters a lock.
func (b *books) putLocked(h *hold) {
	b.locks[h.id] = h
	b.readers.count(h.id, 1)
}

// strikeLocked strikes out a lock that the session does not hold any more, and
// reports whether it was entered.
func (b *books) strikeLocked(h *hold) bool {
	b.unsettled = slices.DeleteFunc(b.unsettled, func(o *hold) bool { return o == h })
	if b.locks[h.id] != h {
		return false
	}
	delete(b.locks, h.id)
	b.readers.count(h.id, -1)
	return true
}

// clearLocked strikes out everything.
func (b *books) clearLocked() {
	clear(b.locks)
	clear(b.readers)
	clear(b.tickets)
	b.unsettled, b.abandoned = nil, nil
}

// contains reports whether the server may still hold h for this session.
func (b *books) contains(h *hold) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.locks[h.id] == h
}

// held returns the lock on key that the server may think this session holds, or
// nil; a pool's readers are left out.
func (b *books) held(key Key) *hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.locks[lockID{key: key}]
}

// holds returns all locks that the server may think this session holds.
func (b *books) holds() []*hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Collect(maps.Values(b.locks))
}

// live returns how many of the locks have not ended, and when the oldest of these
// was acquired.
func (b *books) live() (n int, oldest time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.locks {
		if h.err != nil { // It is to be unlocked.
			continue
		}
		n++
		if at := h.info.AcquiredAt; oldest.IsZero() || at.Before(oldest) {
			oldest = at
		}
	}
	return n, oldest
}

// any returns one of holds, or nil.
func (b *books) any() *hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.locks {
		return h
	}
	return nil
}

// empty reports whether the session holds nothing.
func (b *books) empty() bool { return b.any() == nil }

// shortest returns the shortest TTL of the locks other than except. It is 0 if none
// has a TTL.
func (b *books) shortest(except *hold) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.shortestLocked(except)
}

func (b *books) shortestLocked(except *hold) (ttl time.Duration) {
	for _, h := range b.locks {
		if t := h.info.TTL; h != except && t > 0 && (ttl == 0 || t < ttl) {
			ttl = t
		}
	}
	return ttl
}

// hasFrom reports whether the session has a lock that was taken through a.
func (b *books) hasFrom(a *access) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.locks {
		if h.a == a {
			return true
		}
	}
	return false
}

// takenThrough returns the locks and the tickets that were taken through a, for
// a caller that frees them.
func (b *books) takenThrough(a *access) (holds []*hold, tickets []*ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.locks {
		if h.a == a {
			holds = append(holds, h)
		}
	}
	for t := range b.tickets {
		if t.a == a {
			tickets = append(tickets, t)
		}
	}
	return holds, tickets
}

// expected returns the number of the session's locks and the sum of the halves
// of their keys, as the statement Heartbeat should answer.
func (b *books) expected() (locks, sum int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	add := func(key Key) {
		locks++
		sum += int64(uint64(key)>>32) + int64(uint64(key)&0xffffffff)
	}
	for id := range b.locks {
		if id.reader == 0 {
			add(id.key)
		}
	}
	for key := range b.readers { // The server shows one lock for all readers of a key.
		add(key)
	}
	return locks, sum
}

// nextUnsettled returns a lock that is to be unlocked, or a ticket that is to be
// dropped, if there is one.
func (b *books) nextUnsettled() (*hold, *ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case len(b.abandoned) > 0:
		return nil, b.abandoned[0]
	case len(b.unsettled) > 0:
		return b.unsettled[0], nil
	}
	return nil, nil
}

// place enters the place in line of t.
func (b *books) place(t *ticket) {
	b.mu.Lock()
	b.tickets[t] = struct{}{}
	b.mu.Unlock()
}

// forsake notes that t, if it still has its place, is to be dropped.
func (b *books) forsake(t *ticket) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.forsakeLocked(t)
}

func (b *books) forsakeLocked(t *ticket) {
	if _, ok := b.tickets[t]; ok && !slices.Contains(b.abandoned, t) {
		b.abandoned = append(b.abandoned, t)
	}
}

// displaceLocked strikes out the place in line of t.
func (b *books) displaceLocked(t *ticket) {
	delete(b.tickets, t)
	b.abandoned = slices.DeleteFunc(b.abandoned, func(o *ticket) bool { return o == t })
}

// has reports whether t still has its place.
func (b *books) has(t *ticket) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, ok := b.tickets[t]
	return ok
}

// numbers returns the numbers of the session's tickets in the line of hash.
func (b *books) numbers(hash int64) (numbers []int32) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for t := range b.tickets {
		if t.hash == hash {
			numbers = append(numbers, t.number)
		}
	}
	return numbers
}

// Readers are how many readers of each key the session has. Only a pool's session
// has several of one key. To the server they are one lock: the first of them takes
// it, and the last one frees it.
type readers map[Key]int

// count notes that there are n more readers of the key of id, if that is a
// reader's.
func (r *readers) count(id lockID, n int) {
	if id.reader == 0 {
		return
	}
	if *r == nil {
		*r = make(readers)
	}
	if (*r)[id.key] += n; (*r)[id.key] == 0 {
		delete(*r, id.key)
	}
}

// readersOf returns how many readers of key the session has.
func (b *books) readersOf(key Key) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.readers[key]
}
