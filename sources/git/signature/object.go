package signature

import (
	"bytes"
	"encoding/base64"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// signed is an object that was taken apart.
type signed struct {
	// payload are the bytes that were signed, signature those of the armored signature; none when there is none.
	payload, signature []byte
	// at is when the committer or tagger says that it was made.
	at time.Time
}

type signedTag struct {
	signed
	object, kind, name string
}

var (
	commitID   = regexp.MustCompile(`^[0-9a-f]{40}$`)
	headerName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9:_-]*$`)
	// person is "Name <address> seconds zone", as Git writes it.
	person = regexp.MustCompile(`^[^<>\n]*<[^<>\n]*> ([0-9]{1,15}) [+-][0-9]{4}$`)
)

const notGit = "make it anew with git; no version of git writes it like this"

func ambiguous(format string, args ...any) *Refusal {
	return refuse(Ambiguous, "", notGit, format, args...)
}

// header is one field of an object, with the lines that continue it.
type header struct {
	name, value string
	continues   bool // over several lines
	// from and to are where it is in the object.
	from, to int
}

// headers splits an object at its first empty line. Lines end with a line feed alone; every line is part of exactly
// one header, and no byte is left out.
func headers(raw []byte) ([]header, []byte, error) {
	if bytes.IndexByte(raw, 0) >= 0 {
		return nil, nil, ambiguous("it holds a zero byte")
	}
	var list []header
	for at := 0; ; {
		end := bytes.IndexByte(raw[at:], '\n')
		if end < 0 {
			return nil, nil, ambiguous("it has no empty line between its headers and its message")
		}
		line, from := raw[at:at+end+1], at
		at += end + 1
		switch {
		case end == 0:
			return list, raw[at:], nil
		case bytes.IndexByte(line, '\r') >= 0:
			return nil, nil, ambiguous("a header ends with a carriage return")
		case line[0] == ' ':
			if len(list) == 0 {
				return nil, nil, ambiguous("it begins with the continuation of a header")
			}
			last := &list[len(list)-1]
			last.value += "\n" + string(line[1:end])
			last.continues, last.to = true, at
		default:
			name, value, ok := strings.Cut(string(line[:end]), " ")
			if !ok || !headerName.MatchString(name) {
				return nil, nil, ambiguous("a line of its headers is none: %q", cut(line[:end]))
			}
			list = append(list, header{name: name, value: value, from: from, to: at})
		}
	}
}

func cut(line []byte) string {
	if len(line) > 40 {
		line = line[:40]
	}
	return string(line)
}

// fields takes the headers that have a fixed place off the front of the list.
type fields struct {
	list []header
	err  error
}

// next returns the value of the header that has to come now.
func (f *fields) next(name string, valid *regexp.Regexp) string {
	if f.err != nil {
		return ""
	}
	if len(f.list) == 0 || f.list[0].name != name {
		f.err = ambiguous("the header %s is not in its place", name)
		return ""
	}
	h := f.list[0]
	f.list = f.list[1:]
	if h.continues || valid != nil && !valid.MatchString(h.value) {
		f.err = ambiguous("the header %s is malformed", name)
	}
	return h.value
}

// rest are the headers after the fixed ones; none of the given names may be among them, nor one name twice where that
// would change what the object says.
func (f *fields) rest(once ...string) []header {
	seen := map[string]bool{}
	for _, name := range once {
		seen[name] = true
	}
	for _, h := range f.list {
		if f.err == nil && seen[h.name] {
			f.err = ambiguous("it has the header %s twice, or in the wrong place", h.name)
		}
		if h.name == "encoding" {
			seen[h.name] = true
		}
	}
	return f.list
}

// splitCommit takes a commit apart: tree, parents, author and committer in this order, and then anything, a signature
// among it.
func splitCommit(raw []byte) (signed, error) {
	list, _, err := headers(raw)
	if err != nil {
		return signed{}, err
	}
	f := fields{list: list}
	f.next("tree", commitID)
	for f.err == nil && len(f.list) > 0 && f.list[0].name == "parent" {
		f.next("parent", commitID)
	}
	f.next("author", person)
	by := f.next("committer", person)
	var o signed
	for _, h := range f.rest("tree", "parent", "author", "committer") {
		switch {
		case !strings.HasPrefix(strings.ToLower(h.name), "gpgsig"):
			continue
		case h.name != "gpgsig":
			// It is no part of what the signature is over, and no part of the signature.
			return signed{}, refuse(Ambiguous, "", "sign it in a repository without a compatible object format", "it has a header %s, which nothing vouches for", h.name)
		case o.signature != nil:
			return signed{}, ambiguous("it has several signatures")
		}
		o.signature, o.payload = []byte(h.value), slices.Concat(raw[:h.from], raw[h.to:])
	}
	if f.err != nil {
		return signed{}, f.err
	}
	o.at = moment(by)
	return o, nil
}

// splitTag takes a tag apart: object, type, tag and tagger in this order, a message, and the signature at its end.
func splitTag(raw []byte) (signedTag, error) {
	list, message, err := headers(raw)
	if err != nil {
		return signedTag{}, err
	}
	f := fields{list: list}
	t := signedTag{object: f.next("object", commitID), kind: f.next("type", nil), name: f.next("tag", nil)}
	by := f.next("tagger", person)
	if f.err == nil && len(f.list) > 0 {
		return signedTag{}, refuse(Ambiguous, "", "sign it in a repository without a compatible object format", "it has a header %s, which nothing vouches for", f.list[0].name)
	}
	if f.err != nil {
		return signedTag{}, f.err
	}
	t.at = moment(by)
	begins := beginning.FindAllIndex(message, -1)
	switch {
	case len(begins) > 1:
		return signedTag{}, ambiguous("it has several signatures")
	case len(begins) == 1:
		at := len(raw) - len(message) + begins[0][0]
		t.payload, t.signature = raw[:at], raw[at:]
	}
	return t, nil
}

// beginning is a line that Git takes for the beginning of a signature.
var beginning = regexp.MustCompile(`(?m)^-----BEGIN (PGP SIGNATURE|PGP MESSAGE|SIGNED MESSAGE|SSH SIGNATURE)-----`)

func moment(by string) time.Time {
	m := person.FindStringSubmatch(by)
	if m == nil {
		return time.Time{}
	}
	seconds, err := strconv.ParseInt(m[1], 10, 64)
	if err != nil {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}

// armored decodes the armor of a signature: one block and nothing around it, so that every byte of it counts.
func armored(text []byte) (Format, []byte, error) {
	lines := strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
	var format Format
	var kind string
	switch first := lines[0]; first {
	case "-----BEGIN PGP SIGNATURE-----":
		format, kind = OpenPGP, "PGP SIGNATURE"
	case "-----BEGIN SSH SIGNATURE-----":
		format, kind = SSH, "SSH SIGNATURE"
	case "-----BEGIN SIGNED MESSAGE-----":
		return "", nil, refuse(Unsupported, "", "sign it with an OpenPGP or SSH key", "it is signed with an X.509 certificate, which is not checked")
	default:
		return "", nil, ambiguous("its signature does not begin as one: %q", cut([]byte(first)))
	}
	if len(lines) < 3 || lines[len(lines)-1] != "-----END "+kind+"-----" {
		return "", nil, ambiguous("its signature does not end as one, or something follows it")
	}
	lines = lines[1 : len(lines)-1]
	var sum string
	if format == OpenPGP {
		// Headers such as Version end with an empty line. They are signed by nobody and say nothing.
		empty := slices.Index(lines, "")
		lines = lines[empty+1:]
		if last := len(lines) - 1; empty >= 0 && last > 0 && strings.HasPrefix(lines[last], "=") {
			sum, lines = lines[last][1:], lines[:last]
		}
	}
	if slices.ContainsFunc(lines, func(line string) bool { return line == "" || len(line) > 76 }) {
		return "", nil, ambiguous("the armor of its signature is malformed")
	}
	block, err := base64.StdEncoding.Strict().DecodeString(strings.Join(lines, ""))
	if err != nil || len(block) == 0 {
		return "", nil, ambiguous("the armor of its signature is malformed")
	}
	crc := crc24(block)
	if sum != "" && sum != base64.StdEncoding.EncodeToString([]byte{byte(crc >> 16), byte(crc >> 8), byte(crc)}) {
		return "", nil, ambiguous("the armor of its signature is damaged")
	}
	return format, block, nil
}

// crc24 is the checksum of OpenPGP's armor (RFC 9580, section 6.1.1).
func crc24(data []byte) uint32 {
	crc := uint32(0xb704ce)
	for _, b := range data {
		crc ^= uint32(b) << 16
		for range 8 {
			if crc <<= 1; crc&0x1000000 != 0 {
				crc ^= 0x1864cfb
			}
		}
	}
	return crc & 0xffffff
}
