package main

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// An alarm sleeps to some ten microseconds. time.Sleep(500*time.Microsecond) takes
// more than a millisecond in a process that has nothing else to do: Go waits in
// epoll_wait then, which counts whole milliseconds. A timerfd wakes that at its time.
type alarm struct{ file *os.File }

func newAlarm() alarm {
	fd := must(unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_NONBLOCK|unix.TFD_CLOEXEC))
	return alarm{os.NewFile(uintptr(fd), "timerfd")}
}

func (a alarm) sleep(d time.Duration) {
	if d <= 0 {
		return
	}
	raw := must(a.file.SyscallConn())
	var err error
	check(raw.Control(func(fd uintptr) {
		err = unix.TimerfdSettime(int(fd), 0, &unix.ItimerSpec{Value: unix.NsecToTimespec(d.Nanoseconds())}, nil)
	}))
	check(err)
	var times [8]byte
	must(a.file.Read(times[:]))
}

func (a alarm) close() { a.file.Close() }
