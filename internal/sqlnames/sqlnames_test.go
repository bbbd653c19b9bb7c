package sqlnames_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/internal/sqlnames"
)

// TestStatements: every statement of db/, and every one in the code of the packages
// that a program links and of the command, names everything by its schema.
func TestStatements(t *testing.T) {
	root := filepath.Join("..", "..")
	var files []string
	for _, folder := range []string{".", "db", "pglock", "pginspect", "leaselock", "memlock", "locktest", "migrations", "mocks", "cmd/swanlock"} {
		found, err := filepath.Glob(filepath.Join(root, folder, "*.go"))
		if err != nil || len(found) == 0 {
			t.Fatalf("%s: %v, %v", folder, found, err)
		}
		files = append(files, found...)
	}
	looked := 0
	for _, file := range files {
		base := filepath.Base(file)
		if strings.HasSuffix(base, "_test.go") || strings.HasPrefix(base, "demo") {
			continue // the demo asks a server of its own
		}
		for _, query := range statements(t, file) {
			looked++
			if strings.HasPrefix(query, "SELECT extract(epoch FROM tstamp)::bigint FROM ") {
				continue // goose finds its table by the search_path, so this must, too
			}
			for _, problem := range sqlnames.Check(query) {
				t.Errorf("%s: search_path decides about %s in\n%s", file, problem, query)
			}
		}
	}
	if looked < 20 {
		t.Errorf("only %d statements were found", looked)
	}
	raw, err := filepath.Glob(filepath.Join(root, "queries", "*.sql"))
	if err != nil || len(raw) == 0 {
		t.Fatal(raw, err)
	}
	for _, file := range raw {
		query, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, statement := range strings.Split(string(query), "-- name: ") {
			for _, problem := range sqlnames.Check("-- " + statement) {
				t.Errorf("%s: search_path decides about %s in\n%s", file, problem, statement)
			}
		}
	}
}

// isSQL tells a statement from other texts.
var isSQL = regexp.MustCompile(`^\s*(--[^\n]*\n\s*)*(SELECT|INSERT INTO|UPDATE|DELETE FROM|WITH)\s`)

// statements are the SQL among a file's literals.
func statements(t *testing.T, file string) (found []string) {
	t.Helper()
	tree, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(tree, func(n ast.Node) bool {
		if lit, ok := n.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && isSQL.MatchString(s) {
				found = append(found, s)
			}
		}
		return true
	})
	return found
}

// TestCheck: what can be taken over is found, and nothing else is.
func TestCheck(t *testing.T) {
	for _, bad := range []string{
		"SELECT pg_try_advisory_lock($1)",
		"SELECT app.pg_try_advisory_lock($1)",
		"SELECT now() ",
		"SELECT pg_catalog.count(*) FROM pg_locks",
		"SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks, lock_audit",
		"SELECT pg_catalog.count(*) FROM pg_catalog.pg_locks k JOIN lock_audit a ON true",
		"SELECT 1 FROM generate_series(1, 2) n",
		"SELECT a.x FROM public.lock_audit a WHERE a.id = $1",
		"SELECT a.x FROM public.lock_audit a WHERE a.id OPERATOR(app.=) $1",
		"SELECT a.x FROM public.lock_audit a WHERE a.id <> 4",
		"SELECT a.x FROM public.lock_audit a WHERE a.id IN (1)",
		"SELECT a.x FROM public.lock_audit a WHERE a.id BETWEEN 1 AND 2",
		"SELECT a.x FROM public.lock_audit a WHERE a.owner LIKE 'x'",
		"SELECT a.x FROM public.lock_audit a WHERE a.id IS DISTINCT FROM 4",
		"SELECT a.x FROM public.lock_audit a WHERE a.id IS NOT DISTINCT FROM 4",
		"SELECT a.x FROM public.lock_audit a WHERE a.id = ANY ($1)",
		"SELECT a.x FROM public.lock_audit a JOIN public.lock_audit b USING (id)",
		"SELECT a.x FROM public.lock_audit a NATURAL JOIN public.lock_audit b",
		"SELECT CASE a.x WHEN 1 THEN 2 END FROM public.lock_audit a",
		"SELECT NULLIF(a.x, 1) FROM public.lock_audit a",
		"SELECT -a.x FROM public.lock_audit a",
		"SELECT - pg_catalog.pg_backend_pid()",
		"SELECT a.x + 1 FROM public.lock_audit a",
		"SELECT a.x || '' FROM public.lock_audit a",
		"SELECT 'x'::text",
		"SELECT $1::app.text",
		"SELECT CAST($1 AS text)",
		"SELECT date '2020-01-01'",
		"INSERT INTO lock_audit (id) SELECT 1",
		"UPDATE lock_audit SET x = 1",
		"UPDATE public.lock_audit SET x = 1, y = x = 2",
		"UPDATE public.lock_audit SET x = 1 WHERE y = 2",
		"DELETE FROM lock_audit",
		"INSERT INTO public.lock_audit AS a (id) SELECT 1 ON CONFLICT (id) DO UPDATE SET x = a.x + 1",
		"INSERT INTO public.lock_audit AS a (id) SELECT 1 ON CONFLICT (id) DO UPDATE SET x = 1 WHERE a.x = 1",
		"WITH l AS (SELECT 1) SELECT 1 FROM lock_audit",
		"SELECT 1 FROM pg_catalog.pg_locks k ORDER BY lower(k.mode)",
		"SELECT 'a' -- a comment\n = 'b'",
	} {
		if got := sqlnames.Check(bad); len(got) == 0 {
			t.Errorf("nothing is found in %s", bad)
		}
	}
	for _, good := range []string{
		"SELECT pg_catalog.pg_try_advisory_lock($1::bigint) -- it = that",
		"WITH l AS MATERIALIZED (SELECT -1 AS x), row AS (SELECT 2) SELECT l.x, row.y FROM l LEFT JOIN row ON true",
		"UPDATE public.lock_audit a SET x = 1, y = CASE WHEN true THEN -1 ELSE GREATEST(a.y, 2) END WHERE a.id OPERATOR(pg_catalog.=) $1::bigint",
		"SELECT a.x FROM public.lock_audit a WHERE (a.x, a.y) OPERATOR(pg_catalog.=) (1, '=') FOR UPDATE SKIP LOCKED",
		"SELECT pg_catalog.count(*) FILTER (WHERE k.granted) FROM pg_catalog.pg_locks k, LATERAL (SELECT 1) l",
		"SELECT 1 FROM pg_catalog.generate_series(1, 2) n (number) WHERE NOT n.number OPERATOR(pg_catalog.=) ANY (CAST($1 AS bigint[]))",
		"SELECT extract(epoch FROM pg_catalog.clock_timestamp()), interval '1 second', $1::double precision",
		"INSERT INTO public.lock_audit (id) SELECT 1 RETURNING id",
		"INSERT INTO public.lock_audit AS a (id) SELECT 1 ON CONFLICT (id) DO UPDATE SET x = 1, y = (a.y OPERATOR(pg_catalog.+) 1) WHERE a.x IS NULL RETURNING a.x",
	} {
		if got := sqlnames.Check(good); len(got) != 0 {
			t.Errorf("%q is found in %s", got, good)
		}
	}
}
