// Package opened is what the file systems of sources return when a file or a directory is opened: contents that are
// in memory.
package opened

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
)

// File returns an open file, which can be sought in and read at. Its content must not be changed.
func File(info fs.FileInfo, content []byte) fs.File {
	return &file{info: info, Reader: bytes.NewReader(content)}
}

// Dir returns an open directory with these entries, which are sorted by name.
func Dir(info fs.FileInfo, entries []fs.DirEntry) fs.ReadDirFile {
	return &dir{info: info, list: entries}
}

type file struct {
	info fs.FileInfo
	*bytes.Reader
}

func (f *file) Stat() (fs.FileInfo, error) { return f.info, nil }
func (f *file) Close() error               { return nil }

type dir struct {
	info fs.FileInfo
	list []fs.DirEntry
}

func (d *dir) Stat() (fs.FileInfo, error) { return d.info, nil }
func (d *dir) Close() error               { return nil }
func (d *dir) Read([]byte) (int, error) {
	return 0, &fs.PathError{Op: "read", Path: d.info.Name(), Err: errors.New("is a directory")}
}

// ReadDir returns the next n entries, or all when n is not positive.
func (d *dir) ReadDir(n int) ([]fs.DirEntry, error) {
	if n <= 0 {
		list := d.list
		d.list = nil
		return list, nil
	}
	if len(d.list) == 0 {
		return nil, io.EOF
	}
	n = min(n, len(d.list))
	list := d.list[:n:n]
	d.list = d.list[n:]
	return list, nil
}
