package main

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

func TestRelay(t *testing.T) {
	const ms = time.Millisecond
	const s, g = fromSwanlock, fromSupervisor
	type event struct {
		at   time.Duration
		from source
	}
	for _, tt := range []struct {
		name   string
		events []event
		want   []time.Duration // when it is passed on
		toAll  int
	}{
		{"swanlock alone", []event{{0, s}}, []time.Duration{200 * ms}, 0},
		{"the supervisor alone: kill $PPID", []event{{0, g}}, []time.Duration{200 * ms}, 0},
		{"all", []event{{0, s}, {5 * ms, g}}, nil, 1},
		{"all, the other way round", []event{{0, g}, {150 * ms, s}}, nil, 1},
		{"all, swanlock first and again", []event{{0, s}, {5 * ms, g}, {6 * ms, s}}, nil, 1},
		{"all, and then swanlock alone", []event{{0, s}, {5 * ms, g}, {time.Second, s}}, []time.Duration{1200 * ms}, 1},
		{"all, twice", []event{{0, s}, {5 * ms, g}, {time.Second, g}, {1001 * ms, s}}, nil, 2},
		{"swanlock twice at once: timeout(1)", []event{{0, s}, {1 * ms, s}}, []time.Duration{200 * ms}, 0},
		{"swanlock twice", []event{{0, s}, {500 * ms, s}}, []time.Duration{200 * ms, 700 * ms}, 0},
		{"all, on a machine that is too busy", []event{{0, s}, {300 * ms, g}}, []time.Duration{200 * ms}, 0},
	} {
		var r relay
		var got []time.Duration
		toAll, zero, next := 0, time.Now(), 0
		for at := time.Duration(0); at < 3*time.Second; at += ms {
			for ; next < len(tt.events) && tt.events[next].at == at; next++ {
				if r.arrive(tt.events[next].from, syscall.SIGTERM, zero.Add(at)) {
					toAll++
				}
			}
			for range r.due(zero.Add(at)) {
				got = append(got, at)
			}
		}
		if !slices.Equal(got, tt.want) || toAll != tt.toAll {
			t.Errorf("%s: passed on at %v, %d to all; want %v, %d", tt.name, got, toAll, tt.want, tt.toAll)
		}
	}
}

// One signal says nothing of another.
func TestRelayKeepsSignalsApart(t *testing.T) {
	var r relay
	now := time.Now()
	r.arrive(fromSwanlock, syscall.SIGTERM, now)
	r.arrive(fromSupervisor, syscall.SIGHUP, now)
	got := r.due(now.Add(relayPause))
	slices.Sort(got)
	if fmt.Sprint(got) != fmt.Sprint([]syscall.Signal{syscall.SIGHUP, syscall.SIGTERM}) {
		t.Errorf("passed on: %v", got)
	}
}
