package lockweb

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
)

// policy lets the page use its own files and addresses, and nothing else: no
// inline script or style, no frame around it, no text that becomes markup.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; " +
	"form-action 'self'; base-uri 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'"

// maxBody bounds what is read of a request, also of one without the token.
const maxBody = 16 << 10

// assetTag is the same as long as the files are.
var assetTag = func() string {
	sum := sha256.New()
	names, _ := fs.Glob(web, "web/*")
	for _, name := range names {
		text, _ := fs.ReadFile(web, name)
		sum.Write(text)
	}
	return `"` + hex.EncodeToString(sum.Sum(nil)[:8]) + `"`
}()

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head := w.Header()
	head.Set("Content-Security-Policy", policy)
	head.Set("X-Content-Type-Options", "nosniff")
	head.Set("X-Frame-Options", "DENY")
	head.Set("Cross-Origin-Opener-Policy", "same-origin")
	head.Set("Cross-Origin-Resource-Policy", "same-origin")
	// Not no-referrer: with that, browsers send forms with Origin: null.
	head.Set("Referrer-Policy", "same-origin")
	head.Set("Permissions-Policy", "camera=(), geolocation=(), microphone=()")
	head.Set("Cache-Control", "no-store")

	r.Body = http.MaxBytesReader(w, r.Body, maxBody)
	if why := h.misdirected(r); why != "" {
		refuse(w, r, http.StatusMisdirectedRequest, why)
		return
	}
	if !sameSite(r) {
		refuse(w, r, http.StatusForbidden, "the request comes from another site")
		return
	}
	if h.keys != nil && !open(r.URL.Path) && !h.keys.admits(r) {
		h.askForToken(w, r, http.StatusUnauthorized, "")
		return
	}
	h.mux.ServeHTTP(w, r)
}

// open reports whether a path needs no token: it has nothing about locks.
func open(path string) bool {
	return path == "/healthz" || path == "/login" || strings.HasSuffix(path, ".js") || strings.HasSuffix(path, ".css") || strings.HasSuffix(path, ".svg")
}

// misdirected returns why a request is not for us, or "". A Host that is an IP
// address cannot have been rebound: the browser did connect to that address.
func (h *handler) misdirected(r *http.Request) string {
	name := hostname(r.Host)
	if h.hosts[name] {
		return ""
	}
	ip, err := netip.ParseAddr(name)
	isIP, local := err == nil, name == "localhost" || err == nil && ip.Unmap().IsLoopback()
	switch {
	case !isIP && !local:
		return "this host name was not named to the server (swanlock serve --host, lockweb.WithHosts)"
	case h.keys != nil:
		return ""
	case !local || !fromHere(r):
		return "without a token only this machine itself is answered (swanlock serve --token-file, lockweb.WithToken)"
	}
	return ""
}

// fromHere reports whether a request came to a loopback address, and that no
// proxy says to have brought it from elsewhere.
func fromHere(r *http.Request) bool {
	if r.Header.Get("Forwarded") != "" || r.Header.Get("X-Forwarded-For") != "" || r.Header.Get("X-Real-Ip") != "" {
		return false
	}
	addr, ok := r.Context().Value(http.LocalAddrContextKey).(*net.TCPAddr)
	return !ok || addr.IP.IsLoopback()
}

// hostname is the name in a Host header, without the port.
func hostname(host string) string {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	return strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
}

// sameSite reports whether a request may come from a page of ours, or from no
// page. From others one may follow a link to the page, and that is all.
func sameSite(r *http.Request) bool {
	if origin := r.Header.Get("Origin"); origin != "" {
		from, err := url.Parse(origin)
		if err != nil || from.Host == "" || !strings.EqualFold(from.Host, r.Host) {
			return false
		}
	}
	switch r.Header.Get("Sec-Fetch-Site") {
	case "", "none", "same-origin":
		return true
	}
	return r.Method == http.MethodGet && r.URL.Path == "/" && r.Header.Get("Sec-Fetch-Mode") == "navigate" && r.Header.Get("Sec-Fetch-Dest") == "document"
}

// refuse says no, in the form that was asked for.
func refuse(w http.ResponseWriter, r *http.Request, status int, why string) {
	if strings.HasPrefix(r.URL.Path, "/api/") {
		respond(w, status, map[string]string{"error": why})
		return
	}
	http.Error(w, why, status)
}
