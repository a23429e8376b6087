package live

import (
	"fmt"
	"io"
	"strings"
	"sync"
)

// The sequences that a Screen writes (ECMA-48, and xterm's private modes).
const (
	altScreen  = "\x1b[?1049h"
	mainScreen = "\x1b[?1049l"
	hideCursor = "\x1b[?25l"
	showCursor = "\x1b[?25h"
	noWrap     = "\x1b[?7l"
	wrap       = "\x1b[?7h"
	beginFrame = "\x1b[?2026h" // terminals that know it show the frame in one go; others ignore it
	endFrame   = "\x1b[?2026l"
	home       = "\x1b[H"
	eraseLine  = "\x1b[K"
	eraseBelow = "\x1b[J"
	noStyle    = "\x1b[0m"
)

// Screen draws frames over each other on a terminal's second screen. Its methods may be called from any goroutine.
type Screen struct {
	mu     sync.Mutex
	w      io.Writer
	last   string
	closed bool
}

// Open switches to the second screen and hides the cursor. Close undoes it.
func Open(w io.Writer) (*Screen, error) {
	if _, err := io.WriteString(w, altScreen+hideCursor+noWrap+home+eraseBelow); err != nil {
		return nil, fmt.Errorf("write to the terminal: %w", err)
	}
	return &Screen{w: w}, nil
}

// Draw shows a frame, in one write, without erasing the screen before. An equal frame is not drawn again,
// unless anew is true (after the terminal changed its size); nothing is drawn after Close.
func (s *Screen) Draw(frame string, anew bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || frame == s.last && !anew {
		return nil
	}
	s.last = frame
	var b strings.Builder
	b.WriteString(beginFrame + home)
	for i, line := range strings.Split(frame, "\n") {
		if i > 0 {
			b.WriteString("\r\n")
		}
		b.WriteString(line + eraseLine)
	}
	b.WriteString(eraseBelow + endFrame)
	if _, err := io.WriteString(s.w, b.String()); err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	return nil
}

// Close goes back to the first screen with the cursor shown. It may be called again.
func (s *Screen) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if _, err := io.WriteString(s.w, noStyle+wrap+showCursor+mainScreen); err != nil {
		return fmt.Errorf("write to the terminal: %w", err)
	}
	return nil
}
