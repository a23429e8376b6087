// Package sops decrypts files that SOPS encrypted for age recipients: YAML, JSON, dotenv and binary files.
//
// The format is that of github.com/getsops/sops/v3: every value is sealed by itself with AES-256-GCM under a data
// key, its key path being authenticated along with it; a MAC over all values is sealed with the time of the last
// change; the data key is encrypted with age. The library itself is not linked, since it brings the clients of
// every cloud's key service along. Decrypted text keeps the lines of the encrypted one.
package sops

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/sha512"
	"encoding/base64"
	"errors"
	"fmt"
	"hash"
	"io"
	"path"
	"regexp"
	"strconv"
	"strings"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Error says why a file cannot be decrypted, and what to do about it. It never holds a value of the file.
type Error struct{ Code, Message, Hint string }

func (e *Error) Error() string { return e.Message }

// Identities reads age identities (AGE-SECRET-KEY-…), one or more in each text, comments allowed.
func Identities(keys []string) ([]age.Identity, error) {
	var out []age.Identity
	for i, k := range keys {
		ids, err := age.ParseIdentities(strings.NewReader(k))
		if err != nil {
			// The library's message can quote the key.
			return nil, &Error{"bad-key", fmt.Sprintf("decryption key %d is not an age identity", i+1), "it begins with AGE-SECRET-KEY-1; age-keygen makes one"}
		}
		out = append(out, ids...)
	}
	return out, nil
}

// Format is how a file is encrypted.
type Format int

// The formats. None is a file that is not encrypted.
const (
	None Format = iota
	YAML
	JSON
	Dotenv
	Binary
	INI
)

var dotenvMAC = regexp.MustCompile(`(?m)^sops_mac=ENC\[`)

// Detect tells how a file is encrypted.
func Detect(name string, data []byte) Format {
	if !bytes.Contains(data, []byte("ENC[AES256_GCM,")) || !bytes.Contains(data, []byte("sops")) {
		return None
	}
	if dotenvMAC.Match(data) {
		return Dotenv
	}
	if bytes.Contains(data, []byte("\n[sops]")) {
		return INI
	}
	docs, err := parse(data)
	if err != nil {
		return None // whoever reads it reports that it is malformed
	}
	for _, d := range docs {
		if d.sops == nil {
			continue
		}
		switch ext := path.Ext(name); {
		case ext == ".json":
			return JSON
		case ext == ".yaml", ext == ".yml":
			return YAML
		case bytes.HasPrefix(bytes.TrimSpace(data), []byte("{")):
			return Binary
		}
		return YAML
	}
	return None
}

// Decrypt returns the plain text of an encrypted file, and the values that were encrypted in it. An error is an
// *Error.
func Decrypt(name string, data []byte, ids []age.Identity) (plain []byte, values []string, err error) {
	defer func() {
		if p := recover(); p != nil {
			plain, values, err = nil, nil, malformed("it breaks the parser")
		}
	}()
	format := Detect(name, data)
	switch format {
	case None:
		return data, nil, nil
	case INI:
		return nil, nil, &Error{"sops-format", "is an INI file encrypted with SOPS, which fairlead does not decrypt", "encrypt it as binary (sops encrypt --input-type binary)"}
	case Dotenv:
		return decryptDotenv(data, ids)
	case YAML, JSON, Binary:
	}
	return decryptTree(format, data, ids)
}

func malformed(why string) *Error {
	return &Error{"sops-malformed", "is encrypted with SOPS and damaged: " + why, "encrypt it again with sops"}
}

// metadata is what SOPS writes beside the values. Names are those of the files.
type metadata struct {
	LastModified      string   `yaml:"lastmodified"`
	MAC               string   `yaml:"mac"`
	MACOnlyEncrypted  bool     `yaml:"mac_only_encrypted"`
	UnencryptedSuffix string   `yaml:"unencrypted_suffix"`
	EncryptedSuffix   string   `yaml:"encrypted_suffix"`
	UnencryptedRegex  string   `yaml:"unencrypted_regex"`
	EncryptedRegex    string   `yaml:"encrypted_regex"`
	UnencryptedNote   string   `yaml:"unencrypted_comment_regex"`
	EncryptedNote     string   `yaml:"encrypted_comment_regex"`
	Threshold         int      `yaml:"shamir_threshold"`
	Age               []ageKey `yaml:"age"`
	KeyGroups         []struct {
		Age []ageKey `yaml:"age"`
	} `yaml:"key_groups"`
	PGP   []any `yaml:"pgp"`
	KMS   []any `yaml:"kms"`
	GCP   []any `yaml:"gcp_kms"`
	Azure []any `yaml:"azure_kv"`
	Vault []any `yaml:"hc_vault"`
}

type ageKey struct {
	Recipient string `yaml:"recipient"`
	Enc       string `yaml:"enc"`
}

// dataKey decrypts the key that the values are encrypted with.
func (m *metadata) dataKey(ids []age.Identity) ([]byte, error) {
	keys := m.Age
	if len(m.KeyGroups) > 1 || m.Threshold > 1 {
		return nil, &Error{"sops-key-groups", "is encrypted for several key groups, of which fairlead supports one", "encrypt it for one group of age recipients"}
	}
	for _, g := range m.KeyGroups {
		keys = append(keys, g.Age...)
	}
	if len(keys) == 0 {
		return nil, &Error{"sops-no-age", "is encrypted with SOPS for no age recipient", "add one: fairlead decrypts with age keys, not with PGP or key services"}
	}
	if len(ids) == 0 {
		return nil, &Error{"sops-no-key", "is encrypted with SOPS, and the application has no key to decrypt it", "name a Secret with an age key under the application's decryption"}
	}
	for _, k := range keys {
		r, err := age.Decrypt(armor.NewReader(strings.NewReader(k.Enc)), ids...)
		if err != nil {
			continue
		}
		key, err := io.ReadAll(io.LimitReader(r, 64))
		if err == nil && len(key) == 32 {
			return key, nil
		}
	}
	var names []string
	for _, k := range keys {
		names = append(names, k.Recipient)
	}
	return nil, &Error{"sops-wrong-key", fmt.Sprintf("is encrypted with SOPS, and none of the application's %d keys decrypts it", len(ids)),
		"it is encrypted for " + shorten(strings.Join(names, ", ")) + ": add the key of one of them, or encrypt the file for yours"}
}

func shorten(s string) string {
	if len(s) > 400 {
		return s[:400] + "…"
	}
	return s
}

// opener opens the values of one file and computes their MAC.
type opener struct {
	meta   metadata
	gcm    func(iv int) (cipher.AEAD, error)
	rules  [2]*regexp.Regexp // unencrypted, encrypted
	mac    hash.Hash
	values []string
}

// macOnlyEncrypted begins the MAC when it covers encrypted values only.
var macOnlyEncrypted = []byte{
	0x8a, 0x3f, 0xd2, 0xad, 0x54, 0xce, 0x66, 0x52, 0x7b, 0x10, 0x34, 0xf3, 0xd1, 0x47, 0xbe, 0xb,
	0xb, 0x97, 0x5b, 0x3b, 0xf4, 0x4f, 0x72, 0xc6, 0xfd, 0xad, 0xec, 0x81, 0x76, 0xf2, 0x7d, 0x69,
}

func newOpener(m metadata, ids []age.Identity) (*opener, error) {
	key, err := m.dataKey(ids)
	if err != nil {
		return nil, err
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, malformed("its data key is not one of AES-256")
	}
	o := &opener{meta: m, mac: sha512.New(), gcm: func(iv int) (cipher.AEAD, error) { return cipher.NewGCMWithNonceSize(block, iv) }}
	if m.MACOnlyEncrypted {
		o.mac.Write(macOnlyEncrypted)
	}
	for i, expr := range []string{m.UnencryptedRegex, m.EncryptedRegex} {
		if expr == "" {
			continue
		}
		if o.rules[i], err = regexp.Compile(expr); err != nil {
			return nil, malformed("a regular expression in its metadata is malformed")
		}
	}
	if m.UnencryptedSuffix == "" && m.EncryptedSuffix == "" && m.UnencryptedRegex == "" && m.EncryptedRegex == "" && m.UnencryptedNote == "" && m.EncryptedNote == "" {
		o.meta.UnencryptedSuffix = "_unencrypted"
	}
	return o, nil
}

const sealed = "ENC[AES256_GCM,"

// encrypted reports whether the value at a path is encrypted, by the rules of the file.
func (o *opener) encrypted(at []string, text string) bool {
	m := &o.meta
	anyOf := func(match func(string) bool) bool {
		for _, k := range at {
			if match(k) {
				return true
			}
		}
		return false
	}
	switch {
	case m.UnencryptedNote != "" || m.EncryptedNote != "":
		// Which comments are near is not looked at; the MAC tells whether the guess is right.
		return strings.HasPrefix(text, sealed)
	case m.UnencryptedSuffix != "":
		return !anyOf(func(k string) bool { return strings.HasSuffix(k, m.UnencryptedSuffix) })
	case m.EncryptedSuffix != "":
		return anyOf(func(k string) bool { return strings.HasSuffix(k, m.EncryptedSuffix) })
	case o.rules[0] != nil:
		return !anyOf(o.rules[0].MatchString)
	case o.rules[1] != nil:
		return anyOf(o.rules[1].MatchString)
	}
	return true
}

// value is a decrypted value: its bytes as SOPS authenticates them, and its type (str, int, float, bool, bytes, time).
type value struct{ text, typ string }

var sealedForm = regexp.MustCompile(`^ENC\[AES256_GCM,data:(.+),iv:(.+),tag:(.+),type:(.+)\]$`)

// open decrypts one value.
func (o *opener) open(text, additional string) (value, error) {
	if text == "" {
		return value{"", "str"}, nil
	}
	m := sealedForm.FindStringSubmatch(text)
	if m == nil {
		return value{}, malformed("a value that should be encrypted is not")
	}
	var parts [3][]byte
	for i := range parts {
		b, err := base64.StdEncoding.DecodeString(m[i+1])
		if err != nil {
			return value{}, malformed("a value is not base64")
		}
		parts[i] = b
	}
	if len(parts[1]) == 0 || len(parts[1]) > 256 {
		return value{}, malformed("a value has no nonce")
	}
	gcm, err := o.gcm(len(parts[1]))
	if err != nil {
		return value{}, malformed("a value has no nonce")
	}
	plain, err := gcm.Open(nil, parts[1], append(parts[0], parts[2]...), []byte(additional))
	if err != nil {
		return value{}, malformed("a value was changed, moved or renamed after it was encrypted")
	}
	v := value{string(plain), m[4]}
	bad := false
	switch v.typ {
	case "str", "bytes", "comment":
	case "int":
		_, err := strconv.Atoi(v.text)
		bad = err != nil
	case "float":
		_, err := strconv.ParseFloat(v.text, 64)
		bad = err != nil
	case "bool":
		_, err := strconv.ParseBool(v.text)
		bad = err != nil
	case "time":
		bad = new(time.Time).UnmarshalText(plain) != nil
	default:
		bad = true
	}
	if bad {
		return value{}, malformed("a value is not of the type that it says")
	}
	return v, nil
}

// leaf decrypts the value at a path, if it is encrypted, and adds it to the MAC. ok is false when it is not. plain
// is what goes into the MAC then.
func (o *opener) leaf(at []string, text string, isText bool, plain string) (v value, ok bool, err error) {
	if !o.encrypted(at, text) {
		if !o.meta.MACOnlyEncrypted {
			o.mac.Write([]byte(plain))
		}
		return value{}, false, nil
	}
	if !isText {
		return value{}, false, malformed("a value that should be encrypted is not")
	}
	v, err = o.open(text, strings.Join(at, ":")+":")
	if err != nil {
		return value{}, false, err
	}
	o.mac.Write([]byte(v.text))
	if v.text != "" {
		o.values = append(o.values, v.text)
	}
	return v, true, nil
}

// check compares the MAC with what the file says.
func (o *opener) check() error {
	at, err := time.Parse(time.RFC3339, o.meta.LastModified)
	if err != nil {
		return malformed("its lastmodified is not a time")
	}
	want, err := o.open(o.meta.MAC, at.Format(time.RFC3339))
	var known *Error
	if errors.As(err, &known) || want.text == "" {
		return malformed("its MAC cannot be decrypted")
	}
	if got := fmt.Sprintf("%X", o.mac.Sum(nil)); got != want.text {
		return &Error{"sops-mac", "is encrypted with SOPS and was changed afterwards: its MAC does not fit", "edit it with sops, which keeps the MAC right"}
	}
	return nil
}
