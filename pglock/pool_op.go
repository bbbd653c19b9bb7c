package pglock

import (
	"strconv"
	"strings"
)

// This file writes the ops of a batch as the texts of PostgreSQL's arrays.

// answers reports whether the server answers o itself.
func (o *op) answers() bool { return !o.stays && o.leader == nil }

// numbered returns the ops that the server answers, and numbers them.
func numbered(ops []*op) (asked []*op) {
	for _, o := range ops {
		if o.answers() {
			asked = append(asked, o)
			o.place = len(asked)
		}
	}
	return asked
}

// number returns the number of the answer that is o's, or 0 if there is none,
// since the session's lock stays.
func (o *op) number() int {
	switch {
	case o.stays:
		return 0
	case o.leader != nil:
		return o.leader.place
	}
	return o.place
}

// answered returns the answer to o.
func (o *op) answered(answers string) bool {
	n := o.number()
	return n == 0 || answers[n-1] == '1'
}

func (o *op) shared() bool { return o.h.Shared }

// bits returns the ticket as the server's lock, or 0 for none.
func (t *ticket) bits() int64 {
	if t == nil {
		return 0
	}
	return t.hash + int64(t.number)
}

// array returns the numbers of xs as an array.
func array[T any](xs []T, number func(T) int64) string {
	if len(xs) == 0 {
		return "{}"
	}
	var b strings.Builder
	var digits [20]byte
	for i, x := range xs {
		if i == 0 {
			b.Grow(2 + 21*len(xs))
			b.WriteByte('{')
		} else {
			b.WriteByte(',')
		}
		b.Write(strconv.AppendInt(digits[:0], number(x), 10))
	}
	b.WriteByte('}')
	return b.String()
}

func keys(ops []*op) string {
	return array(ops, func(o *op) int64 { return int64(o.h.key) })
}

// flags returns the answers of is as an array, which is empty if all are false.
func flags(ops []*op, is func(*op) bool) string {
	var b []byte
	for i, o := range ops {
		if !is(o) && b == nil {
			continue
		}
		for len(b) < 2*i { // It is the first that is true.
			b = append(b, ',', 'f')
		}
		if is(o) {
			b = append(b, ',', 't')
		} else {
			b = append(b, ',', 'f')
		}
	}
	if b == nil {
		return "{}"
	}
	b[0] = '{'
	return string(append(b, '}'))
}

var inQuotes = strings.NewReplacer(`\`, `\\`, `"`, `\"`)

// texts returns the texts of ops as an array.
func texts(ops []*op, text func(*op) string) string {
	var b strings.Builder
	for i, o := range ops {
		if i > 0 {
			b.WriteByte(',')
		} else {
			b.WriteByte('{')
		}
		b.WriteByte('"')
		inQuotes.WriteString(&b, text(o))
		b.WriteByte('"')
	}
	if b.Len() == 0 {
		return "{}"
	}
	b.WriteByte('}')
	return b.String()
}
