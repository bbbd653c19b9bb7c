package swanlock_test

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/swanlake-io/swanlock"
)

func TestNewOptions(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Skip(err)
	}
	me := fmt.Sprintf("%s/%d", host, os.Getpid())
	type options = []swanlock.Option
	tests := []struct {
		name   string
		target string
		opts   options
		want   swanlock.Options
	}{
		{"defaults", "t", nil, swanlock.Options{Owner: me}},
		{"nil options", "t", options{nil, swanlock.WithShared(), nil}, swanlock.Options{Owner: me, Shared: true}},
		{"owner", "t", options{swanlock.WithOwner("job 7")}, swanlock.Options{Owner: "job 7"}},
		{"empty owner is the default", "t", options{swanlock.WithOwner("")}, swanlock.Options{Owner: me}},
		{"fence", "t", options{swanlock.WithFence()}, swanlock.Options{Owner: me, Fence: true}},
		{"TTL", "t", options{swanlock.WithTTL(time.Minute)}, swanlock.Options{Owner: me, TTL: time.Minute}},
		{"TTL of zero is none", "t", options{swanlock.WithTTL(0)}, swanlock.Options{Owner: me}},
		{"least TTL", "t", options{swanlock.WithTTL(time.Millisecond)}, swanlock.Options{Owner: me, TTL: time.Millisecond}},
		{"TTL with a fraction", "t", options{swanlock.WithTTL(1500 * time.Microsecond)}, swanlock.Options{Owner: me, TTL: 1500 * time.Microsecond}},
		{"longest TTL", "t", options{swanlock.WithTTL(math.MaxInt64)}, swanlock.Options{Owner: me, TTL: math.MaxInt64}},
		{"auto-refresh, before its TTL", "t", options{swanlock.WithAutoRefresh(), swanlock.WithTTL(time.Minute)},
			swanlock.Options{Owner: me, TTL: time.Minute, AutoRefresh: true}},
		{"the last one counts", "t", options{swanlock.WithTTL(time.Hour), swanlock.WithOwner("a"), swanlock.WithTTL(time.Minute), swanlock.WithOwner("b")},
			swanlock.Options{Owner: "b", TTL: time.Minute}},
		{"shared with a TTL", "t", options{swanlock.WithShared(), swanlock.WithTTL(time.Minute), swanlock.WithAutoRefresh()},
			swanlock.Options{Owner: me, TTL: time.Minute, AutoRefresh: true, Shared: true}},
		{"odd target", " \x1b[31m'; DROP TABLE x\n🦢" + strings.Repeat("x", 1<<20), nil, swanlock.Options{Owner: me}},
	}
	for _, tt := range tests {
		got, err := swanlock.NewOptions(tt.target, tt.opts...)
		if err != nil || got != tt.want {
			t.Errorf("%s: got %+v, %v; want %+v, nil", tt.name, got, err, tt.want)
		}
	}
}

func TestNewOptionsRefuses(t *testing.T) {
	tests := []struct {
		name        string
		target      string
		opts        []swanlock.Option
		says        string
		unsupported bool
	}{
		{"empty target", "", nil, "target is empty", false},
		{"NUL in the target", "a\x00b", nil, "target has a NUL byte", false},
		{"invalid target", "a\xff", nil, "target is not valid UTF-8", false},
		{"surrogate in the target", "a\xed\xa0\x80", nil, "target is not valid UTF-8", false},
		{"NUL in the owner", "t", []swanlock.Option{swanlock.WithOwner("a\x00b")}, "owner has a NUL byte", false},
		{"invalid owner", "t", []swanlock.Option{swanlock.WithOwner("\xff")}, "owner is not valid UTF-8", false},
		{"negative TTL", "t", []swanlock.Option{swanlock.WithTTL(-1)}, "negative", false},
		{"most negative TTL", "t", []swanlock.Option{swanlock.WithTTL(math.MinInt64)}, "negative", false},
		{"TTL too short", "t", []swanlock.Option{swanlock.WithTTL(time.Millisecond - 1)}, "under a millisecond", false},
		{"auto-refresh alone", "t", []swanlock.Option{swanlock.WithAutoRefresh()}, "WithAutoRefresh needs WithTTL", false},
		{"shared fence", "t", []swanlock.Option{swanlock.WithShared(), swanlock.WithFence()}, "a shared lock has no fence", true},
	}
	for _, tt := range tests {
		_, err := swanlock.NewOptions(tt.target, tt.opts...)
		if err == nil || !strings.Contains(err.Error(), tt.says) || !strings.HasPrefix(err.Error(), "swanlock: ") {
			t.Errorf("%s: got %v, want an error of swanlock's that says %q", tt.name, err, tt.says)
		}
		if got := errors.Is(err, errors.ErrUnsupported); got != tt.unsupported {
			t.Errorf("%s: matches ErrUnsupported: got %t, want %t", tt.name, got, tt.unsupported)
		}
		if errors.Is(err, swanlock.ErrNotAcquired) {
			t.Errorf("%s: matches ErrNotAcquired: a caller would try again for ever", tt.name)
		}
	}
}

func TestErrorIdentities(t *testing.T) {
	all := map[string]error{
		"ErrNotAcquired": swanlock.ErrNotAcquired,
		"ErrAlreadyHeld": swanlock.ErrAlreadyHeld,
		"ErrLost":        swanlock.ErrLost,
		"ErrExpired":     swanlock.ErrExpired,
		"ErrReleased":    swanlock.ErrReleased,
	}
	matches := map[string]string{"ErrAlreadyHeld": "ErrNotAcquired", "ErrExpired": "ErrLost"}
	for a, err := range all {
		for b, target := range all {
			want := a == b || matches[a] == b
			if got := errors.Is(fmt.Errorf("pglock: acquire: %w", err), target); got != want {
				t.Errorf("%s matches %s: got %t, want %t", a, b, got, want)
			}
		}
	}
}

// FuzzNewOptions: any target and owner is taken as it is or refused in an error that does not repeat it.
func FuzzNewOptions(f *testing.F) {
	for _, seed := range []string{"t", "", "a\x00b", "\xff", "\x1b[2J", "пароль", strings.Repeat("x", 5000)} {
		f.Add(seed, "owner", int64(time.Second), uint8(0))
		f.Add("target", seed, int64(-1), uint8(7))
	}
	f.Fuzz(func(t *testing.T, target, owner string, ttl int64, flags uint8) {
		opts := []swanlock.Option{swanlock.WithTTL(time.Duration(ttl)), swanlock.WithOwner(owner), nil}
		for i, opt := range []swanlock.Option{swanlock.WithShared(), swanlock.WithFence(), swanlock.WithAutoRefresh()} {
			if flags>>i&1 == 1 {
				opts = append(opts, opt)
			}
		}
		o, err := swanlock.NewOptions(target, opts...)
		if err != nil {
			if len(err.Error()) > 300 || strings.ContainsFunc(err.Error(), func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("%q does something to a terminal", err)
			}
			return
		}
		if target == "" || !utf8.ValidString(target+o.Owner) || strings.ContainsRune(target+o.Owner, 0) || o.TTL < 0 ||
			owner != "" && o.Owner != owner || o.Owner == "" || o.Shared && o.Fence || o.AutoRefresh && o.TTL == 0 {
			t.Errorf("NewOptions(%q, owner %q) gave %+v", target, owner, o)
		}
	})
}
