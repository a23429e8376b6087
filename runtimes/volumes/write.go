package volumes

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render/object"
)

// A volume of content looks as Kubernetes makes it, because programs know that form:
//
//	config.yaml -> ..data/config.yaml
//	..data -> ..3104519862
//	..3104519862/config.yaml
//
// Renaming a new ..data over the old one changes all files at the same instant.
const (
	dataLink = "..data"
	newLink  = "..data_tmp"
)

// writeContent brings a volume up to date; changed says whether anything was written.
func (v *Volumes) writeContent(pod *plan.Pod, uid string, vol *corev1.Volume, facts Facts) (changed bool, err error) {
	if err := checkName(vol.Name); err != nil {
		return false, err
	}
	c, err := build(pod, vol, facts)
	if err != nil {
		return false, err
	}
	dir, record := v.volumeDir(uid, vol)
	group := fsGroup(pod)
	if err := makeDir(dir, 0o755, group, readOnlyBits); err != nil {
		return false, err
	}
	if !upToDate(dir, c.files, group) {
		if err := swap(dir, c.files, group); err != nil {
			return false, err
		}
		changed = true
	}
	return changed, writeRecord(record, c.digests)
}

// upToDate compares what is in the volume with what is to be there.
func upToDate(dir string, files map[string]file, group *int64) bool {
	n := 0
	current := filepath.Join(dir, dataLink) + "/"
	err := filepath.WalkDir(current, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		want, ok := files[strings.TrimPrefix(p, current)]
		if !ok {
			return fs.ErrNotExist
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		mode, gid := owned(want.mode, group, readOnlyBits, false)
		if info.Mode() != mode || info.Size() != int64(len(want.data)) || gid >= 0 && groupOf(info) != gid {
			return fs.ErrInvalid
		}
		have, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		if !bytes.Equal(have, want.data) {
			return fs.ErrInvalid
		}
		n++
		return nil
	})
	if err != nil || n != len(files) {
		return false
	}
	links, err := userLinks(dir)
	return err == nil && slices.Equal(links, topLevel(files))
}

// swap writes the files beside the old ones and then replaces all at once.
func swap(dir string, files map[string]file, group *int64) error {
	next, err := os.MkdirTemp(dir, "..")
	if err != nil {
		return err
	}
	discard := func(err error) error {
		os.RemoveAll(next)
		return err
	}
	if err := own(next, 0o755, group, readOnlyBits, true); err != nil {
		return discard(err)
	}
	for name, f := range files {
		if err := writeFile(next, name, f, group); err != nil {
			return discard(err)
		}
	}
	old, err := os.Readlink(filepath.Join(dir, dataLink))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return discard(err)
	}
	tmp := filepath.Join(dir, newLink)
	if err := os.Remove(tmp); err != nil && !errors.Is(err, os.ErrNotExist) {
		return discard(err)
	}
	if err := os.Symlink(filepath.Base(next), tmp); err != nil {
		return discard(err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, dataLink)); err != nil {
		return discard(err)
	}
	if err := relink(dir, topLevel(files)); err != nil {
		return err
	}
	return tidy(dir, filepath.Base(next), old)
}

func writeFile(dir, name string, f file, group *int64) error {
	full := filepath.Join(dir, filepath.FromSlash(name))
	if sub := path.Dir(name); sub != "." {
		at := dir
		for part := range strings.SplitSeq(sub, "/") {
			at = filepath.Join(at, part)
			if err := makeDir(at, 0o755, group, readOnlyBits); err != nil {
				return err
			}
		}
	}
	if err := os.WriteFile(full, f.data, 0o600); err != nil {
		return err
	}
	return own(full, f.mode, group, readOnlyBits, false)
}

// relink makes the visible names of the volume: one symlink for each first element of a path.
func relink(dir string, names []string) error {
	have, err := userLinks(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		if slices.Contains(have, name) {
			continue
		}
		if err := os.Symlink(dataLink+"/"+name, filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	for _, name := range have {
		if slices.Contains(names, name) {
			continue
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// tidy removes the content that was replaced, and what an interrupted write left behind.
func tidy(dir, current, old string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		if e.IsDir() && strings.HasPrefix(e.Name(), "..") && e.Name() != current {
			errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("remove the old content %s: %w", old, err)
	}
	return nil
}

// userLinks are the visible names in a volume, sorted.
func userLinks(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// topLevel are the first elements of the files' paths, sorted.
func topLevel(files map[string]file) []string {
	var names []string
	for name := range files {
		first, _, _ := strings.Cut(name, "/")
		names = append(names, first)
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// written is the record of a volume's content.
type written struct {
	Ref    object.Ref `json:"ref"`
	Digest string     `json:"digest"`
}

func writeRecord(name string, digests map[object.Ref]string) error {
	records := make([]written, 0, len(digests))
	for ref, digest := range digests {
		records = append(records, written{ref, digest})
	}
	slices.SortFunc(records, func(a, b written) int { return object.Compare(a.Ref, b.Ref) })
	data, err := json.Marshal(records)
	if err != nil {
		return err
	}
	if have, err := os.ReadFile(name); err == nil && bytes.Equal(have, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return err
	}
	return replaceFile(name, data, 0o600)
}

// Mounted returns the ConfigMaps and Secrets in the pod's volumes with the digests of what is
// written there now. When a broken-off update left two versions, the digest is both, so that it
// equals neither. A pod without such volumes has none.
func (v *Volumes) Mounted(uid string) (map[object.Ref]string, error) {
	if err := checkName(uid); err != nil {
		return nil, err
	}
	out := map[object.Ref]string{}
	for _, root := range []string{v.disk, v.memory} {
		dir := filepath.Join(root, "pods", uid, "written")
		entries, err := os.ReadDir(dir)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read what pod %s has mounted: %w", uid, err)
		}
		for _, e := range entries {
			if !strings.HasSuffix(e.Name(), ".json") {
				continue // a write that was interrupted
			}
			if err := readRecord(filepath.Join(dir, e.Name()), out); err != nil {
				return nil, fmt.Errorf("read what pod %s has mounted: %w", uid, err)
			}
		}
	}
	return out, nil
}

func readRecord(name string, out map[object.Ref]string) error {
	data, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var records []written
	if err := json.Unmarshal(data, &records); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, r := range records {
		switch have, ok := out[r.Ref]; {
		case !ok:
			out[r.Ref] = r.Digest
		case have != r.Digest:
			out[r.Ref] = have + " " + r.Digest
		}
	}
	return nil
}

// replaceFile writes a file so that readers see the old or the new content.
func replaceFile(name string, data []byte, mode fs.FileMode) error {
	tmp := name + ".tmp"
	if err := os.WriteFile(tmp, data, mode); err != nil {
		return err
	}
	if err := os.Chmod(tmp, mode); err != nil {
		return err
	}
	return os.Rename(tmp, name)
}
