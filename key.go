package swanlock

import (
	"math/bits"
	"strings"
)

// A Key is what a target is locked by: two targets are one if their keys are
// equal, for every Locker but those of redislock, which lock by the path itself,
// and tell apart different paths that KeyOf gives one key. On PostgreSQL it is the
// advisory lock's own number.
type Key int64

// KeyOf returns the key of a target. It is the hash that SwanLake's own servers
// take of a lock's path, bit for bit, so that both lock the same thing: Rust's
// Hash for a Unix Path, through SipHash-1-3 with zero keys.
//
// It is a wire format: the key of a target never changes, in no version of this
// module.
//
// Targets are compared as Rust's paths are, so spellings of one path share a
// key: "a/b", "a//b", "a/./b", "a/b/" and "a/b/.". A "." counts only when it
// leads ("./a" is not "a"), ".." is an ordinary name, and neither case nor
// Unicode form is folded. Rust's hash also gives a few different paths one key,
// by design: "/a" and "a", "/" and "", and some with the same letters in other
// folders ("a/bcdefg/h" and "abcde/f/gh"). Keys are finite besides. Two targets
// that share a key exclude each other, which is safe, only slower.
//
// A target need not be a path: "job:nightly" is a path of one component. Any
// bytes are allowed, whatever their length, and nothing is allocated.
//
// The hash guards against accidents, not against an adversary, which can choose
// targets that collide.
func KeyOf(target string) Key {
	h := newSip13()
	// What Rust calls chunk_bits: where the components ended, so that "a/bc" and
	// "ab/c" differ.
	var chunks uint64
	for rest, leads := target, true; rest != ""; leads = false {
		var component string
		component, rest, _ = strings.Cut(rest, "/")
		if component == "" || component == "." && !leads {
			continue
		}
		h.write(component)
		chunks = bits.RotateLeft64(chunks+uint64(len(component)), -2)
	}
	h.writeWord(chunks)
	return Key(h.sum())
}

// A sip13 is a SipHash-1-3 that is fed piece by piece (Aumasson and Bernstein,
// "SipHash: a fast short-input PRF").
type sip13 struct {
	v0, v1, v2, v3 uint64
	tail           uint64 // the bytes that do not fill a word yet, the first lowest
	length         uint64 // of all that was written; tail holds length%8 bytes
}

func newSip13() sip13 {
	return sip13{
		v0: 0x736f6d6570736575, v1: 0x646f72616e646f6d,
		v2: 0x6c7967656e657261, v3: 0x7465646279746573,
	}
}

func (h *sip13) write(s string) {
	for ; len(s) >= 8; s = s[8:] {
		h.writeWord(uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
			uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56)
	}
	for i := range len(s) {
		h.tail |= uint64(s[i]) << (h.length % 8 * 8)
		h.length++
		if h.length%8 == 0 {
			h.compress(h.tail)
			h.tail = 0
		}
	}
}

// writeWord writes the eight bytes of w, the lowest first.
func (h *sip13) writeWord(w uint64) {
	filled := h.length % 8 * 8
	h.compress(h.tail | w<<filled)
	h.tail = w >> (64 - filled) // when filled is 0, Go shifts by 64 and leaves 0
	h.length += 8
}

func (h *sip13) compress(word uint64) {
	h.v3 ^= word
	h.round()
	h.v0 ^= word
}

func (h *sip13) sum() uint64 {
	h.compress(h.tail | h.length<<56)
	h.v2 ^= 0xff
	h.round()
	h.round()
	h.round()
	return h.v0 ^ h.v1 ^ h.v2 ^ h.v3
}

func (h *sip13) round() {
	v0, v1, v2, v3 := h.v0, h.v1, h.v2, h.v3
	v0 += v1
	v1 = bits.RotateLeft64(v1, 13) ^ v0
	v0 = bits.RotateLeft64(v0, 32)
	v2 += v3
	v3 = bits.RotateLeft64(v3, 16) ^ v2
	v0 += v3
	v3 = bits.RotateLeft64(v3, 21) ^ v0
	v2 += v1
	v1 = bits.RotateLeft64(v1, 17) ^ v2
	v2 = bits.RotateLeft64(v2, 32)
	h.v0, h.v1, h.v2, h.v3 = v0, v1, v2, v3
}
