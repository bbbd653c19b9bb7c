package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const (
	demoWorkers = 5
	demoTurns   = 3

	// turn writes three lines that belong together, slowly.
	turn = `for part in begin middle end; do echo "${SWANLOCK_FENCE:--} worker-$1 $part" >>"$2"; sleep 0.01; done`
)

// work has every worker take its turns, all at once.
func (d *demo) work(ctx context.Context, start func(worker string) (*proc, error)) error {
	var (
		workers sync.WaitGroup
		errs    [demoWorkers]error
	)
	for w := range demoWorkers {
		workers.Go(func() {
			for turn := 0; turn < demoTurns && errs[w] == nil; turn++ {
				p, err := start(strconv.Itoa(w + 1))
				if err == nil {
					err = p.wait()
				}
				errs[w] = errors.Join(err, ctx.Err())
			}
		})
	}
	workers.Wait()
	return errors.Join(errs[:]...)
}

func (d *demo) withoutLock(ctx context.Context) error {
	d.say("\nWithout a lock: %d processes at a time append to one file, 3 lines a turn\n", demoWorkers)
	file := filepath.Join(d.dir, "without")
	if err := d.work(ctx, func(w string) (*proc, error) {
		return d.procs.start(nil, nil, "/bin/sh", "-c", turn, "sh", w, file)
	}); err != nil {
		return err
	}
	lines, whole, _, err := turns(file)
	if err != nil {
		return err
	}
	torn := demoWorkers*demoTurns - whole
	d.claim(torn > 0, "%d lines, and %d of %d turns torn apart: this work needs a lock", lines, torn, demoWorkers*demoTurns)
	return nil
}

func (d *demo) withLock(ctx context.Context) error {
	d.say("\nThe same with: swanlock run --wait --fence --audit %s -- sh -c ...\n", demoTarget)
	file := filepath.Join(d.dir, "with")

	// Meanwhile another session looks who holds the lock.
	looked, most := 0, 0
	lctx, cancel := context.WithCancel(ctx)
	var looker sync.WaitGroup
	looker.Go(func() {
		for lctx.Err() == nil {
			if pids, err := d.holders(lctx); err == nil && len(pids) > 0 {
				looked, most = looked+1, max(most, len(pids))
			}
			time.Sleep(2 * time.Millisecond)
		}
	})
	began := time.Now()
	err := d.work(ctx, func(w string) (*proc, error) {
		return d.procs.swanlock("run", "--wait", "--fence", "--audit", "--owner", "worker-"+w, demoTarget, "--", "/bin/sh", "-c", turn, "sh", w, file)
	})
	took := time.Since(began)
	cancel()
	looker.Wait()
	if err != nil {
		return err
	}
	d.grants += demoWorkers * demoTurns

	lines, whole, fences, err := turns(file)
	if err != nil {
		return err
	}
	d.claim(whole == demoWorkers*demoTurns && lines == 3*whole, "%d lines, all %d turns whole (%d processes in %.1f s)", lines, whole, demoWorkers*demoTurns, took.Seconds())
	d.claim(looked > 0 && most == 1, "another session looked %d times while it was held, and saw %d holder at most", looked, most)
	d.claim(len(fences) == demoWorkers*demoTurns && rising(fences), "the fences in the file rise with every turn: %d ... %d", first(fences), last(fences))
	return nil
}

func (d *demo) killed(ctx context.Context) error {
	d.say("\nA holder with a TTL of 30 s gets kill -9 while another process waits\n")
	beats := filepath.Join(d.dir, "beats")
	holder, err := d.procs.swanlock("run", "--ttl", "30s", "--fence", "--audit", "--owner", "to-be-killed", demoTarget, "--",
		"/bin/sh", "-c", `while :; do echo "$SWANLOCK_FENCE" >>"$1"; sleep 0.02; done`, "sh", beats)
	if err != nil {
		return err
	}
	pid, err := d.holderBut(ctx, 0)
	if err != nil {
		return err
	}
	if err := until(ctx, "the command to write", func() (bool, error) { return size(beats) > 0, nil }); err != nil {
		return err
	}
	file := filepath.Join(d.dir, "heir")
	heir, err := d.procs.swanlock("run", "--wait", "--ttl", "30s", "--fence", "--audit", "--owner", "heir-of-killed", demoTarget, "--",
		"/bin/sh", "-c", `echo "$SWANLOCK_FENCE" >"$1"; sleep 0.3`, "sh", file)
	if err != nil {
		return err
	}
	if err := d.waiter(ctx, pid); err != nil {
		return err
	}
	at := time.Now()
	if err := holder.Process.Kill(); err != nil {
		return err
	}
	if _, err := d.holderBut(ctx, pid); err != nil {
		return err
	}
	took := time.Since(at)
	d.grants += 2
	d.claim(took < 5*time.Second, "the waiter held the lock %s after the kill, not 30 s", ms(took))
	if runtime.GOOS == "linux" {
		before := size(beats)
		time.Sleep(200 * time.Millisecond)
		d.claim(size(beats) == before, "the killed holder's command died with it: it wrote nothing more")
	}
	if err := heir.wait(); err != nil {
		return err
	}
	old, err := lastFence(beats)
	if err != nil {
		return err
	}
	heirs, err := lastFence(file)
	if err != nil {
		return err
	}
	d.claim(old > 0 && heirs > old, "its fence, %d, is higher than the dead holder's, %d", heirs, old)
	return nil
}

func (d *demo) stopped(ctx context.Context) error {
	const ttl, slack = 2 * time.Second, 500 * time.Millisecond
	d.say("\nA holder with a TTL of %v hangs (kill -STOP) while another process waits\n", ttl)
	in, ask, err := os.Pipe()
	if err != nil {
		return err
	}
	defer ask.Close()
	answer, out, err := os.Pipe()
	if err != nil {
		return err
	}
	defer answer.Close()
	holder, err := d.procs.start(in, out, d.procs.self, demoHolderName, ttl.String(), demoTarget)
	in.Close()
	out.Close()
	if err != nil {
		return err
	}
	answers := bufio.NewScanner(answer)
	if !answers.Scan() {
		return fmt.Errorf("the holder said nothing: %w", holder.wait())
	}
	old, err := strconv.ParseUint(answers.Text(), 10, 64)
	if err != nil {
		return err
	}
	pid, err := d.holderBut(ctx, 0)
	if err != nil {
		return err
	}
	file := filepath.Join(d.dir, "heir-of-stopped")
	heir, err := d.procs.swanlock("run", "--wait", "--ttl", ttl.String(), "--fence", "--audit", "--owner", "heir-of-stopped", demoTarget, "--",
		"/bin/sh", "-c", `echo "$SWANLOCK_FENCE" >"$1"; sleep 0.5`, "sh", file)
	if err != nil {
		return err
	}
	if err := d.waiter(ctx, pid); err != nil {
		return err
	}
	// Longer than the TTL: it is its refreshes that keep the lock.
	for end := time.Now().Add(ttl + slack/2); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if pids, err := d.holders(ctx); err != nil {
			return err
		} else if len(pids) != 1 || pids[0] != pid {
			d.claim(false, "it keeps the lock beyond its TTL as long as it refreshes it")
			return nil
		}
	}
	d.claim(true, "it keeps the lock beyond its TTL as long as it runs and refreshes it")

	at := time.Now()
	if err := holder.Process.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	if _, err := d.holderBut(ctx, pid); err != nil {
		return err
	}
	took := time.Since(at)
	d.grants += 2
	d.claim(took <= ttl+slack, "the waiter held the lock %s after the stop: the server ended the hung session", ms(took))

	// The question waits in the pipe: Err is what it does first when it goes on.
	if _, err := ask.WriteString("Err?\n"); err != nil {
		return err
	}
	if err := holder.Process.Signal(syscall.SIGCONT); err != nil {
		return err
	}
	said := "nothing"
	if answers.Scan() {
		said = answers.Text()
	}
	ask.Close() // that was all
	d.claim(said == expired, "after kill -CONT its very next Err() says: %s", oneLine(said))
	if err := holder.wait(); err != nil {
		return err
	}
	if err := heir.wait(); err != nil {
		return err
	}
	heirs, err := lastFence(file)
	if err != nil {
		return err
	}
	d.claim(heirs > old, "its fence, %d, is lower than its heir's, %d: a storage that checks refuses its writes", old, heirs)
	return nil
}
