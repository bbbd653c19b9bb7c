package lockweb

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// sessionLife is for how long a browser need not be told the token again.
const sessionLife = 12 * time.Hour

// keys are what is made of the token, which itself is not kept.
type keys struct {
	token [sha256.Size]byte // its hash
	sign  []byte            // signs sessions
	name  string            // of the cookie: cookies know no ports, so each token has its own
}

func newKeys(token string) *keys {
	k := &keys{token: sha256.Sum256([]byte(token))}
	k.sign = mac([]byte(token), "swanlock session")
	k.name = "swanlock_" + hex.EncodeToString(mac(k.sign, "name")[:4])
	return k
}

func mac(key []byte, text string) []byte {
	m := hmac.New(sha256.New, key)
	m.Write([]byte(text))
	return m.Sum(nil)
}

func (k *keys) isToken(s string) bool {
	sum := sha256.Sum256([]byte(s))
	return subtle.ConstantTimeCompare(sum[:], k.token[:]) == 1
}

// admits reports whether a request has the token, or is in a session.
func (k *keys) admits(r *http.Request) bool {
	if k.bearer(r) {
		return true
	}
	_, ok := k.session(r)
	return ok
}

func (k *keys) bearer(r *http.Request) bool {
	scheme, token, _ := strings.Cut(r.Header.Get("Authorization"), " ")
	return strings.EqualFold(scheme, "Bearer") && k.isToken(strings.TrimSpace(token))
}

// session returns the cookie of the request's session. It is its end in Unix
// seconds, a random number, and a signature of both.
func (k *keys) session(r *http.Request) (cookie string, ok bool) {
	for _, c := range r.CookiesNamed(k.name) {
		text, signature, _ := cutLast(c.Value, ".")
		until, _, _ := strings.Cut(text, ".")
		end, err := strconv.ParseInt(until, 10, 64)
		if err == nil && time.Now().Unix() < end && hmac.Equal([]byte(signature), []byte(k.signature(text))) {
			return c.Value, true
		}
	}
	return "", false
}

func cutLast(s, sep string) (before, after string, found bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func (k *keys) signature(text string) string { return hex.EncodeToString(mac(k.sign, "cookie "+text)) }

// csrf is what a page of the session sends with what changes something.
func (k *keys) csrf(cookie string) string { return hex.EncodeToString(mac(k.sign, "csrf "+cookie)) }

// mayChange reports whether a request that changes something is meant: it has
// the token, or is from a page of its session.
func (k *keys) mayChange(r *http.Request) bool {
	if k.bearer(r) {
		return true
	}
	cookie, ok := k.session(r)
	return ok && hmac.Equal([]byte(r.Header.Get("X-CSRF-Token")), []byte(k.csrf(cookie)))
}

// askForToken answers a request without one.
func (h *handler) askForToken(w http.ResponseWriter, r *http.Request, status int, complaint string) {
	w.Header().Set("WWW-Authenticate", `Bearer realm="swanlock"`)
	if r.URL.Path != "/" && r.URL.Path != "/login" {
		refuse(w, r, status, "the token is missing: Authorization: Bearer TOKEN, or sign in on the page")
		return
	}
	back := r.URL.RawQuery
	if r.Method == http.MethodPost {
		back = r.PostFormValue("back")
	}
	h.html(w, status, "login.html", struct{ Title, Back, Complaint string }{h.title, back, complaint})
}

func (h *handler) login(w http.ResponseWriter, r *http.Request) {
	switch {
	case h.keys == nil:
		refuse(w, r, http.StatusNotFound, "there is no token, so nobody needs to sign in")
		return
	case !h.keys.isToken(r.PostFormValue("token")):
		h.askForToken(w, r, http.StatusForbidden, "That is not the token.")
		return
	}
	text := strconv.FormatInt(time.Now().Add(sessionLife).Unix(), 10) + "." + rand.Text()
	h.setCookie(w, r, text+"."+h.keys.signature(text), int(sessionLife.Seconds()))
	to := "./"
	if query, err := url.ParseQuery(r.PostFormValue("back")); err == nil && len(query) > 0 {
		to += "?" + query.Encode()
	}
	// http.Redirect would make an absolute path of it, without the prefix under
	// which the handler may be mounted.
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusSeeOther)
}

func (h *handler) logout(w http.ResponseWriter, r *http.Request) {
	if h.keys != nil {
		h.setCookie(w, r, "", -1)
	}
	w.Header().Set("Location", "./")
	w.WriteHeader(http.StatusSeeOther)
}

// setCookie gives the cookie no path, so that it gets that of the page. It is
// Lax, so that a link in a chat leads to what it names.
func (h *handler) setCookie(w http.ResponseWriter, r *http.Request, value string, age int) {
	secure := r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
	http.SetCookie(w, &http.Cookie{Name: h.keys.name, Value: value, MaxAge: age, HttpOnly: true, Secure: secure, SameSite: http.SameSiteLaxMode})
}
