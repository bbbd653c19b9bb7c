package certmagiclock_test

import (
	"context"
	"fmt"
	"os"

	"github.com/caddyserver/certmagic"

	certmagiclock "github.com/swanlake-io/swanlock/adapters/certmagic"
	"github.com/swanlake-io/swanlock/memlock"
)

func Example() {
	dir, err := os.MkdirTemp("", "certificates") // a folder that all hosts share
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)
	locks := certmagiclock.New(memlock.New(), "/certificates/")
	storage := certmagiclock.Over(&certmagic.FileStorage{Path: dir}, locks)
	certmagic.Default.Storage = storage

	ctx := context.Background()
	fmt.Println(storage.Lock(ctx, "example.com"))
	fmt.Println(storage.TryLock(ctx, "example.com"))
	fmt.Println(storage.Unlock(ctx, "example.com"))
	// Output:
	// <nil>
	// false <nil>
	// <nil>
}
