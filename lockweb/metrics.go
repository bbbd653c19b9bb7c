package lockweb

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/swanlake-io/swanlock/pginspect"
)

// metrics is what the page knows, as Prometheus's text. It counts the locks of
// the whole server; what one program does with its locks is told by its own
// exporter, under other names.
func (h *handler) metrics(w http.ResponseWriter, r *http.Request) {
	s, err := h.look.latest(r.Context())
	if err != nil {
		return
	}
	var b strings.Builder
	gauge := func(name, help string) {
		fmt.Fprintf(&b, "# HELP swanlock_server_%s %s\n# TYPE swanlock_server_%[1]s gauge\n", name, help)
	}
	put := func(name, help string, value float64) {
		gauge(name, help)
		fmt.Fprintf(&b, "swanlock_server_%s %g\n", name, value)
	}
	up := 1.0
	if s.head.Trouble != "" {
		up = 0
	}
	put("up", "Whether the last look at the PostgreSQL server succeeded.", up)
	put("look_seconds", "How long the last look at the PostgreSQL server took.", s.took.Seconds())
	put("pages", "Open pages.", float64(len(h.streams)))
	if up == 1 {
		gauge("locks", "Advisory locks that are held, by kind and mode.")
		counts := map[[2]string]int{}
		var hold, wait time.Duration
		for _, l := range s.locks {
			mode := "exclusive"
			if l.Shared {
				mode = "shared"
			}
			counts[[2]string{string(l.Kind), mode}]++
			d, _ := l.HeldFor()
			hold = max(hold, d)
		}
		for _, kind := range []pginspect.Kind{pginspect.Audited, pginspect.Named, pginspect.Keyed, pginspect.Foreign} {
			for _, mode := range []string{"exclusive", "shared"} {
				fmt.Fprintf(&b, "swanlock_server_locks{kind=%q,mode=%q} %d\n", kind, mode, counts[[2]string{string(kind), mode}])
			}
		}
		for _, waiter := range s.waiters {
			wait = max(wait, waiter.WaitingFor())
		}
		put("waiters", "Sessions that wait for an advisory lock.", float64(len(s.waiters)))
		put("longest_hold_seconds", "For how long the oldest lock has been held, at least.", hold.Seconds())
		put("longest_wait_seconds", "For how long the first waiter has waited, at least.", wait.Seconds())
	}
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	w.Write([]byte(b.String()))
}

// healthz answers 200 if the server answers, and 503 if it does not. It needs no
// token, and tells nothing else.
func (h *handler) healthz(w http.ResponseWriter, r *http.Request) {
	s, err := h.look.latest(r.Context())
	if err != nil {
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if s.head.Trouble != "" {
		w.WriteHeader(http.StatusServiceUnavailable)
		w.Write([]byte("PostgreSQL does not answer\n"))
		return
	}
	w.Write([]byte("ok\n"))
}
