package filelock

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// A Report is what Probe has found out about a folder.
type Report struct {
	// FileSystem is its type and the options of its mount, such as
	// "nfs4 rw,vers=4.2,local_lock=none"; empty if that is not known.
	FileSystem string

	// Skew is how far the file system's clock is ahead of this host's. Locks of
	// this package do not depend on it, but SwanLake's processes do: they take
	// a lock file for stale that much sooner, or later.
	Skew time.Duration

	// Peers are the other processes that ran Probe meanwhile, and saw this
	// one's locks as this one saw theirs.
	Peers []string
}

// Probe tries whether locks in dir exclude each other. Run it on two hosts at the
// same time, or in two processes: it looks for others until ctx ends, or for a
// second after it has found one. Alone it finds out less: whether the file system
// has hard links and flock, and whether it is mounted so that flock does not reach
// other hosts (NFS with nolock or local_lock=flock, SMB with nobrl; on Linux).
//
// The error is nil if nothing was found that makes locks unsafe; then Peers says
// with whom that was tried. Nothing is left behind but the folder dir/.swanlock.
func Probe(ctx context.Context, dir string) (r Report, err error) {
	if supported != nil {
		return r, fmt.Errorf("filelock: probe %s: %w", dir, supported)
	}
	if r.FileSystem, err = mountOf(dir); err == nil {
		err = probe(ctx, filepath.Join(dir, stateDir, "probe"), &r)
	}
	if err != nil {
		err = fmt.Errorf("filelock: probe %s: %w", dir, err)
	}
	return r, err
}

func probe(ctx context.Context, dir string, r *Report) error {
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := mkdir(d); err != nil {
			return err
		}
	}
	defer os.Remove(dir) // if nobody else is there
	me := filepath.Join(dir, rand.Text())
	f, err := os.OpenFile(me, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	defer os.Remove(me)
	allow(me)
	if ok, err := tryFlock(f, false); err != nil || !ok {
		return errors.Join(err, errors.New("flock does not work"))
	}
	if again, err := lockable(me); err != nil || again {
		return errors.Join(err, errors.New("flock does not exclude others, not even on this host"))
	}
	if err := os.Link(me, me+".link"); err != nil {
		return fmt.Errorf("hard links do not work: %w", err)
	}
	if err := os.Remove(me + ".link"); err != nil {
		return err
	}
	before := time.Now()
	now, err := touch(f)
	if err != nil {
		return err
	}
	r.Skew = now.Sub(before.Add(time.Since(before) / 2).Round(0))

	host, _ := os.Hostname()
	peers := make(map[string]*peer)
	until := time.Time{} // for ever
	for n := 1; until.IsZero() || time.Now().Before(until); n++ {
		if _, err := f.WriteAt(fmt.Appendf(nil, "%010d %s/%d\n", n, host, os.Getpid()), 0); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		names, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		for _, name := range names {
			path := filepath.Join(dir, name.Name())
			if path == me || strings.HasSuffix(path, ".link") {
				continue
			}
			p := peers[path]
			if p == nil {
				p = &peer{}
				peers[path] = p
			}
			if err := p.look(path); err != nil {
				return err
			}
			if p.excluded && until.IsZero() {
				until = time.Now().Add(time.Second) // for it to see this one
			}
		}
		if sleep(ctx, 50*time.Millisecond) != nil {
			break
		}
	}
	for _, p := range peers {
		if p.excluded {
			r.Peers = append(r.Peers, p.name)
		}
	}
	slices.Sort(r.Peers)
	return nil
}

// A peer is another process that runs Probe.
type peer struct {
	name     string
	first    string // the number that it wrote, when it was seen first
	unlocked string // the number when its lock was not seen
	excluded bool
}

// look finds out whether the peer is alive, by the number that it writes, which
// rises, and whether its lock is seen here. The error says that the peer is alive,
// and that its lock does not exclude this host.
func (p *peer) look(path string) error {
	content, _, err := read(path)
	number, name, _ := strings.Cut(strings.TrimSuffix(content, "\n"), " ")
	if err != nil || number == "" {
		return ignoreMissing(err)
	}
	p.name, p.first = name, cmp.Or(p.first, number)
	free, err := lockable(path)
	switch {
	case err != nil:
		return ignoreMissing(err)
	case p.unlocked != "" && number > p.unlocked:
		return fmt.Errorf("flock does not exclude %s: its processes and this host's would hold a lock at once", name)
	case free:
		p.unlocked = number
	case number > p.first:
		p.excluded = true
	}
	return nil
}

// lockable reports whether nobody has the flock of a file.
func lockable(path string) (bool, error) {
	f, err := os.Open(path)
	if err != nil {
		return false, err
	}
	defer f.Close()
	return tryFlock(f, true)
}

// mountOf returns the type and the options of dir's file system.
func mountOf(dir string) (string, error) {
	dir, err := filepath.Abs(dir)
	if err == nil {
		dir, err = filepath.EvalSymlinks(dir)
	}
	if err != nil {
		return "", err
	}
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return "", nil // It is not Linux.
	}
	mount := findMount(string(table), dir)
	if option := unsafeOption(mount); option != "" {
		return mount, fmt.Errorf("it is mounted with %s: flock excludes this host's processes alone", option)
	}
	return mount, nil
}

// unsafeOption returns the option with which flock does not reach other hosts.
func unsafeOption(mount string) string {
	options := strings.FieldsFunc(mount, func(r rune) bool { return r == ' ' || r == ',' })
	for _, option := range []string{"nolock", "local_lock=flock", "local_lock=all", "nobrl"} {
		if slices.Contains(options, option) {
			return option
		}
	}
	return ""
}

// findMount finds dir's mount in /proc/self/mountinfo, of which proc(5) tells.
func findMount(table, dir string) (mount string) {
	longest := 0
	for line := range strings.Lines(table) {
		fields, super, _ := strings.Cut(line, " - ")
		f, s := strings.Fields(fields), strings.Fields(super)
		if len(f) < 6 || len(s) < 3 {
			continue
		}
		at := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace(f[4])
		if dir != at && !strings.HasPrefix(dir, strings.TrimSuffix(at, "/")+"/") || len(at) < longest {
			continue
		}
		longest, mount = len(at), s[0]+" "+s[2]
	}
	return mount
}
