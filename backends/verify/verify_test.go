package verify

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/swanlake-io/swanlock"
	"github.com/swanlake-io/swanlock/internal/verify"
)

// workerArg makes the test's program a worker process.
const workerArg = "verify-worker"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == workerArg {
		if err := verify.BackendWorker(context.Background(), os.Stdin, os.Stdout, open); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// A subject is a backend that is verified.
type subject struct {
	name   string
	start  func(t *testing.T, b *verify.Backend) // starts its servers, and says what there is
	open   func(ctx context.Context, where string) (l swanlock.Locker, closeLocker func(), err error)
	faults []string // of the processes; those of the server are all done
}

var processFaults = []string{verify.FaultKill, verify.FaultStop, verify.FaultCancel}

var subjects = []subject{
	{"memlock", startMemory, openMemory, []string{verify.FaultStop, verify.FaultCancel}},
	{"filelock", startFiles, openFiles, processFaults},
	{"leaselock", startLeases, openLeases, processFaults},
	{"redislock", startRedis, openRedis, processFaults},
	{"redislock-of-3", startRedlock, openRedis, processFaults},
	{"etcdlock", startEtcd, openEtcd, processFaults},
	{"consullock", startConsul, openConsul, processFaults},
}

// open opens a locker in a worker: what is the subject's name and where its server
// is.
func open(ctx context.Context, what string) (swanlock.Locker, func(), error) {
	name, where, _ := strings.Cut(what, " ")
	for _, s := range subjects {
		if s.name == name {
			return s.open(ctx, where)
		}
	}
	return nil, nil, fmt.Errorf("no subject %q", name)
}

// durationVar says for how long each is verified; 5 s without it. faultsVar says
// which faults are done, with commas; all without it.
const (
	durationVar = "SWANLOCK_VERIFY"
	faultsVar   = "SWANLOCK_VERIFY_FAULTS"
)

func TestBackends(t *testing.T) {
	duration := 5 * time.Second
	if s := os.Getenv(durationVar); s != "" {
		var err error
		if duration, err = time.ParseDuration(s); err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range subjects {
		t.Run(s.name, func(t *testing.T) {
			b := verify.Backend{Name: s.name, Worker: []string{self, workerArg}, Workers: 4}
			s.start(t, &b)
			b.Open = s.name + " " + b.Open
			faults := s.faults
			for kind := range b.Faults {
				faults = append(faults[:len(faults):len(faults)], kind)
			}
			if only := os.Getenv(faultsVar); only != "" {
				faults = strings.Split(only, ",")
			}
			seed := uint64(time.Now().UnixNano())
			r, err := verify.RunBackend(t.Context(), b, faults, duration, seed)
			if err != nil {
				t.Fatal(err)
			}
			var table strings.Builder
			r.Table(&table)
			t.Log(&table)
			for _, f := range r.Findings() {
				t.Errorf("found: %s: %s: %s", f.Kind, f.Target, f.Text)
			}
			if r.Unknown() > 0 {
				t.Errorf("%d histories could not be judged in time", r.Unknown())
			}
			if r.Counts.Granted == 0 {
				t.Error("no lock was ever granted")
			}
		})
	}
}
