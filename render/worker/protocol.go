package worker

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Messages are frames: four bytes of length, one byte of kind, and fields of which text is preceded by its
// length. The parent says job and then unit by unit; while a unit is rendered the child asks for directories
// and files, and in the end gives its result.
const (
	msgJob    = 'j' // parent: options for the units that follow; whatever the child knows of files is void
	msgUnit   = 'u' // parent: a unit, and the listing of its directory
	msgList   = 'l' // child: a directory is wanted; parent: here it is, with the files in it that are small
	msgRead   = 'r' // child: a file is wanted; parent: its content
	msgStat   = 's' // child: what is this path; parent: its kind
	msgResult = 'd' // child: the unit's result
)

// The kinds of units.
const (
	unitKustomization = iota
	unitPlain
	unitWhole
)

// maxFrame bounds what either side accepts at once.
const maxFrame = 256 << 20

var errProtocol = errors.New("malformed message")

// conn sends and receives frames. It is not safe for concurrent use.
type conn struct {
	r *bufio.Reader
	w io.Writer
}

func newConn(r io.Reader, w io.Writer) *conn { return &conn{r: bufio.NewReaderSize(r, 64<<10), w: w} }

func (c *conn) send(m *message) error {
	binary.LittleEndian.PutUint32(m.b, uint32(len(m.b)-4))
	_, err := c.w.Write(m.b)
	return err
}

// receive returns the next frame. Its memory is not used again.
func (c *conn) receive() (byte, *fields, error) {
	var head [4]byte
	if _, err := io.ReadFull(c.r, head[:]); err != nil {
		return 0, nil, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n == 0 || n > maxFrame {
		return 0, nil, fmt.Errorf("%w of %d bytes", errProtocol, n)
	}
	b := make([]byte, n)
	if _, err := io.ReadFull(c.r, b); err != nil {
		return 0, nil, err
	}
	return b[0], &fields{b: b[1:]}, nil
}

// message is a frame being written.
type message struct{ b []byte }

func newMessage(kind byte) *message { return &message{append(make([]byte, 4, 512), kind)} }

func (m *message) int(n int)      { m.b = binary.AppendVarint(m.b, int64(n)) }
func (m *message) text(s string)  { m.int(len(s)); m.b = append(m.b, s...) }
func (m *message) bytes(s []byte) { m.int(len(s)); m.b = append(m.b, s...) }
func (m *message) texts(l []string) {
	m.int(len(l))
	for _, s := range l {
		m.text(s)
	}
}

func (m *message) ref(r object.Ref) {
	m.text(r.Group)
	m.text(r.Kind)
	m.text(r.Namespace)
	m.text(r.Name)
}

func (m *message) origin(o object.Origin) { m.text(o.Path); m.int(o.Line); m.text(o.Generator) }

// fields are the content of a frame being read. After an error everything is zero.
type fields struct {
	b   []byte
	err error
}

func (f *fields) int() int {
	v, n := binary.Varint(f.b)
	if n <= 0 {
		f.b, f.err = nil, errProtocol
		return 0
	}
	f.b = f.b[n:]
	return int(v)
}

// count reads how many items follow, each of which takes at least one byte.
func (f *fields) count() int {
	n := f.int()
	if n < 0 || n > len(f.b) {
		f.b, f.err = nil, errProtocol
		return 0
	}
	return n
}

func (f *fields) bytes() []byte {
	n := f.count()
	s := f.b[:n:n]
	f.b = f.b[n:]
	return s
}

func (f *fields) text() string { return string(f.bytes()) }

func (f *fields) texts() []string {
	out := make([]string, f.count())
	for i := range out {
		out[i] = f.text()
	}
	return out
}

func (f *fields) ref() object.Ref {
	return object.Ref{Group: f.text(), Kind: f.text(), Namespace: f.text(), Name: f.text()}
}

func (f *fields) origin() object.Origin {
	return object.Origin{Path: f.text(), Line: f.int(), Generator: f.text()}
}

func (f *fields) places() []object.Place {
	n := f.count()
	if n == 0 {
		return nil
	}
	out := make([]object.Place, n)
	for i := range out {
		out[i] = object.Place{Field: f.text(), Path: f.text(), Line: f.int()}
	}
	return out
}

// hidden reads a list that is nil when it is empty.
func (f *fields) hidden() []string {
	if list := f.texts(); len(list) > 0 {
		return list
	}
	return nil
}

// result writes a unit's result; source and revision of origins are known to the parent.
func (m *message) result(r render.UnitResult) {
	m.int(len(r.Objects))
	for _, o := range r.Objects {
		m.ref(o.Ref)
		m.text(o.APIVersion)
		m.bytes(o.Written)
		m.origin(o.Origin)
		m.int(len(o.Places))
		for _, p := range o.Places {
			m.text(p.Field)
			m.text(p.Path)
			m.int(p.Line)
		}
		m.texts(o.Hidden)
	}
	m.int(len(r.Diags))
	for _, d := range r.Diags {
		m.text(string(d.Severity))
		m.text(d.Code)
		m.ref(d.Ref)
		m.origin(d.Origin)
		m.text(d.Field)
		m.text(d.Message)
		m.text(d.Hint)
	}
	m.texts(r.Reads)
}

func (f *fields) result() (r render.UnitResult, err error) {
	if n := f.count(); n > 0 {
		r.Objects = make([]render.Rendered, n)
	}
	for i := range r.Objects {
		r.Objects[i] = render.Rendered{Ref: f.ref(), APIVersion: f.text(), Written: f.bytes(), Origin: f.origin(), Places: f.places(), Hidden: f.hidden()}
	}
	if n := f.count(); n > 0 {
		r.Diags = make(diag.List, n)
	}
	for i := range r.Diags {
		r.Diags[i] = diag.Diagnostic{
			Severity: diag.Severity(f.text()), Code: f.text(), Ref: f.ref(), Origin: f.origin(),
			Field: f.text(), Message: f.text(), Hint: f.text(),
		}
	}
	r.Reads = f.texts()
	return r, f.err
}
