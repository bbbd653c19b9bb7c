package etcdlock

import (
	"crypto/rand"
	"slices"
	"strconv"
	"sync"
)

// A localLine has the keys of this Locker, and which of its waiters wait for which of
// them. So a lock is handed from one caller to the next as soon as it is released,
// before etcd has said so: nobody's key can be between the two.
//
// It also names the keys. A name serves again once etcd has said that its key is gone,
// since etcd keeps deleted names until it is compacted, and a caller that reads the line
// passes by all of them.
type localLine struct {
	mu   sync.Mutex
	id   string // of this Locker, in the names of its keys
	keys map[string]*localKey
}

type localKey struct {
	revision int64 // of its creation; 0: not known yet
	waiters  []*entry
	over     bool // its owner has given it up; etcd may not have said so yet
	yours    bool // what waiters are told then
}

// take returns the name of a key that begins with prefix and is not there.
func (q *localLine) take(prefix string) (key string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.id == "" {
		q.id = rand.Text()
	}
	for n := 0; ; n++ {
		key = prefix + q.id + "-" + strconv.Itoa(n)
		if q.keys[key] == nil {
			q.keys[key] = &localKey{}
			return key
		}
	}
}

// created notes when a key was created. Those that wait for an earlier one of that
// name are told to look.
func (q *localLine) created(key string, revision int64) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if k := q.keys[key]; k != nil {
		k.revision = revision
		k.waiters = slices.DeleteFunc(k.waiters, func(w *entry) bool {
			if w.beforeCreated == revision {
				return false
			}
			w.tell(false)
			return true
		})
	}
}

// await has e told when the owner of the key before it gives that up. It reports
// whether that is a key of this Locker; else e will be told nothing. Stop ends that.
func (q *localLine) await(e *entry) (local bool, stop func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.keys[e.before]
	if k == nil || k.revision != 0 && k.revision != e.beforeCreated {
		return false, func() {}
	}
	if k.over {
		e.tell(k.yours)
		return true, func() {}
	}
	k.waiters = append(k.waiters, e)
	return true, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		k.waiters = slices.DeleteFunc(k.waiters, func(w *entry) bool { return w == e })
	}
}

// tell tells those that wait for key that its owner gives it up: yours says that
// nothing is before them any more.
func (q *localLine) tell(key string, yours bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	k := q.keys[key]
	if k == nil || k.over {
		return
	}
	k.over, k.yours = true, yours
	for _, w := range k.waiters {
		w.tell(yours)
	}
	k.waiters = nil
}

// remove takes out a key that is gone. If a request for it may still come, its name
// and all others of its kind are not used again.
func (q *localLine) remove(key string, uncertain bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.keys, key)
	if uncertain {
		q.id = rand.Text()
	}
}

// tell does not wait: if e has not yet read what it was told of another key, it will
// look.
func (e *entry) tell(yours bool) {
	select {
	case e.told <- yours:
	default:
	}
}
