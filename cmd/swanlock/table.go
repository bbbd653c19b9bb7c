package main

import (
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unicode"
	"unsafe"
)

// screenOf returns the size of the terminal that w is, in characters. It is not
// ok if w is none.
func screenOf(w io.Writer) (columns, lines int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile {
		return 0, 0, false
	}
	var size struct{ rows, cols, x, y uint16 }
	if _, _, errno := syscall.Syscall(syscall.SYS_IOCTL, f.Fd(), syscall.TIOCGWINSZ, uintptr(unsafe.Pointer(&size))); errno != 0 {
		return 0, 0, false
	}
	columns, lines = int(size.cols), int(size.rows)
	if columns == 0 { // a terminal that has not been told its size
		columns, lines = 80, 24
	}
	return columns, lines, true
}

// colours are the escapes of a terminal, or "" where there is none, where
// NO_COLOR is set (https://no-color.org), or where TERM is dumb.
type colours struct{ bold, dim, red, yellow, green, off string }

func coloursFor(w io.Writer) colours {
	if _, _, ok := screenOf(w); !ok || os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb" {
		return colours{}
	}
	return colours{"\x1b[1m", "\x1b[2m", "\x1b[31m", "\x1b[33m", "\x1b[32m", "\x1b[0m"}
}

// A column of a table.
type column struct {
	name  string
	right bool // its texts end at one place
	least int  // to which it may be cut in a narrow terminal; 0: it may not
	first int  // the higher, the sooner it is left out in a narrow terminal; 0: it never is
}

// A row of a table. Its cells are one for each column.
type row struct {
	cells  []string
	colour string
}

// A table is printed in columns.
type table struct {
	columns []column
	rows    []row
}

func (t *table) add(colour string, cells ...string) { t.rows = append(t.rows, row{cells, colour}) }

// text lays the table out, within width if that is not 0. Columns that are empty
// everywhere are left out; then, as long as it is too wide, columns are cut, and
// at last left out.
func (t *table) text(width int, c colours) string {
	show := make([]bool, len(t.columns))
	wide := make([]int, len(t.columns))
	for i, col := range t.columns {
		for _, r := range t.rows {
			wide[i] = max(wide[i], textWidth(r.cells[i]))
		}
		show[i] = wide[i] > 0 || len(t.rows) == 0
		wide[i] = max(wide[i], textWidth(col.name))
	}
	if width > 0 {
		t.fit(width, show, wide)
	}
	var b strings.Builder
	line := func(cells []string, colour string) {
		var l strings.Builder
		for i, cell := range cells {
			if !show[i] {
				continue
			}
			if l.Len() > 0 {
				l.WriteString("  ")
			}
			cell = cut(cell, wide[i])
			pad := strings.Repeat(" ", wide[i]-textWidth(cell))
			if t.columns[i].right {
				cell, pad = pad+cell, ""
			}
			l.WriteString(cell + pad)
		}
		text := strings.TrimRight(l.String(), " ")
		if colour != "" {
			text = colour + text + c.off
		}
		b.WriteString(text + "\n")
	}
	names := make([]string, len(t.columns))
	for i, col := range t.columns {
		names[i] = col.name
	}
	line(names, c.bold)
	for _, r := range t.rows {
		line(r.cells, r.colour)
	}
	return b.String()
}

// fit makes the columns fit.
func (t *table) fit(width int, show []bool, wide []int) {
	total := func() (n int) {
		for i := range wide {
			if show[i] {
				n += wide[i] + 2
			}
		}
		return n - 2
	}
	least := func() (n int) {
		for i, col := range t.columns {
			if show[i] && col.least > 0 {
				n += max(0, wide[i]-col.least)
			}
		}
		return total() - n
	}
	for least() > width {
		last := -1
		for i, col := range t.columns {
			if show[i] && col.first > 0 && (last < 0 || col.first > t.columns[last].first) {
				last = i
			}
		}
		if last < 0 {
			break
		}
		show[last] = false
	}
	for total() > width {
		widest := -1
		for i, col := range t.columns {
			if show[i] && col.least > 0 && wide[i] > col.least && (widest < 0 || wide[i] > wide[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			return
		}
		wide[widest]--
	}
}

// cell is a text of the server's as a table shows it: what does not print is
// escaped.
func cell(s string) string {
	if s = strings.ToValidUTF8(s, "\ufffd"); strings.ContainsFunc(s, func(r rune) bool { return !strconv.IsPrint(r) }) {
		s = strconv.Quote(s)
		s = s[1 : len(s)-1]
	}
	return s
}

// cut shortens s to a width. What is longest tells least at its middle.
func cut(s string, width int) string {
	if textWidth(s) <= width {
		return s
	}
	runes := []rune(s)
	head, tail := runes[:len(runes)/2], runes[len(runes)/2:]
	for len(head)+len(tail) > 0 && textWidth(string(head))+1+textWidth(string(tail)) > width {
		if len(head) > len(tail) {
			head = head[:len(head)-1]
		} else {
			tail = tail[1:]
		}
	}
	return string(head) + "…" + string(tail)
}

// wideRunes are those that take two places in a terminal.
var wideRunes = []rune{0x1100, 0x115f, 0x2e80, 0xa4cf, 0xac00, 0xd7a3, 0xf900, 0xfaff, 0xfe30, 0xfe6f, 0xff00, 0xff60, 0xffe0, 0xffe6, 0x1f300, 0x1f64f, 0x1f900, 0x1f9ff, 0x20000, 0x3fffd}

// textWidth is how many places of a terminal s takes.
func textWidth(s string) (n int) {
	for _, r := range s {
		i, in := slices.BinarySearch(wideRunes, r)
		switch {
		case unicode.Is(unicode.Mn, r) || unicode.Is(unicode.Me, r):
		case in || i%2 == 1:
			n += 2
		default:
			n++
		}
	}
	return n
}
