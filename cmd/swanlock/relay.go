package main

import (
	"syscall"
	"time"
)

// relayPause is how long a signal waits before it is passed on. A service
// manager that stops a unit signals its processes one after the other, in well
// under a millisecond each.
const relayPause = 200 * time.Millisecond

// A source is the process that got a signal.
type source int

const (
	fromSwanlock   source = iota // swanlock run itself
	fromSupervisor               // its supervisor
)

// A relay decides which signals are passed on to the command.
//
// A signal to a whole unit (systemd sends such) reaches the command as well,
// which must not get it twice: programs take the second SIGTERM as "now". The
// supervisor is in the unit, and in a process group of its own. So a signal
// that both the supervisor and swanlock get was sent to all processes of the
// unit. A signal that only one of the two gets is passed on.
type relay struct {
	pending map[syscall.Signal]arrival // not decided yet
	decided map[syscall.Signal]arrival // lately
}

type arrival struct {
	from source
	at   time.Time
	both bool
}

// arrive notes that from got sig, and reports whether it was sent to all.
func (r *relay) arrive(from source, sig syscall.Signal, now time.Time) (toAll bool) {
	if r.pending == nil {
		r.pending, r.decided = map[syscall.Signal]arrival{}, map[syscall.Signal]arrival{}
	}
	if p, ok := r.pending[sig]; ok {
		if p.from == from {
			return false // once more, as timeout(1) does
		}
		delete(r.pending, sig)
		r.decided[sig] = arrival{from, now, true}
		return true
	}
	if d, ok := r.decided[sig]; ok {
		age := now.Sub(d.at)
		if d.both && age < relayPause {
			return false
		}
		if !d.both && d.from != from && age < 10*relayPause {
			// The other half comes late: the command has it twice, but not thrice.
			delete(r.decided, sig)
			return false
		}
	}
	r.pending[sig] = arrival{from, now, false}
	return false
}

// due returns the signals that are to be passed on now.
func (r *relay) due(now time.Time) (sigs []syscall.Signal) {
	for sig, p := range r.pending {
		if now.Sub(p.at) >= relayPause {
			delete(r.pending, sig)
			r.decided[sig] = arrival{p.from, now, false}
			sigs = append(sigs, sig)
		}
	}
	return sigs
}
