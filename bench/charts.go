package main

import (
	"bytes"
	"errors"
	"fmt"
	"image/color"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/perf/benchfmt"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/plotutil"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// A chart shows what some contenders of a benchmark measured, over the numbers in
// its name: the medians of the rounds.
type chart struct {
	file, title  string
	bench        string // without the number and the contender
	x            string // the key of the number
	unit         string
	yLabel       string
	log          bool
	contenders   []string
	explanations []string // of the contenders, for the legend
}

var (
	racers = []string{"swanlock-pgx", "redislock-autopipeline", "redislock", "etcd"}
	legend = []string{"swanlock, a Pool on one connection (1,024 goroutines: three)", "redislock, AutoPipeline (experimental)", "redislock, 32 connections at most", "etcd, concurrency.Mutex"}
	charts = []chart{
		{"bench-pairs.svg", "Acquires and releases a second, of locks that nobody else wants", "Pool", "goroutines", "pairs/s", "pairs/s", true, racers, legend},
		{"bench-pairs-network.svg", "The same with 1 ms of network between", "Pool/network=1ms", "goroutines", "pairs/s", "pairs/s", true, racers, legend},
		{"bench-handovers.svg", "Hand-overs a second, of one lock among waiters in four processes", "Waiters/processes=4", "waiters", "handovers/s", "hand-overs/s", false, []string{"swanlock"}, []string{""}},
		{"bench-held.svg", "An acquire and a release beside locks that are held", "Many", "locks", "µs/pair", "µs", false, []string{"swanlock"}, []string{""}},
	}
)

// A point of a chart is named like its benchmark, but for the number.
type point struct {
	bench, by, unit, key string
	number               float64
}

// drawCharts draws each chart that the output of a run has something for, into a
// folder.
func drawCharts(output io.Reader, dir string) error {
	points, err := read(output)
	if err != nil {
		return err
	}
	drawn := 0
	for _, c := range charts {
		p, err := c.plot(points)
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if p == nil {
			fmt.Fprintf(os.Stderr, "bench: %s: left out: the output has no such rows\n", c.file)
			continue
		}
		if err := save(p, c.title, filepath.Join(dir, c.file)); err != nil {
			return err
		}
		drawn++
	}
	if drawn == 0 {
		return errors.New("no chart: standard input must be the output of a run")
	}
	return nil
}

// read gathers the rounds of each point.
func read(output io.Reader) (map[point]series, error) {
	points := make(map[point]series)
	numbers := make(map[string]bool)
	for _, c := range charts {
		numbers[c.x] = true
	}
	r := benchfmt.NewReader(output, "standard input")
	for r.Scan() {
		result, ok := r.Result().(*benchfmt.Result)
		if !ok {
			continue // a line of the table, perhaps
		}
		base, parts := result.Name.Parts()
		p := point{bench: string(base)}
		for _, part := range parts {
			key, value, _ := strings.Cut(strings.TrimPrefix(string(part), "/"), "=")
			n, err := strconv.ParseFloat(value, 64)
			switch {
			case key == "by":
				p.by = value
			case numbers[key] && err == nil:
				p.key, p.number = key, n
			case !strings.HasPrefix(key, "-"): // not GOMAXPROCS
				p.bench += string(part)
			}
		}
		for _, v := range result.Values {
			p.unit = v.Unit
			s := points[p]
			s.values = append(s.values, v.Value)
			points[p] = s
		}
	}
	return points, r.Err()
}

// The colours of the light charts, and those that take their place in dark ones.
var (
	text   = color.RGBA{0x1f, 0x23, 0x28, 0xff}
	grid   = color.RGBA{0xd0, 0xd7, 0xde, 0xff}
	lines  = []color.Color{color.RGBA{0x09, 0x69, 0xda, 0xff}, color.RGBA{0xcf, 0x22, 0x2e, 0xff}, color.RGBA{0xbc, 0x4c, 0x00, 0xff}, color.RGBA{0x59, 0x63, 0x6e, 0xff}}
	inDark = map[string]string{"#1F2328": "#e6edf3", "#D0D7DE": "#3d444d", "#0969DA": "#58a6ff", "#CF222E": "#ff7b72", "#BC4C00": "#f0883e", "#59636E": "#9198a1"}
)

// plot returns nothing if there is no line.
func (c chart) plot(points map[point]series) (*plot.Plot, error) {
	p := plot.New()
	p.BackgroundColor = nil
	p.Title.Text, p.X.Label.Text, p.Y.Label.Text = c.title, strings.ReplaceAll(c.x, "locks", "locks held"), c.yLabel
	p.Title.Padding, p.Legend.Top, p.Legend.Left = 8, true, true
	p.Legend.ThumbnailWidth, p.Legend.Padding = 24, 3
	p.Title.TextStyle.Color, p.Legend.TextStyle.Color = text, text
	for _, axis := range []*plot.Axis{&p.X, &p.Y} {
		axis.Label.TextStyle.Color, axis.Tick.Label.Color = text, text
		axis.LineStyle.Color, axis.Tick.LineStyle.Color = text, text
	}
	g := plotter.NewGrid()
	g.Vertical.Color, g.Horizontal.Color = grid, grid
	p.Add(g)

	var xTicks []plot.Tick
	for i, by := range c.contenders {
		var xys plotter.XYs
		for at, s := range points {
			if at.bench == c.bench && at.by == by && at.key == c.x && at.unit == c.unit && s.median() > 0 {
				xys = append(xys, plotter.XY{X: at.number, Y: s.median()})
			}
		}
		if len(xys) < 2 { // not a line
			continue
		}
		slices.SortFunc(xys, func(a, b plotter.XY) int { return int(a.X - b.X) })
		line, dots, err := plotter.NewLinePoints(xys)
		if err != nil {
			return nil, err
		}
		line.LineStyle = draw.LineStyle{Color: lines[i], Width: 2}
		dots.GlyphStyle = draw.GlyphStyle{Color: lines[i], Radius: 3, Shape: plotutil.Shape(i)}
		p.Add(line, dots)
		if len(c.contenders) > 1 {
			p.Legend.Add(c.explanations[i], line, dots)
		}
		if len(xys) > len(xTicks) {
			xTicks = nil
			for _, xy := range xys {
				xTicks = append(xTicks, plot.Tick{Value: xy.X, Label: thousands(xy.X)})
			}
		}
	}
	if xTicks == nil {
		return nil, nil
	}
	p.X.Tick.Marker = plot.ConstantTicks(xTicks)
	if c.x != "locks" { // of which there may be none
		p.X.Scale = plot.LogScale{}
	}
	ticks := plot.Ticker(plot.DefaultTicks{})
	if c.log {
		p.Y.Scale = plot.LogScale{}
		p.Y.Max *= 20 // room for the legend
		ticks = plot.LogTicks{Prec: -1}
	} else {
		p.Y.Min = 0
	}
	p.Y.Tick.Marker = plot.TickerFunc(func(min, max float64) []plot.Tick {
		marks := ticks.Ticks(min, max)
		for i, t := range marks {
			if !t.IsMinor() {
				marks[i].Label = thousands(t.Value)
			}
		}
		return marks
	})
	return p, nil
}

// thousands writes a tick: 200, 1,024, 10 k.
func thousands(v float64) string {
	switch {
	case v >= 10_000:
		return fmt.Sprintf("%g k", v/1000)
	case v >= 1000:
		return fmt.Sprintf("%d,%03d", int(v)/1000, int(v)%1000)
	}
	return fmt.Sprintf("%g", v)
}

// save writes p as an SVG whose colours follow the reader's, in the reader's font.
func save(p *plot.Plot, title, path string) error {
	const width, height = 540, 330
	canvas := vgsvg.New(width, height)
	p.Draw(draw.Crop(draw.New(canvas), 4, -16, 4, -4)) // half of the last tick's label is outside
	var svg bytes.Buffer
	if _, err := canvas.WriteTo(&svg); err != nil {
		return err
	}
	var style strings.Builder
	fmt.Fprintf(&style, "<title>%s</title>\n<style>\ntext { font-family: system-ui, sans-serif !important }\n@media (prefers-color-scheme: dark) {\n", title)
	for _, light := range slices.Sorted(maps.Keys(inDark)) {
		for _, what := range []string{"fill", "stroke"} {
			fmt.Fprintf(&style, "  [style*=\"%s:%s\"] { %s: %s !important }\n", what, light, what, inDark[light])
		}
	}
	style.WriteString("}\n</style>\n")
	head, body, ok := strings.Cut(svg.String(), "xlink\">\n")
	if !ok {
		return errors.New("the SVG has no head")
	}
	return os.WriteFile(path, []byte(head+"xlink\">\n"+style.String()+body), 0o644)
}
