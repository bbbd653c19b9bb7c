package chain_test

import (
	"bufio"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"
	"go.uber.org/goleak"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/filelock"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/pglock"
)

// service makes the test binary a process of the fleet that moves.
const service = "CHAIN_SERVICE"

const dsnVar = "SWANLAKE_LOCK_POSTGRES_CONNECTION"

func TestMain(m *testing.M) {
	if locks := os.Getenv(service); locks != "" {
		if err := serve(locks, os.Args[1], os.Args[2]); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(pgserver.Around(m))
}

// serve locks target, over and over, until its stdin is closed. In the meantime it
// has the flock of the file number, in which it counts. Each time it prints a line.
func serve(locks, target, number string) error {
	files := filelock.New()
	db, err := sql.Open("pgx", os.Getenv(dsnVar))
	if err != nil {
		return err
	}
	defer db.Close()
	postgres, err := pglock.NewPool(db)
	if err != nil {
		return err
	}
	defer postgres.Close(bg)
	l := map[string]swanlock.Locker{"old": files, "both": chain.New(files, postgres), "new": postgres}[locks]
	ctx, cancel := context.WithCancel(bg)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		cancel()
	}()
	for {
		held, err := l.Acquire(ctx, target, swanlock.WithTTL(30*time.Second), swanlock.WithAutoRefresh())
		if ctx.Err() != nil {
			if err == nil {
				err = held.Release(bg)
			} else if errors.Is(err, context.Canceled) {
				err = nil
			}
			return err
		}
		if err == nil {
			err = errors.Join(count(number), held.Release(bg))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", locks, err)
		}
		fmt.Println("held")
	}
}

func count(number string) error {
	f, err := os.OpenFile(number, os.O_RDWR|os.O_CREATE, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return fmt.Errorf("another process holds the lock too: %w", err)
	}
	b, err := io.ReadAll(f)
	if err != nil {
		return err
	}
	n, _ := strconv.Atoi(string(b))
	time.Sleep(2 * time.Millisecond)
	_, err = f.WriteAt([]byte(strconv.Itoa(n+1)), 0)
	return err
}

// TestFleetMoves is what docs/moving.md says: from files to both to PostgreSQL,
// process by process, with no moment in which two hold the lock.
func TestFleetMoves(t *testing.T) {
	dsn := pgserver.Default().URL()
	target, number := filepath.Join(t.TempDir(), "queue.db"), filepath.Join(t.TempDir(), "number")
	start := func(locks string) (end func() int) {
		p := exec.Command(os.Args[0], target, number)
		p.Env = append(os.Environ(), service+"="+locks, dsnVar+"="+dsn, "GORACE=atexit_sleep_ms=0")
		p.Stderr = os.Stderr
		in, err := p.StdinPipe()
		must(t, err)
		out, err := p.StdoutPipe()
		must(t, err)
		must(t, p.Start())
		lines := bufio.NewScanner(out)
		n := 0
		next := func() bool {
			if !lines.Scan() {
				return false
			}
			if lines.Text() != "held" {
				t.Errorf("%s: %s", locks, lines.Text())
			}
			n++
			return true
		}
		for range 5 {
			if !next() {
				t.Fatalf("%s: it ended", locks)
			}
		}
		return sync.OnceValue(func() int {
			in.Close()
			for next() {
			}
			if err := p.Wait(); err != nil {
				t.Errorf("%s: %v", locks, err)
			}
			return n
		})
	}
	var fleet [3]func() int
	for i := range fleet {
		fleet[i] = start("old")
		t.Cleanup(func() { fleet[i]() })
	}
	sum := 0
	for _, step := range []string{"both", "new"} {
		for i := range fleet { // one host after the other
			sum += fleet[i]()
			fleet[i] = start(step)
		}
	}
	for _, end := range fleet {
		sum += end()
	}
	b, err := os.ReadFile(number)
	must(t, err)
	if got := string(b); got != strconv.Itoa(sum) {
		t.Errorf("counted %s times, want %d", got, sum)
	}
	t.Logf("held %d times", sum)
}
