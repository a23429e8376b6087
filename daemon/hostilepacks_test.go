package daemon

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/sources/git/gittest"
)

// usual is the repository that every pack says to be of.
func usual(r *gittest.Repository) {
	r.Commit(r.Files(map[string]string{"app/cm.yaml": goodMap("m"), "good/cm.yaml": goodMap("same")}))
}

// packed answers with a pack of so many objects.
func packed(count uint32, write func(p *gittest.Packer)) gittest.Answer {
	return gittest.Answer{Pack: func(w io.Writer) error {
		p := gittest.NewPacker(w, count)
		write(p)
		return p.Close()
	}}
}

// mangled answers with the right pack after something was done to it.
func mangled(change func(b []byte) []byte) gittest.Answer {
	return gittest.Answer{Pack: func(w io.Writer) error {
		r := gittest.New()
		usual(r)
		var b bytes.Buffer
		if err := r.Pack(&b); err != nil {
			return err
		}
		_, err := w.Write(change(b.Bytes()))
		return err
	}}
}

// copyZeros is a delta that makes so many times 16 MiB of a base of 16 MiB.
func copyZeros(base uint64, times int) []byte {
	delta := append(gittest.Uvarint(base), gittest.Uvarint(base*uint64(times))...)
	for range times {
		delta = append(delta, 0x80|0x70, byte(base), byte(base>>8), byte(base>>16)) // copy base bytes from offset 0
	}
	return delta
}

// endless answers for as long as somebody reads.
func endless(b []byte) func(w io.Writer) error {
	return func(w io.Writer) error {
		for {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
	}
}

// craftedPacks are answers of a hostile server. Whatever it sends, the repository cannot be fetched; nothing else
// is concerned.
func craftedPacks() []hostileCase {
	const large = "the repository is too large: "
	id := strings.Repeat("1", 40)
	cases := []hostileCase{
		{name: "T-D2 pack that ends early", answer: mangled(func(b []byte) []byte { return b[:len(b)/2] }), want: "error"},
		{name: "T-D2 pack without its checksum", answer: mangled(func(b []byte) []byte { return b[:len(b)-20] }), want: "error"},
		{name: "T-D2 pack of which a byte is another", answer: mangled(func(b []byte) []byte { b[len(b)/2] ^= 0x55; return b }), want: "error"},
		{name: "T-D2 pack with something after its end", answer: mangled(func(b []byte) []byte { return append(b, "more"...) }), want: "something comes after its end"},
		{name: "T-D2 pack that is HTML", answer: gittest.Answer{Pack: func(w io.Writer) error { _, err := io.WriteString(w, "<html>sign in</html>"); return err }}, want: "it begins with"},
		{name: "T-D2 pack of another version", answer: mangled(func(b []byte) []byte { b[7] = 9; return b }), want: "it begins with"},
		{name: "T-D2 pack without objects", answer: packed(0, func(*gittest.Packer) {}), want: "missing or damaged"},
		{name: "T-D2 no pack", answer: gittest.Answer{Pack: func(io.Writer) error { return nil }}, want: "error"},
		{name: "T-D2 pack that says to have 2^32 objects (go-git CVE-2023-49568)", answer: packed(1<<32-1, func(*gittest.Packer) {}), want: large + "it has 4294967295 objects"},
		{name: "T-D2 pack that has fewer objects than it says", answer: packed(400_000, func(p *gittest.Packer) { p.Object(gittest.Blob, nil, []byte("x")) }), want: "error"},
		{name: "T-D2 object that says to have 2^50 bytes", answer: packed(1, func(p *gittest.Packer) { p.Head(gittest.Blob, 1<<50); p.Deflate(strings.NewReader("x")) }), want: large + "an object has"},
		{name: "T-D2 object with an endless size", answer: packed(1, func(p *gittest.Packer) { p.Raw(bytes.Repeat([]byte{0xbf}, 64)) }), want: "a size has too many bytes"},
		{name: "T-D2 object that is larger than it says", answer: packed(1, func(p *gittest.Packer) { p.Head(gittest.Blob, 10); p.Deflate(gittest.Zeros(64 << 20)) }), want: "11 bytes are said to be 10"},
		{name: "T-D2 object that is smaller than it says", answer: packed(1, func(p *gittest.Packer) { p.Head(gittest.Blob, 100<<20); p.Deflate(gittest.Zeros(10)) }), want: "are said to be"},
		{name: "T-D2 object of a type that is none", answer: packed(1, func(p *gittest.Packer) { p.Object(5, nil, []byte("x")) }), want: "is none"},
		{name: "T-D2 object that is not compressed", answer: packed(1, func(p *gittest.Packer) { p.Head(gittest.Blob, 4); p.Raw([]byte("text")) }), want: "error"},
		{name: "T-D2 file of 1 GiB of zeros (go-git CVE-2026-33762)", answer: packed(1, func(p *gittest.Packer) { p.Head(gittest.Blob, 1<<30); p.Deflate(gittest.Zeros(64 << 20)) }), want: large + "an object has 1024 MiB, more than 128"},
		{name: "T-D2 40 files of 100 MiB of zeros", answer: packed(40, func(p *gittest.Packer) {
			for range 40 {
				p.Head(gittest.Blob, 100<<20)
				p.Deflate(gittest.Zeros(100 << 20))
			}
		}), want: large + "its files have more than 2048 MiB", long: true},
		{name: "T-D2 delta that makes 4 GiB of 16 MiB", answer: packed(2, func(p *gittest.Packer) {
			p.Head(gittest.Blob, 0xffffff)
			p.Deflate(gittest.Zeros(0xffffff))
			p.Object(gittest.OfsDelta, gittest.OfsBase(p.Offset()-12), copyZeros(0xffffff, 256))
		}), want: large + "an object has 4095 MiB"},
		{name: "T-D2 deltas that make 128 MiB each, many times", answer: packed(41, func(p *gittest.Packer) {
			p.Head(gittest.Blob, 0xffffff)
			p.Deflate(gittest.Zeros(0xffffff))
			for range 40 {
				p.Object(gittest.OfsDelta, gittest.OfsBase(p.Offset()-12), copyZeros(0xffffff, 7))
			}
		}), want: large + "its files have more than 2048 MiB"},
		{name: "T-D2 delta that says nothing of its size", answer: packed(1, func(p *gittest.Packer) { p.Object(gittest.RefDelta, make([]byte, 20), []byte{0xff, 0xff}) }), want: "error"},
		{name: "T-D2 delta of nothing", answer: packed(1, func(p *gittest.Packer) {
			p.Object(gittest.RefDelta, bytes.Repeat([]byte{0x11}, 20), append(gittest.Uvarint(1), append(gittest.Uvarint(1), 1, 'x')...))
		}), want: "error"},
		{name: "T-D2 delta of what comes before the pack", answer: packed(1, func(p *gittest.Packer) {
			p.Object(gittest.OfsDelta, gittest.OfsBase(1<<40), append(gittest.Uvarint(1), append(gittest.Uvarint(1), 1, 'x')...))
		}), want: "error"},
		{name: "T-D2 delta of itself", answer: packed(1, func(p *gittest.Packer) {
			p.Object(gittest.OfsDelta, gittest.OfsBase(0), append(gittest.Uvarint(1), append(gittest.Uvarint(1), 1, 'x')...))
		}), want: "error"},
		{name: "T-D2 delta that copies more than there is (go-git CVE-2026-34165)", answer: packed(2, func(p *gittest.Packer) {
			p.Object(gittest.Blob, nil, []byte("short"))
			p.Object(gittest.OfsDelta, gittest.OfsBase(p.Offset()-12), append(gittest.Uvarint(5), append(gittest.Uvarint(1000), 0xf0, 0xff, 0xff, 0x00)...))
		}), want: "error"},
		{name: "T-D2 chain of 6000 deltas", answer: packed(6001, func(p *gittest.Packer) {
			p.Object(gittest.Blob, nil, []byte("x"))
			last := int64(12)
			for i := range 6000 {
				here := p.Offset()
				p.Object(gittest.OfsDelta, gittest.OfsBase(here-last), append(gittest.Uvarint(1), append(gittest.Uvarint(1), 1, byte(i))...))
				last = here
			}
		}), want: "error"},
		{name: "T-D2 300,000 objects", answer: packed(300_000, func(p *gittest.Packer) {
			for i := range 300_000 {
				p.Object(gittest.Blob, nil, fmt.Appendf(nil, "%d", i))
			}
		}), want: "missing or damaged", long: true},
		{name: "T-D2 zeros without an end", answer: gittest.Answer{Pack: endless(make([]byte, 64<<10))}, want: "it begins with"},
		{name: "T-D2 a file without an end", answer: gittest.Answer{Pack: func(w io.Writer) error {
			p := gittest.NewPacker(w, 1)
			p.Head(gittest.Blob, 100<<20)
			p.Raw([]byte{0x78, 0x9c})
			return endless([]byte{0, 0, 0, 0xff, 0xff})(w) // stored blocks of no length
		}}, timeout: 2 * time.Second, want: "error"},

		{name: "T-D2 references without an end", answer: lists(func(w io.Writer) {
			line := []byte(gittest.Line(id + " refs/heads/" + strings.Repeat("r", 4000) + "\n"))
			io.WriteString(w, gittest.Line(id+" HEAD\x00symref=HEAD:refs/heads/main\n"))
			_ = endless(line)(w)
		}), want: large + "its references have more than 32 MiB"},
		{name: "T-D2 a million references", answer: lists(func(w io.Writer) {
			io.WriteString(w, gittest.Line(id+" HEAD\x00symref=HEAD:refs/heads/main\n"))
			for i := range 1_000_000 {
				if _, err := io.WriteString(w, gittest.Line(fmt.Sprintf("%s refs/pull/%d/head\n", id, i))); err != nil {
					return
				}
			}
			io.WriteString(w, "0000")
		}), want: large + "its references have more than 32 MiB"},
		{name: "T-D2 references that unpack to 1 GiB", answer: gittest.Answer{List: func(w http.ResponseWriter) {
			w.Header().Set("Content-Encoding", "gzip")
			z := gzip.NewWriter(w)
			io.WriteString(z, gittest.Line("# service=git-upload-pack\n")+"0000"+gittest.Line(id+" HEAD\x00symref=HEAD:refs/heads/main\n"))
			line := []byte(gittest.Line(id + " refs/heads/" + strings.Repeat("r", 60_000) + "\n"))
			for range 16 << 10 {
				if _, err := z.Write(line); err != nil {
					return
				}
			}
			z.Close()
		}}, want: large + "its references have more than 32 MiB"},
		{name: "T-D2 references that are HTML", answer: gittest.Answer{List: func(w http.ResponseWriter) { io.WriteString(w, "<html><script>alert(1)</script>") }}, want: "error"},
		{name: "T-D2 references with a length that is none", answer: lists(func(w io.Writer) { io.WriteString(w, "zzzz"+id) }), want: "error"},
		{name: "T-D2 references with a length of less than itself", answer: lists(func(w io.Writer) { io.WriteString(w, "0001"+id) }), want: "error"},
		{name: "T-D2 references that end early", answer: lists(func(w io.Writer) { io.WriteString(w, "00ff"+id) }), want: "error"},
		{name: "T-D2 references without names", answer: lists(func(w io.Writer) {
			io.WriteString(w, gittest.Line(id+"\n")+gittest.Line("x")+gittest.Line(" ")+gittest.Line("\x00\x00")+"0000")
		}), want: "error"},
		{name: "T-D2 references with capabilities that are none", answer: lists(func(w io.Writer) {
			io.WriteString(w, gittest.Line(id+" HEAD\x00symref=:= symref= =x multi_ack=\x01 agent="+strings.Repeat("a", 50_000)+"\n")+"0000")
		}), want: "error"},
		{name: "T-D2 shallow commits that are none", answer: lists(func(w io.Writer) {
			io.WriteString(w, gittest.Line(id+" HEAD\x00shallow\n")+gittest.Line("shallow x\n")+"0000")
		}), want: "error"},
		{name: "T-S2 redirect to another host (go-git CVE-2026-41506)", answer: gittest.Answer{List: func(w http.ResponseWriter) {
			w.Header().Set("Location", "http://127.0.0.2:1/x/info/refs?service=git-upload-pack")
			w.WriteHeader(http.StatusMovedPermanently)
		}}, want: "error"},
		{name: "T-S2 redirect in a circle", answer: gittest.Answer{List: func(w http.ResponseWriter) {
			w.Header().Set("Location", "?service=git-upload-pack")
			w.WriteHeader(http.StatusFound)
		}}, want: "error"},
		{name: "T-S2 redirect to a file", answer: gittest.Answer{List: func(w http.ResponseWriter) {
			w.Header().Set("Location", "file:///etc/passwd")
			w.WriteHeader(http.StatusFound)
		}}, want: "error"},
		{name: "T-S2 an error page without an end", answer: gittest.Answer{List: func(w http.ResponseWriter) {
			w.WriteHeader(http.StatusInternalServerError)
			_ = endless(bytes.Repeat([]byte("no "), 1<<14))(w)
		}}, want: "error"},
	}
	for i := range cases {
		cases[i].craft, cases[i].unfetched = usual, true
		if cases[i].want == "error" {
			cases[i].want = "SourceFailed: source repo"
		}
	}
	return cases
}
