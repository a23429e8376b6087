package git

import (
	"bufio"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/go-git/go-git/v5/plumbing"
	"github.com/go-git/go-git/v5/plumbing/format/idxfile"
	"github.com/go-git/go-git/v5/plumbing/format/packfile"
)

// What a server may send at once: far above what a repository of manifests needs. Without these limits a few
// kilobytes that someone pushes would fill memory (an object is inflated whole), disk or time.
const (
	maxPackBytes   = 2 << 30   // as it is sent
	maxPackObjects = 500_000   // commits, directories and files
	maxStored      = 128 << 20 // of one object; files above maxObject are fetched and not read
	maxInflated    = 2 << 30   // of all objects together
	maxListing     = 32 << 20  // of references
)

func tooLarge(format string, args ...any) error {
	return fmt.Errorf("%w: %s: keep the manifests in a repository of their own", ErrTooLarge, fmt.Sprintf(format, args...))
}

var errPack = errors.New("the pack is malformed")

// checkPack reads a pack to its end, holds it against the limits, also what its deltas would make, and returns how
// many objects it has.
func checkPack(r *bufio.Reader) (int, error) {
	var head [12]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, noEOF(err)
	}
	version, count := binary.BigEndian.Uint32(head[4:]), binary.BigEndian.Uint32(head[8:])
	if string(head[:4]) != "PACK" || version != 2 && version != 3 {
		return 0, fmt.Errorf("%w: it begins with %q", errPack, head[:8])
	}
	if count > maxPackObjects {
		return 0, tooLarge("it has %d objects, more than %d", count, maxPackObjects)
	}
	if err := checkObjects(r, count); err != nil {
		return 0, err
	}
	if _, err := io.CopyN(io.Discard, r, 20); err != nil {
		return 0, noEOF(err)
	}
	if _, err := r.ReadByte(); err == nil {
		return 0, fmt.Errorf("%w: something comes after its end", errPack)
	} else if !errors.Is(err, io.EOF) {
		return 0, err
	}
	return int(count), nil
}

func checkObjects(r *bufio.Reader, count uint32) error {
	inflated := uint64(0)
	var z io.ReadCloser
	for i := range count {
		kind, size, err := objectHead(r)
		if err == nil {
			err = skipBase(r, kind)
		}
		if err == nil && z == nil {
			z, err = zlib.NewReader(r)
		} else if err == nil {
			err = z.(zlib.Resetter).Reset(r, nil)
		}
		if err != nil {
			return fmt.Errorf("object %d of %d: %w", i+1, count, err)
		}
		whole, err := inflate(z, kind, size)
		if err != nil {
			return fmt.Errorf("object %d of %d: %w", i+1, count, err)
		}
		if inflated += whole; inflated > maxInflated {
			return tooLarge("its files have more than %d MiB", maxInflated>>20)
		}
	}
	return nil
}

// objectHead reads the type of an object and its size as it is stored.
func objectHead(r *bufio.Reader) (plumbing.ObjectType, uint64, error) {
	c, err := r.ReadByte()
	if err != nil {
		return 0, 0, noEOF(err)
	}
	size, shift := uint64(c&15), 4
	kind := plumbing.ObjectType(c >> 4 & 7)
	for c&0x80 != 0 {
		if c, err = r.ReadByte(); err != nil {
			return 0, 0, noEOF(err)
		}
		if shift > 53 {
			return 0, 0, fmt.Errorf("%w: a size has too many bytes", errPack)
		}
		size |= uint64(c&0x7f) << shift
		shift += 7
	}
	return kind, size, nil
}

// skipBase reads over what a delta is based on.
func skipBase(r *bufio.Reader, kind plumbing.ObjectType) error {
	switch kind {
	case plumbing.CommitObject, plumbing.TreeObject, plumbing.BlobObject, plumbing.TagObject:
		return nil
	case plumbing.REFDeltaObject:
		_, err := io.CopyN(io.Discard, r, 20)
		return noEOF(err)
	case plumbing.OFSDeltaObject:
		for range 10 {
			c, err := r.ReadByte()
			if err != nil || c&0x80 == 0 {
				return noEOF(err)
			}
		}
	}
	return fmt.Errorf("%w: type %d, or its base, is none", errPack, kind)
}

// inflate reads one object of the given stored size and returns the size that it has when it is whole.
func inflate(z io.Reader, kind plumbing.ObjectType, size uint64) (uint64, error) {
	if size > maxStored {
		return 0, tooLarge("an object has %d MiB, more than %d", size>>20, maxStored>>20)
	}
	whole := size
	// One byte more than there may be, so that its absence is seen.
	body := bufio.NewReaderSize(io.LimitReader(z, int64(size)+1), 512)
	read := uint64(0)
	if kind.IsDelta() {
		var err error
		for range 2 { // the size of the base, and of what becomes of it
			var n int
			if whole, n, err = deltaSize(body); err != nil {
				return 0, err
			}
			read += uint64(n)
		}
		if whole > maxStored {
			return 0, tooLarge("an object has %d MiB, more than %d", whole>>20, maxStored>>20)
		}
	}
	n, err := io.Copy(io.Discard, body)
	if err != nil {
		return 0, noEOF(err)
	}
	if read += uint64(n); read != size {
		return 0, fmt.Errorf("%w: %d bytes are said to be %d", errPack, read, size)
	}
	return whole, nil
}

func deltaSize(r io.ByteReader) (size uint64, n int, err error) {
	for shift := 0; shift < 63; shift += 7 {
		c, err := r.ReadByte()
		if err != nil {
			return 0, n, noEOF(err)
		}
		n++
		size |= uint64(c&0x7f) << shift
		if c&0x80 == 0 {
			return size, n, nil
		}
	}
	return 0, n, fmt.Errorf("%w: a size has too many bytes", errPack)
}

// noEOF: the end of the input is too early.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// storePack writes a pack and its index into dir. An empty input stores nothing. go-git would index the pack in a
// goroutine of its own, where nobody can recover from what a hostile pack makes of it.
func storePack(ctx context.Context, dir string, r io.Reader) (err error) {
	f, err := os.CreateTemp(dir, "tmp_pack_")
	if err != nil {
		return damaged("write pack", err)
	}
	index := f.Name() + ".index"
	defer func() {
		f.Close()
		if err != nil {
			os.Remove(f.Name())
			os.Remove(index)
		}
	}()
	in := bufio.NewReaderSize(io.TeeReader(r, f), 64<<10)
	if _, e := in.Peek(1); errors.Is(e, io.EOF) {
		return os.Remove(f.Name())
	}
	n, err := checkPack(in)
	switch {
	case errors.Is(err, ErrTooLarge):
		return err
	case err != nil:
		return damaged("receive pack", err)
	case n == 0:
		return os.Remove(f.Name())
	}
	sum, err := writeIndex(ctx, f, index)
	if err != nil {
		return damaged("write pack", err)
	}
	name := filepath.Join(dir, "pack-"+sum.String())
	err = errors.Join(f.Chmod(0o400), os.Rename(index, name+".idx"), os.Rename(f.Name(), name+".pack"))
	if err != nil {
		return damaged("write pack", err)
	}
	return nil
}

// writeIndex writes the index of a pack and returns the pack's checksum.
func writeIndex(ctx context.Context, f *os.File, to string) (sum plumbing.Hash, err error) {
	// Panics of the parser are those of a malformed pack.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", errPack, p)
		}
	}()
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return sum, err
	}
	w := &idxfile.Writer{}
	parser, err := packfile.NewParser(packfile.NewScanner(cancelled{f, ctx}), w)
	if err != nil {
		return sum, err
	}
	if sum, err = parser.Parse(); err != nil {
		return sum, err
	}
	index, err := w.Index()
	if err != nil {
		return sum, err
	}
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o400)
	if err != nil {
		return sum, err
	}
	buffered := bufio.NewWriter(out)
	_, err = idxfile.NewEncoder(buffered).Encode(index)
	return sum, errors.Join(err, buffered.Flush(), out.Close())
}

// cancelled reads a file until a context ends.
type cancelled struct {
	*os.File
	ctx context.Context
}

func (c cancelled) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.File.Read(p)
}

// bounded reads no more than a listing of references may have.
type bounded struct {
	io.ReadCloser
	left int64
}

func (b *bounded) Read(p []byte) (int, error) {
	if b.left <= 0 {
		return 0, tooLarge("its references have more than %d MiB", maxListing>>20)
	}
	n, err := b.ReadCloser.Read(p[:min(int64(len(p)), b.left)])
	b.left -= int64(n)
	return n, err
}
