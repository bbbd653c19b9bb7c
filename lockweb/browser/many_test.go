package browser

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/performance"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// manyLocks is how many are held at once.
const manyLocks = 500

func name(i int) string  { return fmt.Sprintf("/lake/table-%03d", i) }
func owner(i int) string { return fmt.Sprintf("ingest-%d/%d", i%7, i) }

// holdMany takes many locks, of a pool.
func (s *scene) holdMany() (*pglock.Pool, []swanlock.DistributedLock) {
	s.t.Helper()
	pool, held := s.pool(pglock.WithAudit()), make([]swanlock.DistributedLock, manyLocks)
	var all sync.WaitGroup
	for i := range held {
		all.Go(func() { held[i] = s.hold(pool, name(i), owner(i), swanlock.WithTTL(10*time.Minute)) })
	}
	all.Wait()
	if s.t.Failed() {
		s.t.FailNow()
	}
	s.t.Cleanup(func() {
		for _, l := range held {
			_ = l.Release(context.Background()) // it may not be the first of its target
		}
	})
	return pool, held
}

// change has a lock change hands a number of times a second, until stop is called.
func (s *scene) change(pool *pglock.Pool, held []swanlock.DistributedLock, aSecond int) (stop func()) {
	ctx, cancel := context.WithCancel(s.t.Context())
	var all sync.WaitGroup
	for g := range 4 {
		all.Go(func() {
			tick := time.NewTicker(4 * time.Second / time.Duration(aSecond))
			defer tick.Stop()
			for i := g; ctx.Err() == nil; i = (i + 4) % (manyLocks / 5) { // The newest 500 holds have several of each.
				<-tick.C
				_ = held[i].Release(context.Background())
				next, err := pool.Acquire(ctx, name(i), swanlock.WithOwner(owner(i+1)), swanlock.WithTTL(10*time.Minute))
				if err != nil {
					return
				}
				held[i] = next
			}
		})
	}
	return func() { cancel(); all.Wait() }
}

// TestManyLocks: 500 locks are all there, the search finds one, the keys do what the
// page says, and hand-overs are seen.
func TestManyLocks(t *testing.T) {
	s := newScene(t, true)
	pool, held := s.holdMany()
	for _, l := range []look{light, dark, small} {
		p := newTab(t, l)
		p.open(s.url)
		p.until("the first rows", `document.querySelectorAll("#held tbody tr").length === 100`)
		p.says("#sum-locks", "500")
		p.says("#line-note", "40 of 500 targets")
		p.readable()
		p.shoot("500")
	}

	p := newTab(t, light)
	p.open(s.url)
	p.run(press("/"), chromedp.KeyEvent("TABLE-123"))
	p.until("one row", `document.querySelectorAll("#held tbody tr").length === 1`)
	p.says("#held", name(123), owner(123))
	p.says("#held-note", "1 of 500 locks")
	p.until("a link to it", `location.search === "?q=TABLE-123"`)
	p.run(chromedp.KeyEvent("xyz"))
	p.says("#held-empty", "None of the 500 locks", "Look for it in the history")
	p.run(chromedp.KeyEvent(kb.Escape))
	p.until("the first rows", `document.querySelectorAll("#held tbody tr").length === 100`)
	p.says("#held-rest", "Show the other 400 locks")
	p.run(chromedp.Click("#held-rest button"))
	p.until("all rows", `document.querySelectorAll("#held tbody tr").length === 500 && document.querySelector("#held-rest").hidden`)
	p.run(chromedp.Focus("#line svg[tabindex]"), chromedp.KeyEvent(kb.ArrowRight))
	p.says("#line .detail", "Held by ingest-", "held now")
	before := p.text("#line .detail")
	p.run(chromedp.KeyEvent(kb.ArrowUp))
	p.until("another hold", fmt.Sprintf("document.querySelector('#line .detail').innerText !== %q", before))

	p = newTab(t, light)
	p.open(s.url)
	defer s.change(pool, held, 100)()
	p.until("a hand-over", `[...document.querySelectorAll("#line .line .hold title")].some((t) => t.textContent.includes("handed over to"))`)
	p.shoot("500-changing")
}

// BenchmarkManyLocks measures when a page of 500 locks is there, and how smooth it is
// for 8 seconds while 100 locks a second change hands.
func BenchmarkManyLocks(b *testing.B) {
	s := newScene(b, true)
	pool, held := s.holdMany()
	p := newTab(b, light)
	const paint = `performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? -1`
	p.open(s.url)
	first, ready := eval[float64](p, paint), eval[float64](p, `performance.getEntriesByName("swanlock-ready")[0].startTime`)
	p.open(s.url)
	again, answered := eval[float64](p, paint), eval[float64](p, `performance.getEntriesByType("navigation")[0].responseEnd`)
	for b.Loop() {
		stop := s.change(pool, held, 100)
		time.Sleep(2 * time.Second)
		costs := p.costs()
		frames := eval[map[string]float64](p, `new Promise((done) => {
			const gaps = []; let last = performance.now(); const from = last;
			requestAnimationFrame(function frame(t) {
				gaps.push(performance.now() - last); last = performance.now();
				if (last - from < 8000) return requestAnimationFrame(frame);
				gaps.sort((a, b) => a - b);
				done({ "frames/s": gaps.length / (last - from) * 1000, "ms/frame-median": gaps[gaps.length >> 1], "ms/frame-p99": gaps[Math.floor(gaps.length * 0.99)], "ms/frame-worst": gaps.at(-1) });
			});
		})`)
		for name, cost := range p.costs() {
			b.ReportMetric((cost-costs[name])/8*1000, "ms/s-"+name)
		}
		stop()
		for name, value := range frames {
			b.ReportMetric(value, name)
		}
	}
	b.ReportMetric(first, "ms/paint")
	b.ReportMetric(ready, "ms/locks")
	b.ReportMetric(again, "ms/paint-again")
	b.ReportMetric(answered, "ms/answer-again")
}

// press is a key that types a character, unless the page prevents that.
func press(key string) chromedp.Action[chromedp.Void] {
	return chromedp.Steps(call(input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: key}),
		call(input.DispatchKeyEvent, input.DispatchKeyEventParams{Type: input.DispatchKeyEventTypeKeyUp, Key: key}))
}

// costs says how many seconds the page has spent in what, so far.
func (p *tab) costs() map[string]float64 {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, performance.Enable, performance.EnableParams{}); err != nil {
		p.t.Fatal(err)
	}
	got, err := chromedp.Call(p.ctx, performance.GetMetrics, cdp.Empty{})
	if err != nil {
		p.t.Fatal(err)
	}
	costs := map[string]float64{}
	for _, m := range got.Metrics {
		switch m.Name {
		case "LayoutDuration", "RecalcStyleDuration", "ScriptDuration", "TaskDuration":
			costs[m.Name] = m.Value
		}
	}
	return costs
}
