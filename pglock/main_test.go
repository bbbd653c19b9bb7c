package pglock_test

import (
	"testing"

	"github.com/swanlake-io/swanlock/pglock/internal/pgtest"
)

func TestMain(m *testing.M) { pgtest.Main(m, children) }
