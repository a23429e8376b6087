package e2e

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"crypto/rand"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// canaries are random values that stand for secrets, by the place that each is put into.
type canaries struct {
	t      testing.TB
	values map[string]string
	needle []needle
}

// needle is one form in which a value would be seen.
type needle struct {
	of, form string
	text     []byte
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

// value returns the canary of a place: 32 letters and digits, so that each half of it is worth 95 bits.
func (c *canaries) value(place string) string {
	if v, ok := c.values[place]; ok {
		return v
	}
	var b strings.Builder
	for range 32 {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(alphabet))))
		if err != nil {
			c.t.Fatal(err)
		}
		b.WriteByte(alphabet[n.Int64()])
	}
	return c.known(place, b.String())
}

// known makes a value that is given a canary.
func (c *canaries) known(place, value string) string {
	if c.values == nil {
		c.values = map[string]string{}
	}
	c.values[place] = value
	half := len(value) / 2
	for _, part := range []string{value[:half], value[half:]} {
		backwards := []byte(part)
		slices.Reverse(backwards)
		var percent, escaped strings.Builder
		for i := range len(part) {
			fmt.Fprintf(&percent, "%%%02X", part[i])
			fmt.Fprintf(&escaped, `\u%04x`, part[i])
		}
		c.needle = append(c.needle,
			needle{place, "as it is", []byte(part)}, needle{place, "backwards", backwards},
			needle{place, "percent-encoded", []byte(percent.String())}, needle{place, "escaped for JSON", []byte(escaped.String())},
			needle{place, "in hexadecimal", []byte(hex.EncodeToString([]byte(part)))},
			needle{place, "in hexadecimal", []byte(strings.ToUpper(hex.EncodeToString([]byte(part))))})
		// In base64 three positions of a value look differently; what depends on its neighbours is cut off.
		for shift := range 3 {
			for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
				text := e.EncodeToString(append(make([]byte, shift), part...))
				if shift > 0 {
					text = text[shift+1:]
				}
				c.needle = append(c.needle, needle{place, "in base64", []byte(text[:len(text)-2])})
			}
		}
	}
	return value
}

var (
	base64Run = regexp.MustCompile(`[A-Za-z0-9+/_-]{24,}={0,2}`)
	hexRun    = regexp.MustCompile(`(?:[0-9a-fA-F]{2}){24,}`)
)

// in returns which canaries are in data, and in what form: compressed, and encoded up to three times, among them.
func (c *canaries) in(data []byte) []string {
	found := map[string]bool{}
	c.scan(data, "", 3, found)
	var list []string
	for f := range found {
		list = append(list, f)
	}
	slices.Sort(list)
	return list
}

func (c *canaries) scan(data []byte, inside string, depth int, found map[string]bool) {
	for _, n := range c.needle {
		if bytes.Contains(data, n.text) {
			found[n.of+" "+n.form+inside] = true
		}
	}
	if depth == 0 {
		return
	}
	for _, packed := range []struct {
		magic []byte
		name  string
		open  func(io.Reader) (io.ReadCloser, error)
	}{
		{[]byte{0x1f, 0x8b, 8}, "gzip", func(r io.Reader) (io.ReadCloser, error) { return gzip.NewReader(r) }},
		{[]byte{0x78, 0x9c}, "zlib", zlib.NewReader}, {[]byte{0x78, 0x01}, "zlib", zlib.NewReader}, {[]byte{0x78, 0xda}, "zlib", zlib.NewReader},
	} {
		for rest := data; ; {
			at := bytes.Index(rest, packed.magic)
			if at < 0 {
				break
			}
			rest = rest[at:]
			if r, err := packed.open(bytes.NewReader(rest)); err == nil {
				plain, _ := io.ReadAll(io.LimitReader(r, 1<<20)) // what came before an error counts
				if len(plain) > 16 {
					c.scan(plain, " in "+packed.name+inside, depth-1, found)
				}
			}
			rest = rest[1:]
		}
	}
	for _, run := range base64Run.FindAll(data, -1) {
		text := strings.TrimRight(strings.NewReplacer("-", "+", "_", "/").Replace(string(run)), "=")
		if plain, err := base64.RawStdEncoding.DecodeString(text[:len(text)/4*4]); err == nil {
			c.scan(plain, " in base64"+inside, depth-1, found)
		}
	}
	for _, run := range hexRun.FindAll(data, -1) {
		if plain, err := hex.DecodeString(string(run[:len(run)/2*2])); err == nil {
			c.scan(plain, " in hexadecimal"+inside, depth-1, found)
		}
	}
}

// TestCanaryScan holds that the scan finds what it has to find: a scan that finds nothing proves nothing.
func TestCanaryScan(t *testing.T) {
	c := &canaries{t: t}
	v := c.value("secret")
	zipped := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	b64 := func(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
	backwards := []byte(v)
	slices.Reverse(backwards)
	for name, text := range map[string]string{
		"raw": "x" + v + "y", "first half": v[:16] + "…", "second half": "…" + v[16:], "base64": b64(v), "base64 at 1": b64("x" + v), "base64 at 2": b64("xy" + v + "z"),
		"twice in base64": b64("user:" + b64("a:"+v)), "hexadecimal": hex.EncodeToString([]byte(v)), "backwards": string(backwards), "gzip": "head" + zipped("{"+v+"}"),
		"gzip in base64": b64(zipped(v)), "base64 in JSON": `{"data":"` + b64(v) + `"}`,
	} {
		if len(c.in([]byte(text))) == 0 {
			t.Errorf("%s is not found in %q", name, text)
		}
	}
	if found := c.in([]byte("nothing of it: " + v[:10] + " " + strings.ToLower(v))); len(found) > 0 {
		t.Errorf("found %v where nothing is", found)
	}
}
