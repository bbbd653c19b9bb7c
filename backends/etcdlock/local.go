package etcdlock

import (
	"slices"
	"sync"
)

// A localLine has the keys of this Locker, and which of its waiters wait for which of
// them. So a lock is handed from one caller to the next as soon as it is released,
// before etcd has said so: nobody's key can be between the two.
type localLine struct {
	mu   sync.Mutex
	keys map[string][]*entry // and those that wait for each
}

// add notes a key that is about to be created.
func (q *localLine) add(key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.keys == nil {
		q.keys = make(map[string][]*entry)
	}
	q.keys[key] = nil
}

// await has e told when key's owner gives it up. It reports whether key is of this
// Locker; else e will be told nothing. Stop ends that.
func (q *localLine) await(key string, e *entry) (local bool, stop func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	waiters, local := q.keys[key]
	if local {
		q.keys[key] = append(waiters, e)
	}
	return local, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		if waiters, ok := q.keys[key]; ok {
			q.keys[key] = slices.DeleteFunc(waiters, func(w *entry) bool { return w == e })
		}
	}
}

// remove takes out a key whose owner has given it up, and tells those that wait for
// it: yours says that nothing is before them any more.
func (q *localLine) remove(key string, yours bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, w := range q.keys[key] {
		select {
		case w.told <- yours:
		default: // w has not yet read what it was told of another key, and will look.
		}
	}
	delete(q.keys, key)
}
