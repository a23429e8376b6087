// Package signature judges who signed a Git commit or tag, on the bytes that Git stores. Nothing is decoded and
// encoded again: what is left when the lines of the signature are taken out is what was signed. An object that two
// programs could read in two ways is refused, whatever its signature says.
//
// It has OpenPGP signatures (RFC 9580) and those of SSH keys (PROTOCOL.sshsig of OpenSSH). What it accepts, `git
// verify-commit` and `git verify-tag` accept as well.
package signature

import (
	"fmt"
	"time"
)

// Format is the kind of a signature.
type Format string

// The formats of signatures.
const (
	OpenPGP Format = "OpenPGP"
	SSH     Format = "SSH"
)

// Signer is who made a signature.
type Signer struct {
	Format Format
	// Key is the fingerprint of the signing key: hexadecimal for OpenPGP, SHA256:… for SSH.
	Key string
	// Name is the primary user id of an OpenPGP key, the principals or else the comment of an SSH key. It may be empty.
	Name string
}

// String is "Ada <ada@example.com> (OpenPGP key 0123…)".
func (s Signer) String() string {
	key := fmt.Sprintf("%s key %s", s.Format, s.Key)
	if s.Name == "" {
		return key
	}
	return s.Name + " (" + key + ")"
}

// Reason is why a signature is refused, in one word.
type Reason string

// The reasons.
const (
	Unsigned    Reason = "Unsigned"
	Ambiguous   Reason = "Ambiguous"   // the object can be read in two ways
	Unsupported Reason = "Unsupported" // a format that is not judged
	UnknownKey  Reason = "UnknownKey"
	Invalid     Reason = "Invalid" // the signature is not one of this object
	Expired     Reason = "Expired"
	Revoked     Reason = "Revoked"
	Weak        Reason = "Weak"
)

// Refusal is why an object is not accepted.
type Refusal struct {
	Reason Reason
	// Key is the fingerprint or id of the key that the signature names; empty where it names none.
	Key string
	// Text says what is wrong, Hint what to do.
	Text, Hint string
}

func (r *Refusal) Error() string {
	if r.Hint == "" {
		return r.Text
	}
	return r.Text + ": " + r.Hint
}

func refuse(reason Reason, key, hint, format string, args ...any) *Refusal {
	return &Refusal{Reason: reason, Key: key, Text: fmt.Sprintf(format, args...), Hint: hint}
}

const signAgain = "sign it again with a key of the list"

// Commit judges the raw content of a commit object. The error is a *Refusal.
func (k *Keys) Commit(raw []byte, now time.Time) (Signer, error) {
	o, err := splitCommit(raw)
	if err != nil {
		return Signer{}, err
	}
	return k.judge("commit", o, now)
}

// Tag judges the raw content of a tag object. It has to be the tag of that name, and to point to that commit, since
// a reference can be moved to any tag that was ever signed. The error is a *Refusal.
func (k *Keys) Tag(raw []byte, name, commit string, now time.Time) (Signer, error) {
	t, err := splitTag(raw)
	if err != nil {
		return Signer{}, err
	}
	switch {
	case t.kind != "commit":
		return Signer{}, refuse(Ambiguous, "", "make the tag anew for the commit", "the tag points to a %s, not to a commit", t.kind)
	case t.name != name:
		return Signer{}, refuse(Invalid, "", "make a signed tag of this name", "the signed tag is called %q, and the reference %q", t.name, name)
	case t.object != commit:
		return Signer{}, refuse(Invalid, "", "make a signed tag for this commit", "the signed tag is for commit %s", t.object)
	}
	return k.judge("tag", t.signed, now)
}

func (k *Keys) judge(what string, o signed, now time.Time) (Signer, error) {
	if o.signature == nil {
		hint := "sign it with git commit -S"
		if what == "tag" {
			hint = "sign it with git tag -s"
		}
		return Signer{}, refuse(Unsigned, "", hint+" and a key of the list", "it is not signed")
	}
	format, block, err := armored(o.signature)
	if err != nil {
		return Signer{}, err
	}
	if format == OpenPGP {
		return k.openPGP(o.payload, block, now)
	}
	return k.ssh(o, block)
}
