package filelock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
)

// A journal keeps one value in a file that is never renamed, removed or cut, so
// that it may be under flock all the time; on NFS its content is fresh for
// the process that has that lock. A value never lies over its predecessor, so that a
// writer that dies leaves one of the two. Each store also makes room for the
// next, so that on a full disk a value of the same size can still be stored.
//
// The first block is for touch. A value begins at the start of a block: magic,
// its number, its length, a checksum, itself.
type journal struct {
	f      *os.File
	size   int64 // of the file
	number uint64
	value  []byte
	start  int64 // where value lies; 0: there is none
}

const (
	block  = 4096
	header = 24
	magic  = "swan\x00\x01\r\n" // bytes that no JSON has
)

// load reads the value with the highest number.
func (j *journal) load() error {
	j.number, j.value, j.start = 0, nil, 0
	st, err := j.f.Stat()
	if err != nil {
		return err
	}
	j.size = st.Size()
	all := make([]byte, j.size)
	if n, err := j.f.ReadAt(all, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if int64(n) < j.size {
		return fmt.Errorf("%s: %w", j.f.Name(), io.ErrUnexpectedEOF)
	}
	for at := int64(block); at+header <= j.size; at += block {
		b := all[at:]
		number, length := binary.BigEndian.Uint64(b[8:]), int64(binary.BigEndian.Uint32(b[16:]))
		if string(b[:8]) != magic || number <= j.number || length > int64(len(b))-header ||
			binary.BigEndian.Uint32(b[20:]) != checksum(b[8:20], b[header:header+length]) {
			continue
		}
		j.number, j.value, j.start = number, b[header:header+length], at
	}
	return nil
}

func checksum(head, value []byte) uint32 {
	return crc32.Update(crc32.ChecksumIEEE(head), crc32.IEEETable, value)
}

// store writes value under number, which is higher than that of the last load.
func (j *journal) store(number uint64, value []byte) error {
	length := blocks(len(value))
	at := int64(block)
	if j.start != 0 && j.start < at+length {
		at = j.start + blocks(len(j.value))
	}
	room := at + length
	if at < block+length { // the next one does not fit before this one
		room += length
	}
	if room > j.size {
		if _, err := j.f.WriteAt(make([]byte, room-j.size), j.size); err != nil {
			return err
		}
		j.size = room
	}
	b := make([]byte, length)
	copy(b, magic)
	binary.BigEndian.PutUint64(b[8:], number)
	binary.BigEndian.PutUint32(b[16:], uint32(len(value)))
	binary.BigEndian.PutUint32(b[20:], checksum(b[8:20], value))
	copy(b[header:], value)
	if _, err := j.f.WriteAt(b, at); err != nil {
		return err
	}
	j.number, j.value, j.start = number, value, at
	return nil
}

// blocks returns how many bytes a value of length n takes.
func blocks(n int) int64 { return (int64(n) + header + block - 1) / block * block }
