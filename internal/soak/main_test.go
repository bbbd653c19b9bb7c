package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock/internal/pgserver"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgserver.Around(m)) }
