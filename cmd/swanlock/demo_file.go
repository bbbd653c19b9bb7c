package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// turns reads what the workers wrote: whose turns are torn, and the fences.
func turns(file string) (lines, whole int, fences []uint64, err error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, 0, nil, err
	}
	all := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	for i := 0; i+2 < len(all); i += 3 {
		who, _ := strings.CutSuffix(all[i], " begin")
		if all[i] == who+" begin" && all[i+1] == who+" middle" && all[i+2] == who+" end" {
			whole++
			fence, _, _ := strings.Cut(who, " ")
			if n, err := strconv.ParseUint(fence, 10, 64); err == nil {
				fences = append(fences, n)
			}
		}
	}
	return len(all), whole, fences, nil
}

func rising(n []uint64) bool {
	for i := 1; i < len(n); i++ {
		if n[i] <= n[i-1] {
			return false
		}
	}
	return true
}

func first(n []uint64) uint64 {
	if len(n) == 0 {
		return 0
	}
	return n[0]
}

func last(n []uint64) uint64 {
	if len(n) == 0 {
		return 0
	}
	return n[len(n)-1]
}

func ms(d time.Duration) string { return d.Round(time.Millisecond).String() }

func size(file string) int64 {
	info, err := os.Stat(file)
	if err != nil {
		return 0
	}
	return info.Size()
}

// lastFence is the number on the last line of file.
func lastFence(file string) (uint64, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0, err
	}
	lines := strings.Fields(string(text))
	if len(lines) == 0 {
		return 0, fmt.Errorf("%s is empty", filepath.Base(file))
	}
	return strconv.ParseUint(lines[len(lines)-1], 10, 64)
}
