package volumes

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// WriteFile writes a file of the pod that its containers mount, for example "hosts", and returns its
// path on the host. The file keeps its inode, so that containers that have it mounted see the new
// content; it can be read by everybody in the pod.
func (v *Volumes) WriteFile(uid, name string, data []byte) (hostPath string, err error) {
	if err := errors.Join(checkName(uid), checkName(name)); err != nil {
		return "", fmt.Errorf("write the file %s of pod %s: %w", name, uid, err)
	}
	hostPath = filepath.Join(v.podDir(uid), "files", name)
	if err := overwrite(hostPath, data); err != nil {
		return "", fmt.Errorf("write the file %s of pod %s: %w", name, uid, classify(err))
	}
	return hostPath, nil
}

func overwrite(name string, data []byte) error {
	if have, err := os.ReadFile(name); err == nil && string(have) == string(data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	if err := os.WriteFile(name, data, 0o644); err != nil {
		return err
	}
	return os.Chmod(name, 0o644)
}

// TerminationLog makes the empty file that a container's attempt mounts at its
// terminationMessagePath, and returns its path on the host. Anybody in the container may write to it.
func (v *Volumes) TerminationLog(uid, container string, attempt int) (hostPath string, err error) {
	if err := errors.Join(checkName(uid), checkName(container)); err != nil {
		return "", fmt.Errorf("make the termination log of container %s of pod %s: %w", container, uid, err)
	}
	hostPath = v.terminationLog(uid, container, attempt)
	err = os.MkdirAll(filepath.Dir(hostPath), 0o700)
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(hostPath, os.O_CREATE|os.O_WRONLY, 0o666); err == nil {
			err = errors.Join(f.Chmod(0o666), f.Close())
		}
	}
	if err == nil && attempt > 1 {
		// The last attempt's message may still be asked for, older ones not.
		err = os.Remove(v.terminationLog(uid, container, attempt-2))
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
	}
	if err != nil {
		return "", fmt.Errorf("make the termination log of container %s of pod %s: %w", container, uid, classify(err))
	}
	return hostPath, nil
}

// ReadTerminationLog returns the last limit bytes that an attempt of a container wrote to its
// termination log; empty when there is none.
func (v *Volumes) ReadTerminationLog(uid, container string, attempt int, limit int64) (string, error) {
	if err := errors.Join(checkName(uid), checkName(container)); err != nil {
		return "", fmt.Errorf("read the termination log of container %s of pod %s: %w", container, uid, err)
	}
	s, err := readTail(v.terminationLog(uid, container, attempt), limit)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read the termination log of container %s of pod %s: %w", container, uid, err)
	}
	return s, nil
}

func (v *Volumes) terminationLog(uid, container string, attempt int) string {
	return filepath.Join(v.podDir(uid), "termination", container, strconv.Itoa(attempt))
}

func readTail(name string, limit int64) (string, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	if !info.Mode().IsRegular() {
		return "", fmt.Errorf("%s is not a file", name)
	}
	if info.Size() > limit {
		if _, err := f.Seek(-limit, io.SeekEnd); err != nil {
			return "", err
		}
	}
	data, err := io.ReadAll(io.LimitReader(f, limit))
	return strings.ToValidUTF8(string(data), "�"), err
}
