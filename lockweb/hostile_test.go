package lockweb_test

import (
	"io"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock/lockweb"
)

// An endless body counts how much of it was read.
type endless struct{ read int }

func (b *endless) Read(p []byte) (int, error) {
	const most = 64 << 20
	if b.read >= most {
		return 0, io.ErrUnexpectedEOF
	}
	n := copy(p, strings.Repeat("x", min(len(p), 32<<10)))
	b.read += n
	return n, nil
}

// TestHugeBodies sends what never ends, without the token. A form with files would be
// kept in a temporary file, as long as there is room on the disk.
func TestHugeBodies(t *testing.T) {
	h := lockweb.Handler(connect(t, "pgx", ""), lockweb.WithToken(token))
	for _, path := range []string{"/", "/login", "/logout", "/api/kill", "/api/state", "/elsewhere"} {
		for kind, begin := range map[string]string{
			"application/x-www-form-urlencoded": "token=",
			"multipart/form-data; boundary=b":   "--b\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f\"\r\n\r\n",
			"application/json":                  `{"by": "`,
		} {
			body := new(endless)
			r := httptest.NewRequest("POST", path, io.MultiReader(strings.NewReader(begin), body))
			r.Host = "127.0.0.1"
			r.Header.Set("Content-Type", kind)
			h.ServeHTTP(httptest.NewRecorder(), r)
			if body.read > 1<<20 {
				t.Errorf("POST %s of %s: %d bytes were read", path, kind, body.read)
			}
		}
	}
}
