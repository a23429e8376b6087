package api

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

// The kinds of frames of logs and exec. A frame is its kind (1 byte), the length of its payload
// (4 bytes, big-endian) and the payload.
const (
	frameStdin    = 0
	frameStdout   = 1
	frameStderr   = 2
	frameResize   = 3 // columns and rows, 4 bytes each, big-endian
	frameStdinEOF = 4
	frameEnd      = 5 // JSON of end; always the last
	frameAlive    = 6 // empty; only shows the sender whether anybody is there
)

// maxFrame bounds what a peer can make us allocate.
const maxFrame = 1 << 20

// end is the payload of frameEnd.
type end struct {
	ExitCode int    `json:"exitCode,omitempty"`
	Error    *Error `json:"error,omitempty"`
}

// frameWriter writes whole frames from any goroutine.
type frameWriter struct {
	mu    sync.Mutex
	w     io.Writer
	flush func() error // after every frame; may be nil
}

func (f *frameWriter) frame(kind byte, p []byte) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for first := true; first || len(p) > 0; first = false {
		n := min(len(p), maxFrame)
		head := [5]byte{kind}
		binary.BigEndian.PutUint32(head[1:], uint32(n))
		if _, err := f.w.Write(append(head[:], p[:n]...)); err != nil {
			return err
		}
		p = p[n:]
	}
	if f.flush != nil {
		return f.flush()
	}
	return nil
}

// stream returns a writer whose writes become frames of one kind.
func (f *frameWriter) stream(kind byte) io.Writer { return frameStream{f, kind} }

type frameStream struct {
	f    *frameWriter
	kind byte
}

func (s frameStream) Write(p []byte) (int, error) {
	if err := s.f.frame(s.kind, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// readFrame returns the next frame; io.EOF only between frames.
func readFrame(r io.Reader) (kind byte, p []byte, err error) {
	var head [5]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = fmt.Errorf("read frame: %w", err)
		}
		return 0, nil, err
	}
	n := binary.BigEndian.Uint32(head[1:])
	if n > maxFrame {
		return 0, nil, fmt.Errorf("read frame: %d bytes, more than %d", n, maxFrame)
	}
	p = make([]byte, n)
	if _, err := io.ReadFull(r, p); err != nil {
		return 0, nil, fmt.Errorf("read frame: %w", err)
	}
	return head[0], p, nil
}

func resizePayload(size [2]uint) []byte {
	p := make([]byte, 8)
	binary.BigEndian.PutUint32(p, uint32(size[0]))
	binary.BigEndian.PutUint32(p[4:], uint32(size[1]))
	return p
}

func parseResize(p []byte) [2]uint {
	return [2]uint{uint(binary.BigEndian.Uint32(p)), uint(binary.BigEndian.Uint32(p[4:]))}
}
