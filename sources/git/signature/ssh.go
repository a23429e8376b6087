package signature

import (
	"bytes"
	"crypto/rsa"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
)

const (
	namespace  = "git" // what Git signs for
	minRSABits = 2048
)

// sshSigner is one line of a list of SSH keys.
type sshSigner struct {
	key  ssh.PublicKey
	name string
	// namespaces are patterns; nil for any.
	namespaces []string
	after      time.Time // zero without a limit
	before     time.Time
}

// keyTypes are the names that a line of authorized_keys begins with.
var keyTypes = []string{
	ssh.KeyAlgoED25519, ssh.KeyAlgoRSA, ssh.KeyAlgoECDSA256, ssh.KeyAlgoECDSA384, ssh.KeyAlgoECDSA521,
	ssh.KeyAlgoSKED25519, ssh.KeyAlgoSKECDSA256, "ssh-dss",
}

func isKeyType(word string) bool {
	for _, t := range keyTypes {
		if word == t {
			return true
		}
	}
	return strings.HasSuffix(word, "-cert-v01@openssh.com")
}

// looksLikeSSH reports whether any line names the type of an SSH key.
func looksLikeSSH(content []byte) bool {
	for line := range strings.Lines(string(content)) {
		for _, word := range strings.Fields(line) {
			if isKeyType(word) && !strings.HasPrefix(strings.TrimSpace(line), "#") {
				return true
			}
		}
	}
	return false
}

func (k *Keys) addSSH(file string, content []byte) error {
	var failed error
	n := 0
	for line := range strings.Lines(string(content)) {
		n++
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		s, err := parseSigner(line)
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s:%d: %w", file, n, err))
			continue
		}
		k.signers = append(k.signers, s)
	}
	return failed
}

// parseSigner reads "type key comment", or "principals options type key comment" as ssh-keygen(1) describes it.
func parseSigner(line string) (sshSigner, error) {
	var s sshSigner
	words, err := split(line)
	if err != nil {
		return s, err
	}
	principals := ""
	if !isKeyType(words[0]) {
		principals = strings.Trim(words[0], `"`)
		words = words[1:]
		if len(words) > 0 && !isKeyType(words[0]) {
			if err := s.options(words[0]); err != nil {
				return s, err
			}
			words = words[1:]
		}
	}
	if len(words) < 2 || !isKeyType(words[0]) {
		return s, errors.New("is no SSH key: write it as in a .pub file, or as a line of allowed_signers")
	}
	key, comment, _, _, err := ssh.ParseAuthorizedKey([]byte(words[0] + " " + words[1] + " " + strings.Join(words[2:], " ")))
	if err != nil {
		return s, errors.New("the SSH key cannot be read: copy it whole")
	}
	if why := weakKey(key); why != "" {
		return s, errors.New(why)
	}
	s.key, s.name = key, principals
	if s.name == "" {
		s.name = comment
	}
	return s, nil
}

// split cuts a line at blanks outside of quotes.
func split(line string) ([]string, error) {
	var words []string
	var word strings.Builder
	quoted := false
	for _, c := range line {
		switch {
		case c == '"':
			quoted = !quoted
			word.WriteRune(c)
		case (c == ' ' || c == '\t') && !quoted:
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
		default:
			word.WriteRune(c)
		}
	}
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	if word.Len() > 0 {
		words = append(words, word.String())
	}
	return words, nil
}

// options reads the options of a line of allowed_signers. One that is not known could be a limit, so it is an error.
func (s *sshSigner) options(text string) error {
	for _, option := range splitOptions(text) {
		name, value, has := strings.Cut(option, "=")
		value = strings.Trim(value, `"`)
		var err error
		switch name = strings.ToLower(name); {
		case name == "namespaces" && has:
			s.namespaces = strings.Split(value, ",")
		case name == "valid-after" && has:
			s.after, err = validity(value)
		case name == "valid-before" && has:
			s.before, err = validity(value)
		case name == "cert-authority":
			err = errors.New("certificates are not checked: list the keys themselves")
		default:
			err = fmt.Errorf("the option %q is not known: namespaces, valid-after and valid-before are", name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func splitOptions(text string) []string {
	var list []string
	quoted, start := false, 0
	for i, c := range text {
		switch {
		case c == '"':
			quoted = !quoted
		case c == ',' && !quoted:
			list, start = append(list, text[start:i]), i+1
		}
	}
	return append(list, text[start:])
}

// validity reads YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS: in local time, or in UTC with a Z at the end.
func validity(value string) (time.Time, error) {
	digits, utc := strings.CutSuffix(value, "Z")
	zone := time.Local
	if utc {
		zone = time.UTC
	}
	for _, layout := range []string{"20060102", "200601021504", "20060102150405"} {
		if len(digits) == len(layout) {
			if at, err := time.ParseInLocation(layout, digits, zone); err == nil {
				return at, nil
			}
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a time: write YYYYMMDD, YYYYMMDDHHMM or YYYYMMDDHHMMSS, with a Z for UTC", value)
}

// weakKey says why a key is not trusted to sign; empty if it is.
func weakKey(key ssh.PublicKey) string {
	if strings.HasSuffix(key.Type(), "-cert-v01@openssh.com") {
		return "certificates are not checked: list the key itself"
	}
	if key.Type() == "ssh-dss" {
		return "DSA keys are too weak: use an Ed25519 key"
	}
	if c, ok := key.(ssh.CryptoPublicKey); ok {
		if r, ok := c.CryptoPublicKey().(*rsa.PublicKey); ok && r.N.BitLen() < minRSABits {
			return fmt.Sprintf("an RSA key of %d bits is too weak: use one of %d or more, or an Ed25519 key", r.N.BitLen(), minRSABits)
		}
	}
	return ""
}

// ssh judges the signature of an SSH key. As in Git, the validity of a line is that at the time when the committer or
// tagger says that the object was made.
func (k *Keys) ssh(o signed, block []byte) (Signer, error) {
	sig, err := sshsig.ParseSignature(block)
	if err != nil {
		return Signer{}, refuse(Invalid, "", signAgain, "its SSH signature cannot be read: %v", err)
	}
	if !bytes.Equal(sig.Marshal(), block) {
		return Signer{}, ambiguous("its SSH signature is not written as OpenSSH does")
	}
	id := ssh.FingerprintSHA256(sig.PublicKey)
	switch why := weakKey(sig.PublicKey); {
	case why != "":
		return Signer{}, refuse(Weak, id, "", "it is signed by the SSH key %s: %s", id, why)
	case sig.Namespace != namespace:
		return Signer{}, refuse(Invalid, id, signAgain, "the SSH signature by %s was made for %q, not for git", id, sig.Namespace)
	}
	refusal := refuse(UnknownKey, id, "sign with a key of the list, or add this one to it", "it is signed by the SSH key %s, which is not among those that may sign", id)
	for _, s := range k.signers {
		if !bytes.Equal(s.key.Marshal(), sig.PublicKey.Marshal()) {
			continue
		}
		if why := s.allows(o.at); why != nil {
			why.Key, refusal = id, why
			continue
		}
		if err := sshsig.Verify(bytes.NewReader(o.payload), sig, s.key, sig.HashAlgorithm, namespace); err != nil {
			return Signer{}, refuse(Invalid, id, signAgain, "the signature is not one by the SSH key %s over these bytes", id)
		}
		return Signer{Format: SSH, Key: id, Name: s.name}, nil
	}
	return Signer{}, refusal
}

// allows says why a line does not allow to sign for Git at a time; nil if it does.
func (s sshSigner) allows(at time.Time) *Refusal {
	who := "the SSH key " + ssh.FingerprintSHA256(s.key)
	switch {
	case s.namespaces != nil && !matches(s.namespaces, namespace):
		return refuse(UnknownKey, "", `write namespaces="git"`, "%s may sign for %s only, not for git", who, strings.Join(s.namespaces, ","))
	case !s.after.IsZero() && at.Before(s.after):
		return refuse(Expired, "", signAgain, "%s is valid after %s, and this was made on %s", who, stamp(s.after), stamp(at))
	case !s.before.IsZero() && !at.Before(s.before):
		return refuse(Expired, "", signAgain, "%s is valid before %s, and this was made on %s", who, stamp(s.before), stamp(at))
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05Z") }

// matches tries the patterns of a list in turn; one that begins with ! excludes.
func matches(patterns []string, name string) bool {
	matched := false
	for _, p := range patterns {
		not := strings.HasPrefix(p, "!")
		if ok, err := path.Match(strings.TrimPrefix(p, "!"), name); err == nil && ok {
			if not {
				return false
			}
			matched = true
		}
	}
	return matched
}
