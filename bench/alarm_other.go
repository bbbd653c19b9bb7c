//go:build !linux

package main

import "time"

// An alarm sleeps. Only Linux needs more than time.Sleep for less than a millisecond.
type alarm struct{}

func newAlarm() alarm               { return alarm{} }
func (alarm) sleep(d time.Duration) { time.Sleep(d) }
func (alarm) close()                {}
