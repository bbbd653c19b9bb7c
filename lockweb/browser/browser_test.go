package browser

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// patience is how long a test waits for what should come at once.
const patience = 15 * time.Second

// chromium starts one browser for all tests, or says why there is none.
var chromium = sync.OnceValues(func() (context.Context, error) {
	path := os.Getenv("SWANLOCK_CHROMIUM")
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if path == "" {
			path, _ = exec.LookPath(name)
		}
	}
	if path == "" {
		return nil, fmt.Errorf("Chromium is missing (Debian's package chromium)")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.WSURLReadTimeout(2*patience))
	allocator, cancel := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ := chromedp.NewContext(allocator)
	endBrowser = func() { _ = chromedp.Cancel(ctx); cancel() }
	return ctx, chromedp.Do(ctx)
})

var endBrowser = func() {}

// A tab shows a page, and keeps what went wrong in it.
type tab struct {
	t    testing.TB
	ctx  context.Context
	name string
	mu   sync.Mutex
	bad  []string
}

// A look is how the page is seen.
type look struct {
	name   string
	scheme string
	width  int64
}

var (
	light = look{"light", "light", 1280}
	dark  = look{"dark", "dark", 1280}
	small = look{"small", "light", 400}
)

func newTab(t testing.TB, l look) *tab {
	t.Helper()
	browser, err := chromium()
	if err != nil {
		t.Skip("NOT TESTED: ", err)
	}
	ctx, cancel := chromedp.NewContext(browser)
	if err := chromedp.Do(ctx); err != nil {
		cancel()
		t.Fatal(err)
	}
	ctx, stop := context.WithTimeout(ctx, 2*time.Minute)
	p := &tab{t: t, ctx: ctx, name: l.name}
	t.Cleanup(func() {
		stop()
		cancel()
		p.mu.Lock()
		defer p.mu.Unlock()
		for _, bad := range p.bad {
			t.Errorf("in the page: %s", bad)
		}
	})
	err = chromedp.Listen(ctx, func(event any) {
		text := ""
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			text = fmt.Sprintf("%+v", e.ExceptionDetails)
		case *log.EventEntryAdded:
			// The browser notes each answer that is an error; those are asked for.
			if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
				text = e.Entry.Text
			}
		}
		if text != "" {
			p.mu.Lock()
			p.bad = append(p.bad, text)
			p.mu.Unlock()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	p.run(call(log.Enable, cdp.Empty{}), call(runtime.Enable, cdp.Empty{}), chromedp.EmulateViewport(l.width, 900),
		call(emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: l.scheme}, {Name: "prefers-reduced-motion", Value: "reduce"}}}))
	return p
}

// call is an action that sends one command.
func call[P, R any](command cdp.Command[P, R], params P) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, command, params)
		return err
	})
}

func (p *tab) run(actions ...chromedp.Action[chromedp.Void]) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, actions...); err != nil {
		p.t.Fatal(err)
	}
}

// open goes to an address, and waits until the stream has brought something.
func (p *tab) open(url string) {
	p.t.Helper()
	p.run(chromedp.Navigate(url))
	p.until("the first change", `document.documentElement?.dataset.ready === "yes"`)
}

// eval returns what an expression is in the page.
func eval[T any](p *tab, expression string) (v T) {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		p.t.Fatalf("%.200s: %v", expression, err)
	}
	return v
}

// until waits until an expression is true in the page.
func (p *tab) until(what, expression string) {
	p.t.Helper()
	for end := time.Now().Add(patience); !eval[bool](p, expression); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			p.t.Fatalf("after %v there is still no %s; the page says:\n%s", patience, what, p.text("body"))
		}
	}
}

// text is what is to be read in an element.
func (p *tab) text(selector string) string {
	p.t.Helper()
	return eval[string](p, fmt.Sprintf("document.querySelector(%q)?.innerText ?? ''", selector))
}

// says waits until an element says all of the texts.
func (p *tab) says(selector string, texts ...string) {
	p.t.Helper()
	for _, text := range texts {
		p.until(fmt.Sprintf("%q in %s", text, selector), fmt.Sprintf("(document.querySelector(%q)?.innerText ?? '').includes(%q)", selector, text))
	}
}

// shoot keeps a picture, if a folder is named.
func (p *tab) shoot(name string) {
	p.t.Helper()
	dir := os.Getenv("SWANLOCK_SCREENSHOTS")
	if dir == "" {
		return
	}
	whole := true
	picture, err := chromedp.Call(p.ctx, page.CaptureScreenshot, page.CaptureScreenshotParams{CaptureBeyondViewport: &whole})
	if err != nil {
		p.t.Fatal(err)
	}
	png := picture.Data
	if err := os.WriteFile(filepath.Join(dir, name+"-"+p.name+".png"), png, 0o644); err != nil {
		p.t.Fatal(err)
	}
}

// unreadable finds texts whose contrast is under 4.5, what can be used without
// a name, and what is wider than the page.
const unreadable = `(() => {
  const rgb = (text) => (text.match(/[\d.]+/g) ?? [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map((c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  function back(e) {
    for (; e; e = e.parentElement) {
      const c = rgb(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] === 1) return c;
    }
    return [255, 255, 255];
  }
  const found = new Set();
  for (const e of document.querySelectorAll("body *")) {
    if (!e.checkVisibility() || ![...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim())) continue;
    const style = getComputedStyle(e), svg = e instanceof SVGElement;
    if (svg && e.localName !== "text" || e.closest(":disabled")) continue;
    const [a, b] = [light(rgb(svg ? style.fill : style.color)), light(back(e))].sort((a, b) => b - a);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) found.add("contrast " + ratio.toFixed(2) + " of " + e.localName + "." + (e.getAttribute("class") ?? "") + ": " + e.textContent.slice(0, 30));
  }
  for (const e of document.querySelectorAll("a, button, input, select, summary, [tabindex]")) {
    if (!e.checkVisibility()) continue;
    const name = e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim() || e.labels?.length;
    if (!name && e.type !== "hidden" && e.id !== "main") found.add("no name: " + e.outerHTML.slice(0, 80));
  }
  const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
  for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) found.add("id twice: " + id);
  if (document.documentElement.scrollWidth > innerWidth) found.add("wider than the page: " + document.documentElement.scrollWidth);
  return [...found].join("\n");
})()`

func (p *tab) readable() {
	p.t.Helper()
	if found := eval[string](p, unreadable); found != "" {
		p.t.Errorf("%s:\n%s", p.name, found)
	}
}
