// Package sqlnames finds, in the text of a statement, the names that PostgreSQL
// looks up in search_path: functions, operators, types and relations, which a
// role that may create objects in one of its schemas can replace
// (CVE-2018-1058). It knows the SQL that this module sends, and reports all
// other SQL as a finding.
package sqlnames

import (
	"fmt"
	"slices"
	"strings"
)

// Check returns what is wrong with query, in order; nothing, if every name says its
// schema, or is one that the grammar itself looks up in pg_catalog.
func Check(query string) []string {
	c := &checker{tokens: scan(query), tables: map[string]bool{}}
	c.withs()
	for c.at = range c.tokens {
		c.look()
	}
	return c.found
}

// schemas are those that a name may have. The audit's is written public, and becomes
// the one that has the table before the statement is sent.
var schemas = []string{"pg_catalog", "public"}

var (
	// types are keywords of the grammar, which takes them from pg_catalog.
	types = words("bigint boolean double integer interval numeric precision real smallint varchar")
	// calls are keywords that may stand before a parenthesis.
	calls = words("all and any array as by cast case coalesce conflict distinct else exists extract filter from greatest having in join lateral least materialized not on operator or over returning row select set then union using values when where with within")
	// operators are keywords that look an operator up, and cannot be told where.
	operators = words("in nullif between like ilike similar natural using overlaps collate symmetric")
	// ends are the keywords that end the list of a FROM.
	ends = words("where group order limit offset returning union except intersect having for window fetch on")
	// starts are keywords after which a minus is a number's sign.
	starts = words("then else when and or not select offset limit")
)

func words(s string) map[string]bool {
	set := map[string]bool{}
	for _, word := range strings.Fields(s) {
		set[word] = true
	}
	return set
}

type kind int

const (
	name kind = iota
	quoted
	text
	number
	parameter
	operator
	mark // of punctuation
)

type token struct {
	kind  kind
	is    string // names in lower case
	depth int    // of parentheses
}

type checker struct {
	tokens []token
	at     int
	tables map[string]bool // that WITH makes
	set    []int           // depths of the SET clauses that are open
	from   []int           // depths of the lists of FROM that are open
	found  []string
}

func (c *checker) find(format string, args ...any) {
	c.found = append(c.found, fmt.Sprintf(format, args...))
}

// rel is the token that is so many further.
func (c *checker) rel(n int) token {
	if i := c.at + n; i >= 0 && i < len(c.tokens) {
		return c.tokens[i]
	}
	return token{kind: mark}
}

func (c *checker) withs() {
	for c.at = range c.tokens {
		if c.rel(0).kind == name && c.rel(1).is == "as" && (c.rel(-1).is == "with" || c.rel(-1).is == ",") && (c.rel(2).is == "(" || c.rel(2).is == "materialized") {
			c.tables[c.rel(0).is] = true
		}
	}
}

func (c *checker) look() {
	t, before, after := c.rel(0), c.rel(-1), c.rel(1)
	switch t.kind {
	case operator:
		c.operator(t, before, after)
	case mark:
		c.punctuation(t, after)
	case name, quoted:
		c.name(t, before, after)
	}
}

func (c *checker) operator(t, before, after token) {
	switch {
	case before.is == "." && c.rel(-2).is == "pg_catalog" && c.rel(-4).is == "operator":
	case t.is == "*" && (before.is == "(" && after.is == ")" || before.is == "select" || before.is == "."):
	case t.is == "-" && after.kind == number && (before.is == "(" || before.is == "," || before.kind == operator || starts[before.is]):
	case t.is == "=" && len(c.set) > 0 && c.set[len(c.set)-1] == t.depth && (c.rel(-2).is == "set" || c.rel(-2).is == ","):
	default:
		c.find("the operator %s of %s %s %s", t.is, before.is, t.is, after.is)
	}
}

func (c *checker) punctuation(t, after token) {
	closed := func(depth int) bool { return depth > t.depth }
	if t.is == ")" {
		c.set, c.from = slices.DeleteFunc(c.set, closed), slices.DeleteFunc(c.from, closed)
	}
	if t.is == "," && len(c.from) > 0 && c.from[len(c.from)-1] == t.depth {
		c.relation(c.at + 1)
	}
	if t.is == "::" {
		c.typed(c.at + 1)
	}
}

func (c *checker) name(t, before, after token) {
	word := t.is
	if before.is == "." || t.kind == quoted {
		if before.is == "." && after.is == "(" && c.rel(-2).is != "pg_catalog" && !slices.Contains(schemas, c.rel(-2).is) {
			c.find("the function %s.%s", c.rel(-2).is, word)
		}
		return
	}
	closing := func(depth int) bool { return depth == t.depth }
	switch {
	case operators[word], word == "distinct" && before.is == "is", word == "distinct" && before.is == "not":
		c.find("the operator of %s", strings.ToUpper(word))
	case word == "case" && after.is != "when":
		c.find("the operator of CASE %s", after.is)
	case (word == "any" || word == "some" || word == "all") && after.is == "(" && before.is != ")":
		c.find("the operator of %s", strings.ToUpper(word))
	case word == "as" && c.castAt():
		c.typed(c.at + 1)
	case word == "from" && !c.extract():
		c.set = slices.DeleteFunc(c.set, closing)
		c.from = append(c.from, t.depth)
		c.relation(c.at + 1)
	case word == "join", word == "into":
		c.relation(c.at + 1)
	case word == "update" && before.is != "for" && before.is != "do":
		c.relation(c.at + 1)
	case word == "set":
		c.set = append(c.set, t.depth)
	case ends[word]:
		c.set, c.from = slices.DeleteFunc(c.set, closing), slices.DeleteFunc(c.from, closing)
	case after.kind == text && !types[word] && !calls[word] && !starts[word]:
		c.find("the type %s of a literal", word)
	case after.is == "(" && !calls[word] && before.is != ")" && before.is != "as":
		c.find("the function %s", word)
	}
}

// relation looks at the relation that begins at i.
func (c *checker) relation(i int) {
	get := func(i int) token {
		if i < len(c.tokens) {
			return c.tokens[i]
		}
		return token{kind: mark}
	}
	t := get(i)
	for t.is == "lateral" || t.is == "only" {
		i++
		t = get(i)
	}
	if t.is == "(" || get(i+1).is != "." && c.tables[t.is] || get(i+1).is == "." && slices.Contains(schemas, t.is) {
		return
	}
	if get(i+1).is == "(" {
		return // a function, which is looked at as such
	}
	c.find("the relation %s", t.is)
}

// typed looks at the type that begins at i.
func (c *checker) typed(i int) {
	if i+2 < len(c.tokens) && c.tokens[i+1].is == "." && c.tokens[i].is == "pg_catalog" {
		return
	}
	if i >= len(c.tokens) || !types[c.tokens[i].is] {
		c.find("the type %s", c.tokens[min(i, len(c.tokens)-1)].is)
	}
}

// castAt reports whether the AS at hand is that of a CAST.
func (c *checker) castAt() bool {
	i := c.open()
	return i > 0 && c.tokens[i-1].is == "cast"
}

// extract reports whether the FROM at hand is that of an EXTRACT.
func (c *checker) extract() bool {
	i := c.open()
	return i > 0 && c.tokens[i-1].is == "extract"
}

// open is where the parenthesis around the token at hand opens, or -1.
func (c *checker) open() int {
	depth := c.tokens[c.at].depth
	for i := c.at - 1; i >= 0; i-- {
		if c.tokens[i].is == "(" && c.tokens[i].depth == depth-1 {
			return i
		}
	}
	return -1
}
