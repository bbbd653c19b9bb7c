package certmagiclock_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"database/sql"
	"encoding/pem"
	"errors"
	"math/big"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/caddyserver/certmagic"
	_ "github.com/jackc/pgx/v5/stdlib"
	_ "github.com/lib/pq"
	"go.uber.org/zap"

	"github.com/swanlake-io/swanlock"
	certmagiclock "github.com/swanlake-io/swanlock/adapters/certmagic"
	"github.com/swanlake-io/swanlock/chain"
	"github.com/swanlake-io/swanlock/internal/pgserver"
	"github.com/swanlake-io/swanlock/memlock"
	"github.com/swanlake-io/swanlock/pglock"
)

// A struct of one's own with Locks in it is a certmagic.Storage as well.
var _ certmagic.Storage = struct {
	*certmagiclock.Locks
	files
}{}

type files struct{ *certmagic.FileStorage }

func TestMain(m *testing.M) { pgserver.Main(m) }

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// An issuer signs what it is asked to, as a certificate authority does.
type issuer struct {
	issued atomic.Int32
	before func(ctx context.Context) error
}

func (i *issuer) IssuerKey() string { return "test" }

func (i *issuer) Issue(ctx context.Context, request *x509.CertificateRequest) (*certmagic.IssuedCertificate, error) {
	if err := i.before(ctx); err != nil {
		return nil, err
	}
	i.issued.Add(1)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	certificate := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: request.DNSNames, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, certificate, certificate, request.PublicKey, key)
	return &certmagic.IssuedCertificate{Certificate: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}, err
}

// host returns the certmagic of a host that stores its certificates in storage.
func host(t *testing.T, storage certmagic.Storage, i *issuer) *certmagic.Config {
	t.Helper()
	var config *certmagic.Config
	cache := certmagic.NewCache(certmagic.CacheOptions{
		GetConfigForCert: func(certmagic.Certificate) (*certmagic.Config, error) { return config, nil }, Logger: zap.NewNop(),
	})
	t.Cleanup(cache.Stop)
	config = certmagic.New(cache, certmagic.Config{Storage: storage, Issuers: []certmagic.Issuer{i}, Logger: zap.NewNop()})
	return config
}

func newPool(t *testing.T, driver string) *pglock.Pool {
	t.Helper()
	db, err := sql.Open(driver, pgserver.Default().URL())
	must(t, err)
	t.Cleanup(func() { db.Close() })
	p, err := pglock.NewPool(db)
	must(t, err)
	t.Cleanup(func() { must(t, p.Close(context.Background())) })
	return p
}

// TestOneObtains: of several hosts, and several goroutines of each, one obtains
// the certificate, and the others find it.
func TestOneObtains(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			i := &issuer{before: func(context.Context) error { time.Sleep(50 * time.Millisecond); return nil }}
			storage := &certmagic.FileStorage{Path: t.TempDir()}
			var wg sync.WaitGroup
			for range 3 {
				c := host(t, certmagiclock.Over(storage, certmagiclock.New(newPool(t, driver), t.Name()+"/")), i)
				for range 2 {
					wg.Go(func() {
						if err := c.ObtainCertSync(t.Context(), "example.com"); err != nil {
							t.Error(err)
						}
					})
				}
			}
			wg.Wait()
			if got := i.issued.Load(); got != 1 {
				t.Errorf("%d certificates were issued, want 1", got)
			}
		})
	}
}

// TestWaits: two calls of one process wait for a name, as those of two
// processes do.
func TestWaits(t *testing.T) {
	for _, driver := range []string{"postgres", "pgx"} {
		t.Run(driver, func(t *testing.T) {
			l := certmagiclock.New(newPool(t, driver), t.Name()+"/")
			var running, runs int32
			var wg sync.WaitGroup
			for range 5 {
				wg.Go(func() {
					if err := l.Lock(t.Context(), "n"); err != nil {
						t.Error(err)
						return
					}
					if n := atomic.AddInt32(&running, 1); n != 1 {
						t.Errorf("%d hold the name", n)
					}
					time.Sleep(5 * time.Millisecond)
					runs++ // the race detector sees that one comes after the other
					atomic.AddInt32(&running, -1)
					if err := l.Unlock(t.Context(), "n"); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			if runs != 5 {
				t.Errorf("got %d runs, want 5", runs)
			}
		})
	}
}

// TestLease: certmagic holds the lock for longer than its TTL, between two
// attempts. A lock that is lost is taken again before the next one, or else
// that one is put off.
func TestLease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const name = "/certificates/issue_cert_example.com"
		locks := memlock.New()
		var renewed []string
		taken := func() bool {
			held, err := locks.TryAcquire(t.Context(), name)
			if err == nil {
				must(t, held.Release(t.Context()))
			}
			return err != nil
		}
		i := &issuer{}
		i.before = func(context.Context) error {
			attempt := len(renewed)
			renewed = append(renewed, "")
			if !taken() {
				t.Errorf("attempt %d has no lock", attempt)
			}
			if attempt == 1 {
				locks.Lose(name, nil)
				other, err := locks.TryAcquire(t.Context(), name)
				must(t, err)
				time.AfterFunc(3*time.Minute, func() { must(t, other.Release(context.Background())) })
			}
			if attempt < 3 {
				return errors.New("not yet")
			}
			return nil
		}
		c := host(t, certmagiclock.Over(&certmagic.FileStorage{Path: t.TempDir()}, certmagiclock.New(locks, "/certificates/", swanlock.WithTTL(time.Second))), i)
		go func() {
			time.Sleep(30 * time.Second) // between the first attempt and the second, a minute later
			if !taken() {
				t.Error("the lock is not held between two attempts")
			}
		}()
		must(t, c.ObtainCertAsync(t.Context(), "example.com"))
		if i.issued.Load() != 1 || taken() {
			t.Errorf("%d certificates were issued; the lock is held: %v", i.issued.Load(), taken())
		}
	})
}

// TestLocks: what each method says, and what is held then.
func TestLocks(t *testing.T) {
	locks := memlock.New()
	l := certmagiclock.New(locks, "p/")
	ended, cancel := context.WithCancelCause(t.Context())
	errEnd := errors.New("the end")
	cancel(errEnd)
	try := func(ctx context.Context, want bool, wantErr error) {
		t.Helper()
		if got, err := l.TryLock(ctx, "n"); got != want || !errors.Is(err, wantErr) {
			t.Errorf("TryLock: got %v, %v, want %v, %v", got, err, want, wantErr)
		}
	}
	try(t.Context(), true, nil)
	try(t.Context(), false, nil)
	try(ended, false, errEnd)
	if err := l.Lock(ended, "n"); !errors.Is(err, errEnd) {
		t.Errorf("got %v, want the end", err)
	}
	must(t, l.RenewLockLease(t.Context(), "n", time.Hour))
	must(t, l.Unlock(ended, "n"))
	if l.Unlock(t.Context(), "n") == nil || l.RenewLockLease(t.Context(), "n", time.Hour) == nil {
		t.Error("what is not locked can be unlocked or renewed")
	}
	if _, err := l.TryLock(t.Context(), "\x00"); err == nil {
		t.Error("no error of the locker")
	}

	// The lock is lost. Another goroutine of the same process waits for Unlock.
	try(t.Context(), true, nil)
	locks.Lose("p/n", nil)
	locked := make(chan error, 1)
	go func() { locked <- l.Lock(t.Context(), "n") }()
	try(t.Context(), false, nil)
	must(t, l.Unlock(t.Context(), "n"))
	must(t, <-locked)
	try(t.Context(), false, nil)
	short, cancelShort := context.WithTimeoutCause(t.Context(), time.Millisecond, errEnd)
	defer cancelShort()
	if err := l.Lock(short, "n"); !errors.Is(err, errEnd) || !errors.Is(err, swanlock.ErrNotAcquired) {
		t.Errorf("got %v, want ErrNotAcquired and the end", err)
	}
	try(ended, false, errEnd)
	must(t, l.Unlock(t.Context(), "n"))
	try(t.Context(), true, nil)

	// The lock is lost, and free.
	locks.Lose("p/n", nil)
	must(t, l.RenewLockLease(t.Context(), "n", time.Hour))
	try(t.Context(), false, nil)
	must(t, l.Unlock(t.Context(), "n"))
	try(t.Context(), true, nil)
}

// A slowLocker calls before when a lock is tried.
type slowLocker struct {
	swanlock.Locker
	before func()
}

func (l slowLocker) TryAcquire(ctx context.Context, target string, opts ...swanlock.Option) (swanlock.DistributedLock, error) {
	l.before()
	return l.Locker.TryAcquire(ctx, target, opts...)
}

// TestUnlockWhileRenewing unlocks a name just when its lost lock is taken again. Nobody
// would unlock that one.
func TestUnlockWhileRenewing(t *testing.T) {
	locks := memlock.New()
	var l *certmagiclock.Locks
	l = certmagiclock.New(slowLocker{locks, func() { must(t, l.Unlock(t.Context(), "n")) }}, "p/")
	must(t, l.Lock(t.Context(), "n"))
	locks.Lose("p/n", nil)
	if err := l.RenewLockLease(t.Context(), "n", time.Hour); !errors.Is(err, swanlock.ErrLost) {
		t.Errorf("RenewLockLease: got %v, want ErrLost", err)
	}
	held, err := locks.TryAcquire(t.Context(), "p/n")
	if err != nil {
		t.Fatalf("the lock is held after Unlock: %v", err)
	}
	must(t, held.Release(t.Context()))
}

// TestClean: certmagic's other locks go the same way.
func TestClean(t *testing.T) {
	locks := memlock.New()
	held, err := locks.TryAcquire(t.Context(), "p/storage_clean")
	must(t, err)
	storage := certmagiclock.Over(&certmagic.FileStorage{Path: t.TempDir()}, certmagiclock.New(locks, "p/"))
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := certmagic.CleanStorage(ctx, storage, certmagic.CleanStorageOptions{Logger: zap.NewNop()}); err == nil {
		t.Error("the storage was cleaned without the lock")
	}
	must(t, held.Release(t.Context()))
	must(t, certmagic.CleanStorage(t.Context(), storage, certmagic.CleanStorageOptions{Logger: zap.NewNop()}))
}

// TestRenewReleases: a lock that is made of several keeps the others when it has lost
// one, until it is released. So it must be released before it can be taken again.
func TestRenewReleases(t *testing.T) {
	first, second := memlock.New(), memlock.New()
	l := certmagiclock.New(chain.New(first, second), "p/")
	must(t, l.Lock(t.Context(), "n"))
	first.Lose("p/n", nil)
	if err := l.RenewLockLease(t.Context(), "n", time.Hour); err != nil {
		t.Errorf("RenewLockLease of a lost lock that is free: %v", err)
	}
	must(t, l.Unlock(t.Context(), "n"))
	if held, err := l.TryLock(t.Context(), "n"); !held || err != nil {
		t.Errorf("TryLock after Unlock: got %t, %v", held, err)
	}
}

// TestNil: a locker that is nil is an error of each call, not a panic in certmagic's
// goroutines.
func TestNil(t *testing.T) {
	l := certmagiclock.New(nil, "p/")
	if err := l.Lock(t.Context(), "n"); err == nil {
		t.Error("Lock: got nil, want an error")
	}
	if ok, err := l.TryLock(t.Context(), "n"); ok || err == nil {
		t.Errorf("TryLock: got %t, %v, want an error", ok, err)
	}
}
