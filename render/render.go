// Package render turns one path of a snapshot into objects.
//
// The repository is hostile: nothing outside the snapshot is read, nothing is executed or fetched,
// and memory and time are bounded. Everything that is wrong with a manifest comes back as diagnostics,
// all of them at once, each with file and line.
package render

import (
	"encoding/json"
	"io/fs"

	"github.com/fairlead-dev/fairlead/render/diag"
	"github.com/fairlead-dev/fairlead/render/object"
)

// Request is what is to be rendered.
type Request struct {
	// Source and Revision are copied into every Origin.
	Source   string
	Revision string
	// Files is the snapshot's tree and Path the directory in it, "." for the root.
	Files fs.FS
	Path  string
	Options
}

// Options are what an application adds to what its path says. The zero value adds nothing.
type Options struct {
	// TargetNamespace, NamePrefix, NameSuffix, CommonLabels and CommonAnnotations transform every object.
	TargetNamespace   string            `json:"targetNamespace,omitempty"`
	NamePrefix        string            `json:"namePrefix,omitempty"`
	NameSuffix        string            `json:"nameSuffix,omitempty"`
	CommonLabels      map[string]string `json:"commonLabels,omitempty"`
	CommonAnnotations map[string]string `json:"commonAnnotations,omitempty"`
	// MetadataEverywhere puts CommonLabels and CommonAnnotations also into selectors and pod templates, as the
	// fields of a kustomization of the same names do (Argo CD); otherwise only the objects' own metadata get
	// them (Flux).
	MetadataEverywhere bool `json:"metadataEverywhere,omitempty"`
	// DefaultNamespace is given to namespaced objects that have none; "default" when empty.
	DefaultNamespace string `json:"defaultNamespace,omitempty"`
	// Patches, Images, Replicas and Components have the form of the fields of a kustomization file.
	Patches    []json.RawMessage `json:"patches,omitempty"`
	Images     []json.RawMessage `json:"images,omitempty"`
	Replicas   []json.RawMessage `json:"replicas,omitempty"`
	Components []string          `json:"components,omitempty"`
	// IgnoreMissingComponents leaves out components that do not exist.
	IgnoreMissingComponents bool `json:"ignoreMissingComponents,omitempty"`
	// Substitute are the variables of postBuild.substitute(From), already merged; nil turns substitution off.
	Substitute map[string]string `json:"substitute,omitempty"`
	// FromSecrets names those variables whose values come from Secrets.
	FromSecrets []string `json:"fromSecrets,omitempty"`
	// Directory is how a path without a kustomization file is read.
	Directory Directory `json:"directory,omitzero"`
	// AgeKeys are age identities (AGE-SECRET-KEY-…) that decrypt SOPS files. They are secret.
	AgeKeys []string `json:"-"`
	// AllowUnsupported turns objects of kinds that fairlead does not run into warnings.
	AllowUnsupported bool `json:"allowUnsupported,omitempty"`
}

// Directory is how a plain directory is read.
type Directory struct {
	// Plain reads the manifests as they are even where a kustomization file exists (Argo CD's directory source).
	Plain bool `json:"plain,omitempty"`
	// NoRecurse leaves out directories below the path.
	NoRecurse bool `json:"noRecurse,omitempty"`
	// Include and Exclude are globs as Argo CD has them; empty includes everything and excludes nothing.
	Include string `json:"include,omitempty"`
	Exclude string `json:"exclude,omitempty"`
}

// Result is what a path holds.
type Result struct {
	// Objects are sorted by object.Compare. With errors among Diags they are incomplete.
	Objects []object.Object
	Diags   diag.List
	// Reads are the files and directories, sorted, that the result depends on, those that were looked for
	// and are absent among them. When none of them changed, the result is the same.
	Reads []string
}
