// Package object is the vocabulary of every stage: what an object is called, where it was
// written, and how two versions of it are told apart.
//
// It is pure: values only, no I/O, no clock.
package object

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/runtime"
)

// Ref names an object. It is comparable, so it serves as map key, sort key and log field.
// Namespace is empty for cluster-scoped kinds.
type Ref struct {
	Group     string `json:"group,omitempty"`
	Kind      string `json:"kind"`
	Namespace string `json:"namespace,omitempty"`
	Name      string `json:"name"`
}

// String returns "Kind namespace/name", or "Kind name" without a namespace.
func (r Ref) String() string {
	if r.Namespace == "" {
		return r.Kind + " " + r.Name
	}
	return r.Kind + " " + r.Namespace + "/" + r.Name
}

// IsZero reports whether r names nothing.
func (r Ref) IsZero() bool { return r == Ref{} }

// Compare orders refs by namespace, kind, name and group.
func Compare(a, b Ref) int {
	// All of everything is compared all the time, so that what decides nothing is not looked at.
	if c := strings.Compare(a.Namespace, b.Namespace); c != 0 {
		return c
	}
	if c := strings.Compare(a.Kind, b.Kind); c != 0 {
		return c
	}
	if c := strings.Compare(a.Name, b.Name); c != 0 {
		return c
	}
	return strings.Compare(a.Group, b.Group)
}

// Origin is where an object, or a field of it, was written.
type Origin struct {
	// Source is the name of the source, and Revision the full commit id in it.
	Source   string `json:"source,omitempty"`
	Revision string `json:"revision,omitempty"`
	// Path is the file below the root of the source, with forward slashes.
	Path string `json:"path,omitempty"`
	// Line is 1-based; 0 means that no line is known.
	Line int `json:"line,omitempty"`
	// Generator says what made a generated object, for example "configMapGenerator web-config".
	Generator string `json:"generator,omitempty"`
}

// String returns "path:line", "path", or the generator and its file.
func (o Origin) String() string {
	s := o.Path
	if o.Path != "" && o.Line > 0 {
		s += ":" + strconv.Itoa(o.Line)
	}
	if o.Generator != "" {
		if s != "" {
			s += " "
		}
		s += "(" + o.Generator + ")"
	}
	return s
}

// Object is one decoded manifest.
type Object struct {
	Ref
	// APIVersion is "group/version", or "version" for the core group.
	APIVersion string
	// Value is the public Kubernetes API type with Kubernetes' defaults applied. For kinds that
	// fairlead does not run it is *unstructured.Unstructured as written. It is shared: never modify it.
	Value runtime.Object
	// Written is the manifest as rendered, before defaults, as canonical JSON (sorted keys, no
	// insignificant space). Hashes are made from it, so a newer fairlead with other defaults restarts nothing.
	Written []byte
	// Hash is HashBytes(Written).
	Hash string
	// Origin is the line of the document, or of what generated it.
	Origin Origin
	// Places are where fields were written that may turn out to be wrong only when the state is known. Only Services have them.
	Places []Place
	// Hidden are the fields whose values come from a Secret or an encrypted file though the object is no Secret, as JSON
	// pointers (RFC 6901). They are shown to nobody, as those of Secrets.
	Hidden []string
}

// Place is where a field was written.
type Place struct {
	// Field is a path with list indices: spec.ports[0].nodePort.
	Field string
	Path  string
	Line  int
}

// At returns where a field was written, or the object where that is not known.
func (o *Object) At(field string) Origin {
	at := o.Origin
	for i := range o.Places {
		if p := &o.Places[i]; p.Field == field {
			at.Path, at.Line = p.Path, p.Line
		}
	}
	return at
}

// HashBytes returns the first 16 bytes of the SHA-256 of b in hexadecimal.
func HashBytes(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}
