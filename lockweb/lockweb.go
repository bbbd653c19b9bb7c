// Package lockweb is a web page for operators of swanlock: who holds which
// lock, who waits for it, who held it before, and what happened at some moment.
//
//	http.Handle("/locks/", http.StripPrefix("/locks", lockweb.Handler(db)))
//
// The page needs nothing from elsewhere, and keeps itself up to date. It shows
// what package pginspect finds: the history only if there is an audit. See
// docs/web.md for its addresses.
//
// Without a token the handler is read-only, and answers only what comes to a
// loopback address under a loopback name: see [WithToken] and [WithHosts].
package lockweb

import (
	"database/sql"
	"embed"
	"html/template"
	"io/fs"
	"net/http"
	"strings"
	"time"
)

// An Option changes what Handler returns.
type Option func(*handler)

// WithToken makes everything but /healthz ask for the token, once for each
// browser, or in the header Authorization: Bearer. With it the page can end the
// session of a holder. The token must be hard to guess: WithToken panics if it has
// fewer than 16 bytes. It is not shown again, nor written anywhere.
func WithToken(token string) Option {
	if len(token) < MinToken {
		panic("lockweb: the token has fewer than 16 bytes")
	}
	return func(h *handler) { h.keys = newKeys(token) }
}

// MinToken is how many bytes a token has at least.
const MinToken = 16

// WithHosts names hosts, without port, under which the handler is reached, as in
// the request's Host. Other names are refused, because any web page could give
// our address a name of its own and read what we answer (DNS rebinding).
//
// Without a token, it also says that somebody else sees to it who comes: that
// the handler is not reached from a network, or is behind a sign-in.
func WithHosts(hosts ...string) Option {
	return func(h *handler) {
		for _, name := range hosts {
			h.hosts[strings.ToLower(strings.TrimSuffix(name, "."))] = true
		}
	}
}

// WithTitle says which server it is, above the page. Without it there is nothing.
func WithTitle(title string) Option { return func(h *handler) { h.title = title } }

// WithInterval is how often the server is looked at while a page is open; all
// pages share a look. The default is a second, the least a tenth.
func WithInterval(d time.Duration) Option {
	return func(h *handler) { h.look.every = max(d, 100*time.Millisecond) }
}

//go:embed web
var web embed.FS

// pages are the two documents that are no mere files.
var pages = template.Must(template.ParseFS(web, "web/*.html"))

type handler struct {
	look    *looker
	keys    *keys // nil: there is no token
	hosts   map[string]bool
	title   string
	mux     *http.ServeMux
	streams chan struct{} // one element for each open stream
}

// maxStreams is how many pages may be open at a time.
const maxStreams = 64

// Handler returns the page. It looks at the server through db, which stays the
// caller's, only while it answers a request: there is nothing to close. db
// should be one that can connect to the database of the locks and their audit;
// pages use one connection of it, for moments.
//
// It is to be mounted at a path that ends with a slash, and sees that as /.
func Handler(db *sql.DB, opts ...Option) http.Handler {
	h := &handler{look: newLooker(db), hosts: map[string]bool{}, mux: http.NewServeMux(), streams: make(chan struct{}, maxStreams)}
	for _, opt := range opts {
		if opt != nil {
			opt(h)
		}
	}
	h.mux.HandleFunc("GET /{$}", h.page)
	h.mux.HandleFunc("GET /api/events", h.events)
	h.mux.HandleFunc("GET /api/state", h.state)
	h.mux.HandleFunc("GET /api/history", h.history)
	h.mux.HandleFunc("GET /api/held", h.held)
	h.mux.HandleFunc("POST /api/kill", h.kill)
	h.mux.HandleFunc("POST /login", h.login)
	h.mux.HandleFunc("POST /logout", h.logout)
	h.mux.HandleFunc("GET /metrics", h.metrics)
	h.mux.HandleFunc("GET /healthz", h.healthz)
	files, err := fs.Sub(web, "web")
	if err != nil {
		panic(err) // the folder is embedded
	}
	names, err := fs.Glob(files, "*")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		if !strings.HasSuffix(name, ".html") {
			h.mux.HandleFunc("GET /"+name, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Cache-Control", "no-cache")
				w.Header().Set("ETag", assetTag)
				http.ServeFileFS(w, r, files, name)
			})
		}
	}
	return h
}

// page is the one document. What it shows comes from the stream.
func (h *handler) page(w http.ResponseWriter, r *http.Request) {
	data := struct {
		Title, CSRF   string
		Kill, SignOut bool
	}{Title: h.title, Kill: h.keys != nil}
	if h.keys != nil {
		if cookie, ok := h.keys.session(r); ok {
			data.CSRF, data.SignOut = h.keys.csrf(cookie), true
		}
	}
	h.html(w, http.StatusOK, "page.html", data)
}

func (h *handler) html(w http.ResponseWriter, status int, name string, data any) {
	var b strings.Builder
	if err := pages.ExecuteTemplate(&b, name, data); err != nil {
		http.Error(w, "the page cannot be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.WriteHeader(status)
	w.Write([]byte(b.String()))
}
