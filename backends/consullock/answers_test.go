package consullock

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/testserver"
)

// TestOtherAnswers has something else answer where Consul was, such as a proxy that has
// no route to it. That is no panic, no lock, and says nothing about a lock.
func TestOtherAnswers(t *testing.T) {
	t.Parallel()
	var status int
	var answer string
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(status)
		w.Write([]byte(answer))
	}))
	defer server.Close()
	l := newLocker(t, strings.TrimPrefix(server.URL, "http://"))
	ctx, cancel := context.WithTimeout(t.Context(), testserver.Patience)
	defer cancel()
	for _, code := range []int{200, 404, 409, 503} {
		for _, body := range []string{"", "null", "{}", "[]", "<html>", `{"ID": "x"}`, `{"Results": [null]}`, `{"Results": [{}]}`, `{"Errors": [null]}`} {
			status, answer = code, body
			h := l.newHold(must(l.request(target, nil)))
			if err := h.open(ctx); err == nil && h.session == "" {
				t.Errorf("%d %s: open: got nil, and no session", code, body)
			}
			h.session = "a session"
			if _, err := h.lock(ctx); err == nil || errors.Is(err, swanlock.ErrNotAcquired) {
				t.Errorf("%d %s: lock: got %v, want an error that is not ErrNotAcquired", code, body, err)
			}
			h.session = "a session"
			if err := h.Refresh(ctx); code != 200 && (err == nil || errors.Is(err, swanlock.ErrLost)) {
				t.Errorf("%d %s: Refresh: got %v, want an error that is not ErrLost", code, body, err)
			}
			if held, err := h.Release(ctx); code != 200 && (held || err == nil) {
				t.Errorf("%d %s: Release: got %t, %v, want an error", code, body, held, err)
			}
		}
	}
}
