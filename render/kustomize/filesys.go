package kustomize

import (
	"errors"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"sigs.k8s.io/kustomize/kyaml/filesys"

	"github.com/fairlead-dev/fairlead/render/tree"
)

// jail is the file system that kustomize sees: the snapshot's root is "/", and nothing can be written.
type jail struct{ t *tree.Tree }

var _ filesys.FileSystem = jail{}

var errReadOnly = errors.New("the snapshot is read-only")

// inside turns a path of kustomize's into one of the tree.
func inside(p string) string {
	p = strings.TrimPrefix(path.Clean("/"+filepath.ToSlash(p)), "/")
	if p == "" {
		return "."
	}
	return p
}

func (j jail) Create(string) (filesys.File, error) { return nil, errReadOnly }
func (j jail) Mkdir(string) error                  { return errReadOnly }
func (j jail) MkdirAll(string) error               { return errReadOnly }
func (j jail) RemoveAll(string) error              { return errReadOnly }
func (j jail) WriteFile(string, []byte) error      { return errReadOnly }
func (j jail) Open(string) (filesys.File, error)   { return nil, errReadOnly }
func (j jail) Glob(string) ([]string, error)       { return nil, errReadOnly }
func (j jail) Walk(string, filepath.WalkFunc) error {
	return errReadOnly
}
func (j jail) IsDir(p string) bool  { return j.t.Kind(inside(p)) == tree.Dir }
func (j jail) Exists(p string) bool { return j.t.Kind(inside(p)) != tree.Absent }

func (j jail) ReadDir(p string) ([]string, error) {
	entries, err := j.t.ReadDir(inside(p))
	if err != nil {
		return nil, err
	}
	names := make([]string, len(entries))
	for i, e := range entries {
		names[i] = e.Name()
	}
	return names, nil
}

func (j jail) ReadFile(p string) ([]byte, error) { return j.t.ReadFile(inside(p)) }

func (j jail) CleanedAbs(p string) (filesys.ConfirmedDir, string, error) {
	in := inside(p)
	switch j.t.Kind(in) {
	case tree.Dir:
		return filesys.ConfirmedDir(path.Join("/", in)), "", nil
	case tree.File:
		return filesys.ConfirmedDir(path.Join("/", path.Dir(in))), path.Base(in), nil
	case tree.Absent:
	}
	return "", "", &fs.PathError{Op: "open", Path: in, Err: fs.ErrNotExist}
}
