package filelock

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func newJournal(t *testing.T) *journal {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "journal"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return &journal{f: f}
}

// TestJournal: what was stored is loaded, whatever its length; and if the last
// store was cut off at any byte, what was there before it.
func TestJournal(t *testing.T) {
	j := newJournal(t)
	var before []byte
	for n := range uint64(300) {
		whole, err := os.ReadFile(j.f.Name())
		if err != nil {
			t.Fatal(err)
		}
		value := bytes.Repeat([]byte(fmt.Sprintf("%d,", n)), rand.IntN(3000))
		if err := j.store(n+1, value); err != nil {
			t.Fatal(err)
		}
		if _, err := touch(j.f); err != nil {
			t.Fatal(err)
		}
		k := &journal{f: j.f}
		if err := k.load(); err != nil || k.number != n+1 || !bytes.Equal(k.value, value) || k.start != j.start || k.size != j.size {
			t.Fatalf("%d: got number %d, %d bytes, %v; want %d bytes", n, k.number, len(k.value), err, len(value))
		}

		after, err := os.ReadFile(j.f.Name())
		if err != nil {
			t.Fatal(err)
		}
		torn := newJournal(t)
		cut := int(j.start) + rand.IntN(header+len(value))
		half := append(whole, make([]byte, len(after)-len(whole))...)
		copy(half[:cut], after)
		if _, err := torn.f.Write(half); err != nil {
			t.Fatal(err)
		}
		want := before // or the new one, if what was cut off is the same by chance
		if err := torn.load(); torn.number > n {
			want = value
		} else if err != nil || torn.number < n {
			t.Fatalf("%d, cut off after %d bytes: got number %d, %v", n, cut-int(j.start), torn.number, err)
		}
		if !bytes.Equal(torn.value, want) {
			t.Fatalf("%d, cut off after %d bytes: got number %d, %d bytes; want %d", n, cut-int(j.start), torn.number, len(torn.value), len(want))
		}
		before = value
	}
	if j.size > 100_000 {
		t.Errorf("the file has grown to %d bytes", j.size)
	}
}

// TestJournalKeepsRoom: a value no longer than the one before needs no room.
func TestJournalKeepsRoom(t *testing.T) {
	j := newJournal(t)
	number := uint64(0)
	for range 1000 {
		n := rand.IntN(20_000)
		for range 1 + rand.IntN(3) {
			number++
			if err := j.store(number, make([]byte, n)); err != nil {
				t.Fatal(err)
			}
			size := j.size
			if err := j.store(number+1, make([]byte, rand.IntN(n+1))); err != nil {
				t.Fatal(err)
			}
			number++
			if j.size > size {
				t.Fatalf("a shorter value after one of %d bytes made the file grow", n)
			}
		}
	}
}

func TestExpired(t *testing.T) {
	now := time.Unix(1_700_000_000, 123_456_789)
	whole := now.Truncate(time.Second)
	for _, tt := range []struct {
		now  time.Time
		age  time.Duration
		ttl  time.Duration
		want bool
	}{
		{now, time.Second, time.Second, false}, // the clock of the files ticks
		{now, time.Second + 15*time.Millisecond, time.Second, false},
		{now, time.Second + 25*time.Millisecond, time.Second, true},
		{now, 1000 * time.Second, 1000 * time.Second, false},
		{now, 1000*time.Second + 500*time.Millisecond, 1000 * time.Second, false}, // clocks differ
		{now, 1002 * time.Second, 1000 * time.Second, true},
		{whole, 2 * time.Second, time.Second, false}, // a file system that counts seconds
		{whole, 4 * time.Second, time.Second, true},
		{now, -time.Hour, time.Second, false}, // the clock was set back
	} {
		l := &line{now: tt.now}
		if got := l.expired(tt.now.Add(-tt.age), tt.ttl); got != tt.want {
			t.Errorf("%v after a lease of %v: got %t, want %t", tt.age, tt.ttl, got, tt.want)
		}
	}
}

// TestJournalOfAnother: a process that has loaded a value does not write over it.
func TestJournalOfAnother(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "j"), os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var before int64
	for number := uint64(1); number < 5; number++ {
		j := journal{f: f} // as each process has its own
		if err := j.load(); err != nil || j.number != number-1 || j.start != before {
			t.Fatalf("load: number %d at %d, %v, want %d at %d", j.number, j.start, err, number-1, before)
		}
		if err := j.store(number, []byte("value")); err != nil {
			t.Fatal(err)
		}
		if j.start == before {
			t.Fatalf("value %d lies over its predecessor, at %d", number, before)
		}
		before = j.start
	}
}
