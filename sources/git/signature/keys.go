package signature

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Keys are those of who may sign. It is safe for concurrent use.
type Keys struct {
	// rings are blocks of OpenPGP keys. They are parsed for every judgement: the library keeps what it found out
	// about a key's own signatures with the key, and that depends on the time.
	rings   [][]byte
	signers []sshSigner
	digest  [sha256.Size]byte
}

// Parse reads public keys from files, by name: OpenPGP in ASCII armor (gpg --armor --export), or lines of SSH keys as
// in authorized_keys, or as in the allowed_signers of ssh-keygen. Every file counts, whatever its name. The error
// names file and line; other says which files hold no key at all.
func Parse(files map[string][]byte) (k *Keys, other []string, err error) {
	k = &Keys{}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(files)) {
		fmt.Fprintf(sum, "%q %q\n", name, files[name])
		content := files[name]
		before := len(k.rings) + len(k.signers)
		if bytes.Contains(content, []byte("-----BEGIN ")) {
			err = errors.Join(err, k.addOpenPGP(name, content))
		} else if looksLikeSSH(content) {
			err = errors.Join(err, k.addSSH(name, content))
		}
		if len(k.rings)+len(k.signers) == before && err == nil {
			other = append(other, name)
		}
	}
	sum.Sum(k.digest[:0])
	switch {
	case err != nil:
		return nil, nil, err
	case len(k.rings)+len(k.signers) == 0:
		return nil, nil, errors.New("there is no public key: add one as gpg --armor --export prints it, or the content of an SSH key's .pub file")
	}
	return k, other, nil
}

// Digest changes with what was parsed. It is zero for no keys.
func (k *Keys) Digest() [sha256.Size]byte {
	if k == nil {
		return [sha256.Size]byte{}
	}
	return k.digest
}

// addOpenPGP adds all armored blocks of a file.
func (k *Keys) addOpenPGP(name string, content []byte) error {
	text := strings.ReplaceAll(string(content), "\r\n", "\n")
	found := 0
	for {
		_, rest, more := strings.Cut(text, "-----BEGIN ")
		if !more {
			break
		}
		kind, _, _ := strings.Cut(rest, "-----")
		switch kind {
		case "PGP PUBLIC KEY BLOCK":
		case "PGP PRIVATE KEY BLOCK", "OPENSSH PRIVATE KEY", "RSA PRIVATE KEY", "EC PRIVATE KEY", "PRIVATE KEY":
			return fmt.Errorf("%s: holds a private key, which does not belong here: put the public one in its place, and take the private one for known to others", name)
		default:
			return fmt.Errorf("%s: holds a %q, which is no public key", name, kind)
		}
		end := "-----END " + kind + "-----"
		block, after, whole := strings.Cut(rest, end)
		if !whole {
			return fmt.Errorf("%s: the block of an OpenPGP key has no end", name)
		}
		ring := []byte("-----BEGIN " + block + end + "\n")
		if _, err := readRing(ring); err != nil {
			return fmt.Errorf("%s: an OpenPGP key cannot be read: %w", name, err)
		}
		k.rings = append(k.rings, ring)
		text = after
		found++
	}
	if found == 0 {
		return fmt.Errorf("%s: holds no OpenPGP key", name)
	}
	return nil
}
