package lockweb_test

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/lockweb"
)

func connectURL() string { return pgserver.Default().URL() }

func header(name, value string) func(*http.Request) {
	return func(r *http.Request) { r.Header.Set(name, value) }
}

func host(name string) func(*http.Request) { return func(r *http.Request) { r.Host = name } }

// TestHosts: who is answered under which name.
func TestHosts(t *testing.T) {
	on := connect(t, "pgx", "")
	none, withToken := serve(t, on), serve(t, on, lockweb.WithToken(token))
	named := serve(t, on, lockweb.WithHosts("Locks.example.com"))
	for _, tt := range []struct {
		what string
		s    *site
		edit func(*http.Request)
		want int
	}{
		{"as it is", none, nil, 200},
		{"localhost", none, host("LocalHost:80"), 200},
		{"IPv6", none, host("[::1]:80"), 200},
		{"IPv6 without a port", none, host("[::1]"), 200},
		{"another name", none, host("evil.example"), 421},
		{"another name that begins alike", none, host("localhost.evil.example"), 421},
		{"127.0.0.1 as the beginning of a name", none, host("127.0.0.1.evil.example:80"), 421},
		{"another address", none, host("10.1.2.3:80"), 421},
		{"no name", none, host("%"), 421},
		{"brought by a proxy", none, header("X-Forwarded-For", "10.1.2.3"), 421},
		{"an address, with a token", withToken, host("10.1.2.3:80"), 401},
		{"a name, with a token", withToken, host("evil.example"), 421},
		{"a name that was named", named, host("locks.example.COM.:8080"), 200},
		{"localhost beside it", named, nil, 200},
		{"another name beside it", named, host("locks.example"), 421},
	} {
		for _, path := range []string{"/", "/api/state", "/metrics", "/healthz", "/app.js"} {
			wanted := tt.want
			if wanted == 401 && (path == "/healthz" || path == "/app.js") {
				wanted = 200
			}
			if answer, text := tt.s.send("GET", path, "", tt.edit); answer.StatusCode != wanted {
				t.Errorf("%s: %s: %d, %.200s, want %d", tt.what, path, answer.StatusCode, text, wanted)
			}
		}
	}
}

// TestNotLoopback: without a token, what came to another address of this machine
// is refused, whatever name it bears.
func TestNotLoopback(t *testing.T) {
	h := lockweb.Handler(connect(t, "pgx", ""))
	for addr, wanted := range map[string]int{"127.0.0.1": 200, "::1": 200, "10.0.0.1": 421, "0.0.0.0": 421} {
		r := httptest.NewRequest("GET", "http://localhost/", nil)
		r = r.WithContext(context.WithValue(r.Context(), http.LocalAddrContextKey, &net.TCPAddr{IP: net.ParseIP(addr), Port: 80}))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		want(t, "came to "+addr, w.Code, wanted)
	}
}

// TestOtherSites: a page of another site can link to ours, and nothing else.
func TestOtherSites(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""), lockweb.WithToken(token))
	own := func(more ...func(*http.Request)) func(*http.Request) {
		return func(r *http.Request) {
			bearer(r)
			for _, f := range more {
				f(r)
			}
		}
	}
	site := func(from string) func(*http.Request) { return header("Sec-Fetch-Site", from) }
	navigate := func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "document")
	}
	frame := func(r *http.Request) {
		r.Header.Set("Sec-Fetch-Mode", "navigate")
		r.Header.Set("Sec-Fetch-Dest", "iframe")
	}
	for _, tt := range []struct {
		what, method, path string
		edit               func(*http.Request)
		want               int
	}{
		{"own page", "GET", "/api/state", own(site("same-origin")), 200},
		{"typed", "GET", "/", own(site("none")), 200},
		{"a link", "GET", "/", own(site("cross-site"), navigate), 200},
		{"a frame", "GET", "/", own(site("cross-site"), frame), 403},
		{"a link to the data", "GET", "/api/state", own(site("cross-site"), navigate), 403},
		{"a script", "GET", "/app.js", own(site("cross-site")), 403},
		{"a neighbour", "GET", "/api/state", own(site("same-site")), 403},
		{"an origin", "GET", "/api/state", own(header("Origin", "http://evil.example")), 403},
		{"another port", "GET", "/api/state", own(header("Origin", "http://127.0.0.1:1")), 403},
		{"no origin", "GET", "/api/state", own(header("Origin", "null")), 403},
		{"own origin", "GET", "/api/state", own(header("Origin", s.url)), 200},
		{"a form", "POST", "/api/kill", own(site("cross-site"), navigate), 403},
		{"a form of an old browser", "POST", "/api/kill", own(header("Origin", "http://evil.example")), 403},
		{"a form to sign in", "POST", "/login", own(site("cross-site"), navigate), 403},
		{"the token as a form", "POST", "/api/kill", own(header("Content-Type", "text/plain")), 415},
		{"a wrong method", "POST", "/api/state", own(), 405},
		{"a wrong method", "GET", "/api/kill", own(), 405},
		{"no such path", "GET", "/web/page.html", own(), 404},
	} {
		if answer, text := s.send(tt.method, tt.path, "{}", tt.edit); answer.StatusCode != tt.want {
			t.Errorf("%s: %s %s: %d, %.200s, want %d", tt.what, tt.method, tt.path, answer.StatusCode, text, tt.want)
		}
	}
}

// TestToken: nothing is told without the token; a browser shows it once; and a
// kill must come from a page of that session.
func TestToken(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""), lockweb.WithToken(token))
	for _, path := range []string{"/api/state", "/api/events", "/api/history", "/api/held", "/metrics"} {
		for what, edit := range map[string]func(*http.Request){
			"nothing": nil, "a wrong token": header("Authorization", "Bearer "+token+"x"), "no scheme": header("Authorization", token),
			"a cookie": header("Cookie", "swanlock=1"),
		} {
			if answer, text := s.send("GET", path, "", edit); answer.StatusCode != 401 || strings.Contains(text, "locks") {
				t.Errorf("%s with %s: %d, %s", path, what, answer.StatusCode, text)
			}
		}
	}
	answer, text := s.get(`/?target="><script>alert(1)</script>`)
	want(t, "status", answer.StatusCode, 401)
	want(t, "reflected", strings.Contains(text, "<script>alert"), false)
	form := func(values url.Values) (*http.Response, string) {
		return s.send("POST", "/login", values.Encode(), header("Content-Type", "application/x-www-form-urlencoded"))
	}
	answer, text = form(url.Values{"token": {"<b>wrong"}, "back": {`q="><i>`}})
	want(t, "status", answer.StatusCode, 403)
	contains(t, "the answer", text, "That is not the token.", "q=&#34;&gt;&lt;i&gt;")
	want(t, "cookies", len(answer.Cookies()), 0)
	for back, to := range map[string]string{"": "./", "target=a%2Fb": "./?target=a%2Fb", "//evil.example": "./?%2F%2Fevil.example=", "%zz": "./"} {
		answer, _ = form(url.Values{"token": {token}, "back": {back}})
		want(t, "status", answer.StatusCode, 303)
		want(t, "where it leads", answer.Header.Get("Location"), to)
	}
	cookie := answer.Cookies()[0]
	if !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.MaxAge <= 0 || strings.Contains(cookie.Value, token) {
		t.Errorf("the cookie is %v", cookie)
	}
	in := func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookie.Name, Value: cookie.Value}) }
	answer, text = s.send("GET", "/", "", in)
	want(t, "status with the cookie", answer.StatusCode, 200)
	csrf := regexp.MustCompile(`data-csrf="([0-9a-f]{64})"`).FindStringSubmatch(text)
	if csrf == nil {
		t.Fatalf("the page has no CSRF token:\n%s", text)
	}
	for _, forged := range []string{"", "9999999999.x." + strings.Repeat("0", 64), cookie.Value + "0", "9" + cookie.Value, strings.Replace(cookie.Value, ".", "", 1)} {
		answer, _ = s.send("GET", "/api/state", "", func(r *http.Request) { r.AddCookie(&http.Cookie{Name: cookie.Name, Value: forged}) })
		want(t, "status with the cookie "+forged, answer.StatusCode, 401)
	}
	kill := func(token string) int {
		answer, _ := s.send("POST", "/api/kill", `{"pid":2147483647,"started":"1","key":"1","by":""}`, func(r *http.Request) {
			in(r)
			r.Header.Set("Content-Type", "application/json")
			r.Header.Set("X-CSRF-Token", token)
		})
		return answer.StatusCode
	}
	want(t, "kill without the CSRF token", kill(""), 403)
	want(t, "kill with another", kill(strings.Repeat("0", 64)), 403)
	want(t, "kill with it", kill(csrf[1]), 409) // there is no such session
	answer, _ = s.send("POST", "/logout", "", in)
	want(t, "signed out", answer.Cookies()[0].MaxAge, -1)

	other := serve(t, connect(t, "pgx", ""), lockweb.WithToken("another "+token))
	answer, _ = other.send("GET", "/api/state", "", in)
	want(t, "status with another page's cookie", answer.StatusCode, 401)
}

// TestReadOnly: without a token nothing can be changed.
func TestReadOnly(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""))
	answer, text := s.send("POST", "/api/kill", `{"pid":1,"started":"","key":"1","by":""}`, header("Content-Type", "application/json"))
	want(t, "kill", answer.StatusCode, 403)
	contains(t, "the answer", text, "read-only")
	_, text = s.get("/")
	want(t, "a dialog", strings.Contains(text, "<dialog"), false)
	answer, _ = s.send("POST", "/login", "token=x", header("Content-Type", "application/x-www-form-urlencoded"))
	want(t, "login", answer.StatusCode, 404)
	defer func() {
		if recover() == nil {
			t.Error("a short token is taken")
		}
	}()
	lockweb.WithToken("short")
}

// TestHeaders: every answer has them, and the page needs nothing that they
// forbid, nor anything from elsewhere.
func TestHeaders(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""), lockweb.WithTitle(`<i>"lake"</i>`))
	for _, path := range []string{"/", "/app.js", "/style.css", "/api/state", "/api/held?at=x", "/metrics", "/healthz", "/no-such"} {
		answer, text := s.get(path)
		policy := answer.Header.Get("Content-Security-Policy")
		contains(t, path+"'s policy", policy, "default-src 'none'", "script-src 'self';", "style-src 'self';", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'self'", "require-trusted-types-for 'script'")
		want(t, path+" inline", strings.Contains(policy, "unsafe") || strings.Contains(policy, "data:"), false)
		want(t, path+": X-Content-Type-Options", answer.Header.Get("X-Content-Type-Options"), "nosniff")
		want(t, path+": Cross-Origin-Resource-Policy", answer.Header.Get("Cross-Origin-Resource-Policy"), "same-origin")
		want(t, path+": Access-Control-Allow-Origin", answer.Header.Get("Access-Control-Allow-Origin"), "")
		if strings.Contains(answer.Header.Get("Content-Type"), "html") {
			want(t, "Cache-Control", answer.Header.Get("Cache-Control"), "no-store")
			contains(t, "the title", text, "&lt;i&gt;")
			if bad := regexp.MustCompile(`(?i)\son\w+=|style=|<style|<script>|javascript:|(src|href)="(https?:)?//`).FindString(text); bad != "" {
				t.Errorf("%s has %q", path, bad)
			}
		}
	}
	for _, name := range []string{"app.js", "dom.js", "kill.js", "live.js", "locks.js", "timeline.js", "views.js"} {
		answer, text := s.get("/" + name)
		want(t, name, answer.StatusCode, 200)
		if bad := regexp.MustCompile(`innerHTML|outerHTML|insertAdjacentHTML|document\.write|eval\(|new Function|https?://(?:[^w]|w[^w])`).FindString(text); bad != "" {
			t.Errorf("%s has %q", name, bad)
		}
		tag := answer.Header.Get("ETag")
		answer, _ = s.send("GET", "/"+name, "", header("If-None-Match", tag))
		want(t, name+" again", answer.StatusCode, 304)
	}
}

// TestMounted: it works below a path.
func TestMounted(t *testing.T) {
	mux := http.NewServeMux()
	mux.Handle("/locks/", http.StripPrefix("/locks", lockweb.Handler(connect(t, "pgx", ""), lockweb.WithToken(token))))
	server := httptest.NewServer(mux)
	defer server.Close()
	s := &site{t, server.URL, server.Client()}
	s.client.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	answer, _ := s.send("POST", "/locks/login", url.Values{"token": {token}}.Encode(), header("Content-Type", "application/x-www-form-urlencoded"))
	to, err := answer.Location()
	must(t, err)
	want(t, "where it leads", to.Path, "/locks/")
	want(t, "the cookie's path", answer.Cookies()[0].Path, "") // that is, /locks
	_, text := s.send("GET", "/locks/", "", bearer)
	for _, file := range regexp.MustCompile(`(?:src|href)="([^"]+)"`).FindAllStringSubmatch(text, -1) {
		if strings.HasPrefix(file[1], "/") {
			t.Errorf("the page wants %s, which is not below it", file[1])
		}
	}
}

// TestNilOption: an option that is nil does nothing, as with every other package.
func TestNilOption(t *testing.T) {
	if lockweb.Handler(nil, nil) == nil {
		t.Error("there is no handler")
	}
}

// TestLeastInterval: the server is not looked at more often than ten times a second.
func TestLeastInterval(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""), lockweb.WithInterval(0))
	messages := s.stream(nil)
	<-messages
	begun := time.Now()
	<-messages
	if took := time.Since(begun); took < 50*time.Millisecond {
		t.Errorf("the next look came after %v, want 100ms", took)
	}
}

// TestTooManyPages: there is a bound on the streams, and one that ends makes room.
func TestTooManyPages(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""))
	open := func() (status int, end func()) {
		ctx, stop := context.WithCancel(bg)
		r, err := http.NewRequestWithContext(ctx, "GET", s.url+"/api/events", nil)
		must(t, err)
		answer, err := s.client.Do(r)
		must(t, err)
		end = func() { stop(); answer.Body.Close() }
		t.Cleanup(end)
		return answer.StatusCode, end
	}
	var ends []func()
	for range 64 {
		status, end := open()
		want(t, "status", status, 200)
		ends = append(ends, end)
	}
	status, _ := open()
	want(t, "status of one more", status, 503)
	_, text := s.get("/metrics")
	contains(t, "the metrics", text, "swanlock_server_pages 64\n")
	ends[0]()
	for end := time.Now().Add(patience); status != 200 && time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		status, _ = open()
	}
	want(t, "status when one has ended", status, 200)
}

// TestCookieOverHTTPS: if the page came over https, if only as far as a proxy, so does
// the cookie of its session, and never otherwise.
func TestCookieOverHTTPS(t *testing.T) {
	s := serve(t, connect(t, "pgx", ""), lockweb.WithToken(token))
	for proto, secure := range map[string]bool{"": false, "http": false, "HTTPS": true} {
		answer, text := s.send("POST", "/login", url.Values{"token": {token}}.Encode(), func(r *http.Request) {
			r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
			r.Header.Set("X-Forwarded-Proto", proto)
		})
		cookies := answer.Cookies()
		if len(cookies) != 1 {
			t.Fatalf("%q: %d cookies: %d, %s", proto, len(cookies), answer.StatusCode, text)
		}
		if c := cookies[0]; c.Secure != secure || !c.HttpOnly || c.SameSite != http.SameSiteLaxMode {
			t.Errorf("%q: got %v", proto, c)
		}
	}
}
