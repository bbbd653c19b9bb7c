package mocks

import (
	"log/slog"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // pglock warns of the locks that tests drop
	goleak.VerifyTestMain(m)
}
