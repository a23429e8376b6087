package store

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Format is the version of what a state directory holds; the file format in it says which one it is. It is raised when an
// older fairlead would take something in the directory for what it is not. Fields that an older one can do without do not
// raise it. A fairlead reads its own format and all before.
const Format = 1

// ErrNewer is returned for a state directory of a newer fairlead.
var ErrNewer = errors.New("the state directory is of a newer fairlead")

// Readable returns an error unless this fairlead understands what a state directory holds: ErrNewer when a newer one wrote it.
// A directory that says nothing is of the first format, or not there yet.
func Readable(dir string) error {
	_, err := readFormat(dir)
	return err
}

func formatFile(dir string) string { return filepath.Join(dir, "format") }

// readFormat returns the format of a state directory; 0 when it does not say it.
func readFormat(dir string) (int, error) {
	name := formatFile(dir)
	b, err := os.ReadFile(name)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("read the format of the state directory: %w", err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil || n < 1 {
		return 0, fmt.Errorf("%s holds %q instead of a number: restore it from a backup, or write %d into it if this fairlead was the last that ran here", name, b, Format)
	}
	if n > Format {
		return 0, fmt.Errorf("%w: %s says format %d, and this one reads formats up to %d. Nothing was changed, and what runs runs on. Start the fairlead that ran here last, or a newer one",
			ErrNewer, name, n, Format)
	}
	return n, nil
}

// claimFormat makes the directory one of this format, or fails when it cannot be.
func claimFormat(dir string) error {
	n, err := readFormat(dir)
	if err != nil || n == Format {
		return err
	}
	return WriteFile(formatFile(dir), []byte(strconv.Itoa(Format)+"\n"))
}
