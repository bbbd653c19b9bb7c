package browser

import (
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/swanlake-io/swanlock/lockweb"
	"github.com/swanlake-io/swanlock/pglock"
)

// eachLook runs f for each way to see the page.
func eachLook(t *testing.T, f func(p *tab)) {
	for _, l := range []look{light, dark, small} {
		t.Run(l.name, func(t *testing.T) { f(newTab(t, l)) })
	}
}

func TestEmpty(t *testing.T) {
	s := newScene(t, true)
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.says("#held-empty", "No lock is held, in any database of this server.")
		p.says("#line-empty", "The audit has no hold of the last 15 minutes.")
		p.says("#top-empty", "Nobody waits")
		p.says("#status", "live")
		p.readable()
		p.shoot("empty")
	})
}

func TestNoAudit(t *testing.T) {
	s := newScene(t, false)
	s.hold(s.session(), "/lake/t1", "me")
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.says("#held", fmt.Sprintf("key %d", pglock.KeyOf("/lake/t1")), "known by its key only")
		p.says("#line-empty", "There is no history", "swanlock migrate up")
		p.readable()
		p.shoot("no-audit")
		p.open(s.url + "?at=2026-01-01T00:00:00Z")
		p.says("#view", "Held at", "There is no history")
		p.readable()
	})
}

func TestBusy(t *testing.T) {
	s := newScene(t, true)
	s.busy()
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.says("#held", "/lake/checkpoint", "ingest-2/812", "reader-3/5", "not in the audit", "known by its key only", "pair 7, 12", "not swanlock's", "3, the first for")
		p.says("#sum-locks", "8")
		p.says("#sum-waiters", "3")
		p.says("#top", "/lake/checkpoint")
		p.until("lanes", `document.querySelectorAll("#line li a").length >= 5`)
		p.until("a lost hold", `document.querySelectorAll("#line .line .hold.lost").length >= 3`)
		p.until("an orphan", `document.querySelectorAll("#line .line .hold.orphaned").length === 1`)
		p.until("a fence to be seen", `[...document.querySelectorAll("#line .line .hold title")].some((t) => t.textContent.includes("fence 105") && t.textContent.includes("lost: its TTL ran out"))`)
		p.until("who came next", `[...document.querySelectorAll("#line .line .hold title")].some((t) => /handed over to ingest-\d\/812 after \d ms/.test(t.textContent))`)
		p.run(chromedp.Click(`#held summary`))
		p.says("#held", "for ")
		p.readable()
		p.shoot("busy")
	})
}

// TestTarget: a link leads to a target's history, which goes on by itself.
func TestTarget(t *testing.T) {
	s := newScene(t, true)
	s.busy()
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.run(chromedp.Click(`#held a[href*="checkpoint"]`))
		p.says("h1", "/lake/checkpoint")
		p.says("#view", "holds, the newest first", "lost: its TTL ran out", "killed by alice (swanlock kill)", "held now")
		p.says("#held", "ingest-2/812")
		p.until("one lock alone", `document.querySelectorAll("#held tbody tr").length === 1`)
		p.readable()
		p.shoot("target")
	})
	p := newTab(t, light)
	target := "a*b?c\\d \"e\""
	p.open(s.url + "?target=" + url.QueryEscape(target))
	p.says("#view", "The audit has no hold of this target in that time.")
	held := s.hold(s.session(pglock.WithAudit()), target, "odd")
	p.says("#view", "1 hold, the newest first", "odd", "held now")
	p.says("#held", "odd")
	s.exec("UPDATE lock_audit SET succeeded_at = now() WHERE target = $1", target)
	if err := held.Release(t.Context()); err != nil {
		t.Fatal(err)
	}
	p.says("#view", "released, succeeded")
	p.says("#held-empty", "Nobody holds this lock now.")
}

// TestMoment: a link leads to what was held then.
func TestMoment(t *testing.T) {
	s := newScene(t, true)
	s.busy()
	at := time.Now().Add(-10 * time.Minute).UTC().Format(time.RFC3339)
	eachLook(t, func(p *tab) {
		p.open(s.url + "?at=" + at)
		p.says("#view", "Held at", "locks were held.", "/lake/checkpoint", "orphaned")
		p.until("bars", `document.querySelectorAll("#view .line .hold").length > 3`)
		p.readable()
		p.shoot("moment")
	})
	p := newTab(t, light)
	p.open(s.url + "?at=%3Cscript%3Enever")
	p.says("#view", "That is no moment", "<script>never")
	p.open(s.url)
	eval[string](p, `document.querySelector("#at").value = "2020-02-03T04:05:06"`)
	p.run(chromedp.Click("#when button"))
	p.says("#view", "3 Feb 2020", "no lock was held at that moment")
}

// TestHostileNames: a name is text, however it is written.
func TestHostileNames(t *testing.T) {
	s := newScene(t, true)
	names := []string{
		`<script>document.title="owned"</script>`, `"><img src=x onerror="document.title='owned'">`, `'"` + "`" + `;--&lt;&amp;`,
		"\u202egnp.exe\u2066", "שלום עולם/נעילה", "line\nbreak\x1b[31m", strings.Repeat("long-", 400), "/a b/%2F?x=1&y#z", "javascript:document.title='owned'",
	}
	l := s.session(pglock.WithAudit())
	for _, name := range names {
		s.hold(l, name, name)
		s.past(name, name, 9, time.Minute, 30*time.Second, "released")
	}
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.until("all of them", fmt.Sprintf(`document.querySelectorAll("#held tbody tr").length === %d`, len(names)))
		p.until("their lanes", fmt.Sprintf(`document.querySelectorAll("#line li a").length === %d`, len(names)))
		p.says("#held", `<script>document.title="owned"</script>`, `\u{202e}gnp.exe\u{2066}`, `line\u{a}break\u{1b}[31m`)
		p.readable()
		p.shoot("hostile")
	})
	p := newTab(t, light)
	for _, name := range names {
		p.open(s.url + "?q=" + url.QueryEscape(name) + "&target=" + url.QueryEscape(name))
		p.says("#view", "2 holds")
		if name == names[0] {
			p.shoot("hostile-target")
		}
		if title := eval[string](p, "document.title"); title == "owned" {
			t.Errorf("%q was run", name)
		}
		if n := eval[int](p, `document.querySelectorAll("img, body script").length`); n != 0 {
			t.Errorf("%q became %d elements", name, n)
		}
	}
}

// TestServerDown: what was known stays, with when it was so.
func TestServerDown(t *testing.T) {
	s := newScene(t, true)
	s.busy()
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.says("#held", "/lake/checkpoint")
		p.says("#status", "live")
		resume, err := s.server.Pause()
		if err != nil {
			t.Fatal(err)
		}
		p.says("#banner", "PostgreSQL does not answer", "no answer within 5s", "What is shown was so at ")
		p.says("#status", "no answer since")
		p.says("#held", "/lake/checkpoint")
		p.readable()
		p.shoot("down")
		resume()
		p.says("#status", "live")
		p.until("no banner", `document.querySelector("#banner").hidden`)
	})
}

// TestDownFromTheStart: with nothing known, that is what the page says.
func TestDownFromTheStart(t *testing.T) {
	s := newScene(t, true)
	if err := s.server.Stop(); err != nil {
		t.Fatal(err)
	}
	eachLook(t, func(p *tab) {
		p.open(s.url)
		p.says("#banner", "PostgreSQL does not answer")
		p.says("#held-empty", "Nothing is known yet")
		p.says("#line-empty", "Nothing is known yet")
		p.readable()
		p.shoot("down-from-start")
	})
}

// TestKill: a holder's session is ended after the page was told so twice.
func TestKill(t *testing.T) {
	s := newScene(t, true, lockweb.WithToken(token))
	held := s.hold(s.session(pglock.WithAudit()), "/lake/stuck", "stuck-1/3")
	for _, l := range []look{light, dark} {
		p := newTab(t, l)
		p.run(call(network.ClearBrowserCookies, cdp.Empty{}), chromedp.Navigate(s.url+"?q=stuck"))
		p.says("main", "Token")
		p.readable()
		p.shoot("sign-in")
		p.run(chromedp.SendKeys("#token", "wrong-token-wrong-token"+kb.Enter))
		p.says("main", "That is not the token.")
		p.readable()
		p.run(chromedp.SendKeys("#token", token+kb.Enter))
		p.until("the first change", `document.documentElement?.dataset.ready === "yes"`)
		p.until("the search", `location.search === "?q=stuck"`)
		p.run(chromedp.Click(".row-kill"))
		p.says("#kill", "End this session?", "/lake/stuck", "stuck-1/3")
		p.readable()
		p.shoot("kill")
		// Enter keeps it: that button has the focus.
		p.run(chromedp.KeyEvent(kb.Enter))
		p.until("no dialog", `!document.querySelector("#kill").open`)
		if held.Err() != nil {
			t.Fatalf("the lock is %v", held.Err())
		}
		if l == light {
			continue
		}
		p.run(chromedp.Click(".row-kill"), chromedp.SendKeys("#kill-by", "bob"), chromedp.Click("#kill-yes"))
		p.until("no dialog", `!document.querySelector("#kill").open`)
		p.says("#held-empty", "No lock is held")
		p.until("it in the history", `[...document.querySelectorAll("#line .line .hold title")].some((t) => t.textContent.includes("killed by bob (on the web page, from 127.0.0.1)"))`)
	}
}
