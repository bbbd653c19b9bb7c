package swanlock_test

import (
	"bufio"
	"encoding/binary"
	"math/bits"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/swanlake-io/swanlock"
)

// goldenKeys reads the answers of real Rust.
func goldenKeys(tb testing.TB) map[string]swanlock.Key {
	tb.Helper()
	file, err := os.Open("testdata/keys.txt")
	if err != nil {
		tb.Fatal(err)
	}
	defer file.Close()
	keys := make(map[string]swanlock.Key)
	for lines := bufio.NewScanner(file); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "#") {
			continue
		}
		number, quoted, _ := strings.Cut(line, " ")
		key, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			tb.Fatalf("keys.txt: %q: %v", line, err)
		}
		target, err := strconv.Unquote(quoted)
		if err != nil {
			tb.Fatalf("keys.txt: %q: %v", line, err)
		}
		keys[target] = swanlock.Key(key)
	}
	return keys
}

// A changed key would let an old and a new program, or SwanLake and this one,
// hold the same lock at once.
func TestKeyOfIsWhatRustComputes(t *testing.T) {
	golden := goldenKeys(t)
	if len(golden) < 150 {
		t.Fatalf("keys.txt holds %d keys: it has lost some", len(golden))
	}
	for target, want := range golden {
		if got := swanlock.KeyOf(target); got != want {
			t.Errorf("KeyOf(%q) = %d, want %d", target, got, want)
		}
	}
}

func TestKeyOfKeepsTheDesignsVectors(t *testing.T) {
	for _, tc := range []struct {
		targets []string
		want    swanlock.Key
	}{
		{[]string{"/ducklake/checkpoint/swanlake"}, 1097463690975298865},
		{[]string{"/tmp/my-resource.db"}, 7541294025664951521},
		{[]string{"a/./b", "a//b", "a/b/", "a/b/.", "a/b", "/a/b"}, -1876356050197899535},
		{[]string{"./a", ".//a", "././a/"}, -2805051963250556974},
		{[]string{"/", "", "//", "/."}, -4800647303603446203},
	} {
		for _, target := range tc.targets {
			if got := swanlock.KeyOf(target); got != tc.want {
				t.Errorf("KeyOf(%q) = %d, want %d", target, got, tc.want)
			}
		}
	}
}

func TestKeyOfAllocatesNothing(t *testing.T) {
	for _, target := range []string{"", "/", "job:nightly", "/tmp/my-resource.db", strings.Repeat("/a/./b//c", 1000)} {
		if got := testing.AllocsPerRun(100, func() { swanlock.KeyOf(target) }); got != 0 {
			t.Errorf("KeyOf of %d bytes allocates %v times", len(target), got)
		}
	}
}

func FuzzKeyOf(f *testing.F) {
	for target := range goldenKeys(f) {
		f.Add(target)
	}
	f.Fuzz(func(t *testing.T, target string) {
		key := swanlock.KeyOf(target)
		if want := referenceKey(target); key != want {
			t.Fatalf("KeyOf(%q) = %d, the reference says %d", target, key, want)
		}
		same := []string{
			target + "/", target + "/.", target + "//./",
			strings.ReplaceAll(target, "/", "//"),
			strings.ReplaceAll(target, "/", "/./"),
			strings.ReplaceAll(target, "/", "/././/"),
		}
		if target == "" {
			same = []string{"/", "/."}
		}
		if target != "." && !strings.HasPrefix(target, "./") {
			same = append(same, "/"+target, "/./"+target)
		}
		for _, other := range same {
			if got := swanlock.KeyOf(other); got != key {
				t.Errorf("KeyOf(%q) = %d, but KeyOf(%q) = %d", other, got, target, key)
			}
		}
		// One more component, or one with a longer name, is something else: it has
		// this key by a chance of 1 in 2^64.
		for _, other := range []string{target + "/x", target + "/..", target + "x"} {
			if got := swanlock.KeyOf(other); got == key {
				t.Errorf("KeyOf(%q) = KeyOf(%q) = %d", other, target, key)
			}
		}
	})
}

// referenceKey builds the whole stream that Rust hashes, then hashes it in one
// go.
func referenceKey(target string) swanlock.Key {
	var stream []byte
	var chunks uint64
	for i, part := range strings.Split(target, "/") {
		if part != "" && (part != "." || i == 0) {
			stream = append(stream, part...)
			chunks += uint64(len(part))
			chunks = chunks>>2 | chunks<<62
		}
	}
	stream = binary.LittleEndian.AppendUint64(stream, chunks)

	// SipHash pads with zeros to whole words, the last byte being the length
	// modulo 256.
	padded := append(stream, make([]byte, 8-len(stream)%8)...)
	padded[len(padded)-1] = byte(len(stream))
	v := [4]uint64{}
	for i, initial := range []string{"somepseu", "dorandom", "lygenera", "tedbytes"} {
		v[i] = binary.BigEndian.Uint64([]byte(initial))
	}
	round := func() {
		v[0] += v[1]
		v[2] += v[3]
		v[1] = bits.RotateLeft64(v[1], 13)
		v[3] = bits.RotateLeft64(v[3], 16)
		v[1] ^= v[0]
		v[3] ^= v[2]
		v[0] = bits.RotateLeft64(v[0], 32)
		v[2] += v[1]
		v[0] += v[3]
		v[1] = bits.RotateLeft64(v[1], 17)
		v[3] = bits.RotateLeft64(v[3], 21)
		v[1] ^= v[2]
		v[3] ^= v[0]
		v[2] = bits.RotateLeft64(v[2], 32)
	}
	for ; len(padded) > 0; padded = padded[8:] {
		word := binary.LittleEndian.Uint64(padded)
		v[3] ^= word
		round()
		v[0] ^= word
	}
	v[2] ^= 0xff
	round()
	round()
	round()
	return swanlock.Key(v[0] ^ v[1] ^ v[2] ^ v[3])
}

var keySink swanlock.Key

func BenchmarkKeyOf(b *testing.B) {
	for _, bm := range []struct{ name, target string }{
		{"name", "job:nightly"},
		{"path", "/ducklake/checkpoint/swanlake"},
		{"64components", strings.Repeat("/abc", 64)},
		{"1KiB", strings.Repeat("x", 1024)},
	} {
		b.Run(bm.name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(bm.target)))
			for b.Loop() {
				keySink = swanlock.KeyOf(bm.target)
			}
		})
	}
}
