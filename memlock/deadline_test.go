package memlock

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/swanlake-io/swanlock"
)

// The deadline is when the lock ends, to the nanosecond, and moves with each
// refresh.
func TestDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, tt := range []struct {
			name string
			opts []swanlock.Option
			live time.Duration // with a refresh after half an hour
		}{
			{"TTL", []swanlock.Option{swanlock.WithTTL(time.Hour)}, 90 * time.Minute},
			{"a reader's TTL", []swanlock.Option{swanlock.WithTTL(time.Hour), swanlock.WithShared()}, 90 * time.Minute},
		} {
			l, start := New(), time.Now()
			held := mustTry(t, l, tt.opts...)
			want := func(when string, want time.Duration) {
				t.Helper()
				got, ok := held.Deadline()
				if !ok || got.Sub(start) != want {
					t.Errorf("%s: %s: got %v after the grant, %t; want %v", tt.name, when, got.Sub(start), ok, want)
				}
			}
			want("granted", time.Hour)
			time.Sleep(30 * time.Minute)
			want("half an hour later", time.Hour)
			if err := held.Refresh(t.Context()); err != nil {
				t.Fatal(err)
			}
			want("refreshed", tt.live)
			<-held.Done()
			if got := time.Since(start); got != tt.live {
				t.Errorf("%s: it ended after %v, want %v", tt.name, got, tt.live)
			}
			empty(t, l)
		}

		l := New()
		held := mustTry(t, l)
		if err := held.Refresh(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got, ok := held.Deadline(); ok {
			t.Errorf("without a TTL: got %v, true; want false", got)
		}
		release(t, held)
	})
}
