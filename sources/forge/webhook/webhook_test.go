package webhook

import (
	"bufio"
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"

	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

var update = flag.Bool("update", false, "rewrite testdata/events.golden")

const (
	secret = "correct horse battery staple"
	user   = "fairlead"
)

var signing = signingPrefix + base64.StdEncoding.EncodeToString([]byte("a signing key of 32 bytes, really"))

// recorded is a delivery of testdata, not yet signed.
type recorded struct {
	name   string
	header http.Header
	body   []byte
}

// deliveries are those of one forge.
func deliveries(t testing.TB, kind forge.Kind) []recorded {
	t.Helper()
	a, err := txtar.ParseFile(filepath.Join("testdata", string(kind)+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	var out []recorded
	for _, f := range a.Files {
		head, body, ok := bytes.Cut(append([]byte("\n"), f.Data...), []byte("\n\n"))
		if !ok {
			t.Fatalf("%s: %s has no empty line", kind, f.Name)
		}
		r := recorded{name: f.Name, header: http.Header{}, body: body}
		for s := bufio.NewScanner(bytes.NewReader(head)); s.Scan(); {
			if name, value, ok := strings.Cut(s.Text(), ": "); ok {
				r.header.Set(name, value)
			}
		}
		out = append(out, r)
	}
	return out
}

func mac(key, body []byte) string {
	m := hmac.New(sha256.New, key)
	m.Write(body)
	return hex.EncodeToString(m.Sum(nil))
}

// sign adds the proof that a forge sends.
func sign(kind forge.Kind, h http.Header, body []byte, with string) {
	switch kind {
	case forge.GitHub:
		h.Set("X-Hub-Signature-256", "sha256="+mac([]byte(with), body))
	case forge.Gitea:
		h.Set("X-Gitea-Signature", mac([]byte(with), body))
		h.Set("X-Hub-Signature-256", "sha256="+mac([]byte(with), body))
	case forge.Forgejo:
		h.Set("X-Forgejo-Signature", mac([]byte(with), body))
		h.Set("X-Gitea-Signature", mac([]byte(with), body))
	case forge.Bitbucket, forge.BitbucketServer:
		h.Set("X-Hub-Signature", "sha256="+mac([]byte(with), body))
	case forge.Generic:
		h.Set("X-Signature", "sha256="+mac([]byte(with), body))
	case forge.GitLab:
		h.Set("X-Gitlab-Token", with)
	case forge.AzureDevOps:
		h.Set("Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user+":"+with)))
	}
}

// signStandard signs as GitLab does with a signing token.
func signStandard(h http.Header, body []byte, with, id string, at time.Time) {
	key, _ := signingKey(with)
	seconds := strconv.FormatInt(at.Unix(), 10)
	m := hmac.New(sha256.New, key)
	fmt.Fprintf(m, "%s.%s.", id, seconds)
	m.Write(body)
	h.Set("Webhook-Id", id)
	h.Set("Webhook-Timestamp", seconds)
	h.Set("Webhook-Signature", "v1,"+base64.StdEncoding.EncodeToString(m.Sum(nil)))
}

func endpoint(kind forge.Kind, secrets ...string) Endpoint {
	e := Endpoint{Forge: kind, Secrets: secrets}
	if kind == forge.AzureDevOps {
		e.Username = user
	}
	return e
}

// take does with a delivery what a server does.
func take(e Endpoint, r recorded, now time.Time) (forge.Event, *Rejection) {
	if rej := e.Before(r.header); rej != nil {
		return forge.Event{}, rej
	}
	if rej := e.Verify(r.header, r.body, now); rej != nil {
		return forge.Event{}, rej
	}
	ev, err := e.Parse(r.header, r.body)
	if err != nil {
		return ev, err.(*Rejection)
	}
	return ev, nil
}

// TestDeliveries reads every recorded delivery, and compares what is understood with testdata/events.golden.
func TestDeliveries(t *testing.T) {
	var out strings.Builder
	for _, kind := range forge.Kinds() {
		fmt.Fprintf(&out, "== %s\n", kind)
		for _, r := range deliveries(t, kind) {
			sign(kind, r.header, r.body, secret)
			ev, rej := take(endpoint(kind, "another one", secret), r, time.Now())
			if rej != nil {
				t.Errorf("%s, %s: rejected: %s", kind, r.name, rej.Reason)
				continue
			}
			fmt.Fprintf(&out, "%s: %s", r.name, ev.Kind)
			for _, p := range []struct{ name, value string }{
				{"delivery", ev.Delivery}, {"repository", ev.Repository.Path}, {"keys", strings.Join(ev.Repository.Keys(nil), ",")},
				{"ref", ev.Ref}, {"before", ev.Before}, {"after", ev.After}, {"number", strings.TrimLeft(strconv.Itoa(ev.PullRequest), "0")},
				{"comment", ev.Comment.ID}, {"author", ev.Comment.Author}, {"command", strings.Join(ev.Comment.Command, "|")}, {"sender", ev.Sender},
			} {
				if p.value != "" {
					fmt.Fprintf(&out, " %s=%s", p.name, p.value)
				}
			}
			out.WriteString("\n")
		}
	}
	const golden = "testdata/events.golden"
	if *update {
		if err := os.WriteFile(golden, []byte(out.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), out.String()); diff != "" {
		t.Errorf("(-want +got; -update rewrites)\n%s", diff)
	}
}

// T-W1: whoever does not know the secret is rejected, whatever the delivery looks like.
func TestStrangersAreRejected(t *testing.T) {
	for _, kind := range forge.Kinds() {
		first := func() recorded {
			r := deliveries(t, kind)[0]
			r.header = r.header.Clone()
			return r
		}
		check := func(name string, e Endpoint, r recorded, want ...Code) {
			t.Helper()
			ev, rej := take(e, r, time.Now())
			switch {
			case rej == nil:
				t.Errorf("%s, %s: accepted as %+v", kind, name, ev)
			case !slices.Contains(want, rej.Code):
				t.Errorf("%s, %s: rejected as %s (%s), want %v", kind, name, rej.Code, rej.Reason, want)
			case strings.Contains(rej.Reason, secret):
				t.Errorf("%s, %s: the reason shows the secret", kind, name)
			}
		}
		check("unsigned", endpoint(kind, secret), first(), Unsigned, Unrecognised)
		r := first()
		sign(kind, r.header, r.body, "wrong")
		check("signed with another secret", endpoint(kind, secret), r, BadSignature)
		r = first()
		sign(kind, r.header, r.body, "")
		check("signed with nothing", endpoint(kind, secret), r, BadSignature, Unsigned)
		r = first()
		sign(kind, r.header, r.body, secret)
		if kind != forge.GitLab && kind != forge.AzureDevOps { // they prove no body
			r.body = append(bytes.Clone(r.body), ' ')
			check("with another body", endpoint(kind, secret), r, BadSignature)
		}
		for _, other := range forge.Kinds() {
			if other == kind || other == forge.AzureDevOps { // which sends no headers of its own
				continue
			}
			r := deliveries(t, other)[0]
			sign(other, r.header, r.body, secret)
			check("a delivery of "+string(other), endpoint(kind, secret), r, Unrecognised)
		}
		for name, bad := range map[string]Endpoint{"no secret": endpoint(kind), "an empty one": endpoint(kind, ""), "a blank one": endpoint(kind, secret, " \n")} {
			if bad.Check() == nil {
				t.Errorf("%s: an endpoint with %s is taken", kind, name)
			}
		}
		if err := endpoint(kind, secret).Check(); err != nil {
			t.Errorf("%s: %v", kind, err)
		}
	}
}

// What a forge sends for others to understand is no proof when its own is wrong.
func TestOtherSignaturesProveNothing(t *testing.T) {
	for _, kind := range []forge.Kind{forge.Gitea, forge.Forgejo} {
		r := deliveries(t, kind)[0]
		sign(kind, r.header, r.body, secret)
		own := map[forge.Kind]string{forge.Gitea: "X-Gitea-Signature", forge.Forgejo: "X-Forgejo-Signature"}[kind]
		r.header.Set(own, mac([]byte("wrong"), r.body))
		if _, rej := take(endpoint(kind, secret), r, time.Now()); rej == nil || rej.Code != BadSignature {
			t.Errorf("%s: got %v", kind, rej)
		}
	}
	r := deliveries(t, forge.GitHub)[0]
	r.header.Set("X-Hub-Signature", "sha1=0000")
	if _, rej := take(endpoint(forge.GitHub, secret), r, time.Now()); rej == nil || !strings.Contains(rej.Reason, "SHA-1") {
		t.Errorf("SHA-1 alone: got %v", rej)
	}
	for _, value := range []string{"sha256=", "sha256=zz", "sha512=00", "00", strings.Repeat("sha256=", 1000)} {
		r := deliveries(t, forge.GitHub)[0]
		r.header.Set("X-Hub-Signature-256", value)
		if _, rej := take(endpoint(forge.GitHub, secret), r, time.Now()); rej == nil || rej.Code != BadSignature {
			t.Errorf("%.20s: got %v", value, rej)
		}
	}
}

// GitLab's signed form: id and time are signed too, and what is old is a replay.
func TestStandardSignatures(t *testing.T) {
	now := time.Date(2026, 11, 20, 10, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		with   string
		at     time.Time
		change func(h http.Header)
		want   Code
	}{
		"good":                 {with: signing, at: now},
		"of some minutes ago":  {with: signing, at: now.Add(-4 * time.Minute)},
		"old":                  {with: signing, at: now.Add(-6 * time.Minute), want: Stale},
		"in the future":        {with: signing, at: now.Add(6 * time.Minute), want: Stale},
		"of another key":       {with: signingPrefix + "AAAAAAAAAAAAAAAAAAAAAAAA", at: now, want: BadSignature},
		"with another id":      {with: signing, at: now, change: func(h http.Header) { h.Set("Webhook-Id", "other") }, want: BadSignature},
		"made young":           {with: signing, at: now.Add(-time.Hour), change: func(h http.Header) { h.Set("Webhook-Timestamp", strconv.FormatInt(now.Unix(), 10)) }, want: BadSignature},
		"without an id":        {with: signing, at: now, change: func(h http.Header) { h.Del("Webhook-Id") }, want: Unsigned},
		"of several, one good": {with: signing, at: now, change: func(h http.Header) { h.Set("Webhook-Signature", "v2,xx v1,AAAA "+h.Get("Webhook-Signature")) }},
		"and a token besides":  {with: signingPrefix + "AAAAAAAAAAAAAAAAAAAAAAAA", at: now, change: func(h http.Header) { h.Set("X-Gitlab-Token", secret) }, want: BadSignature},
		"only a token":         {with: signing, at: now, change: func(h http.Header) { h.Del("Webhook-Signature"); h.Set("X-Gitlab-Token", signing) }, want: BadSignature},
	} {
		for _, kind := range []forge.Kind{forge.GitLab, forge.Generic} {
			if kind == forge.Generic && strings.Contains(name, "token") {
				continue
			}
			r := deliveries(t, kind)[0]
			signStandard(r.header, r.body, tt.with, "msg_1", tt.at)
			if tt.change != nil {
				tt.change(r.header)
			}
			ev, rej := take(endpoint(kind, signing), r, now)
			switch {
			case tt.want == "" && rej != nil:
				t.Errorf("%s, %s: rejected: %s", kind, name, rej.Reason)
			case tt.want == "" && (ev.Kind != forge.Pushed || ev.Delivery != "msg_1"):
				t.Errorf("%s, %s: got %+v", kind, name, ev)
			case tt.want != "" && (rej == nil || rej.Code != tt.want):
				t.Errorf("%s, %s: got %v, want %s", kind, name, rej, tt.want)
			}
		}
	}
	for _, bad := range []string{signingPrefix, signingPrefix + "%%", signingPrefix + "AAAA"} {
		if endpoint(forge.GitLab, bad).Check() == nil {
			t.Errorf("%q is taken for a signing token", bad)
		}
	}
}

// T-W2: secrets and signatures are compared in constant time only. Whoever changes this file has to keep it so.
func TestComparisonsTakeConstantTime(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "signature.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	constant := 0
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			x, _ := n.X.(*ast.Ident)
			if x != nil && (x.Name == "bytes" || x.Name == "strings" && (n.Sel.Name == "EqualFold" || n.Sel.Name == "Compare" || n.Sel.Name == "Contains")) {
				t.Errorf("signature.go uses %s.%s", x.Name, n.Sel.Name)
			}
			if n.Sel.Name == "ConstantTimeCompare" {
				constant++
			}
		case *ast.BinaryExpr:
			if n.Op != token.EQL && n.Op != token.NEQ {
				return true
			}
			for _, side := range []ast.Expr{n.X, n.Y} {
				switch side := side.(type) {
				case *ast.BasicLit: // a constant: "" or a number
					return true
				case *ast.Ident:
					if side.Name == "nil" {
						return true
					}
				case *ast.SelectorExpr: // a forge
					if x, ok := side.X.(*ast.Ident); ok && x.Name == "forge" {
						return true
					}
				}
			}
			t.Errorf("signature.go compares with %s", n.Op)
		}
		return true
	})
	if constant != 1 {
		t.Errorf("ConstantTimeCompare is called in %d places, want 1", constant)
	}
}

// T-W3: a delivery counts once, and so does a command, under whatever name it is delivered again.
func TestReplays(t *testing.T) {
	m := NewMemory(3)
	push := forge.Event{Forge: forge.GitHub, Kind: forge.Pushed, Delivery: "1"}
	if m.Seen(push) || !m.Seen(push) {
		t.Error("the second delivery is not known")
	}
	other := push
	other.Forge = forge.Gitea
	if m.Seen(other) {
		t.Error("another forge's delivery is taken for the same")
	}
	command := forge.Event{Forge: forge.GitHub, Kind: forge.Commanded, Delivery: "2", Repository: forge.Repository{Path: "a/b"}, Comment: forge.CommentRef{ID: "7"}}
	again := command
	again.Delivery = "3"
	if m.Seen(command) || !m.Seen(again) {
		t.Error("a command under another name is not known")
	}
	for i := range 10 {
		m.Seen(forge.Event{Delivery: fmt.Sprint("x", i)})
	}
	if len(m.seen) > 3 {
		t.Errorf("%d are remembered, want at most 3", len(m.seen))
	}
	if unnamed := (forge.Event{Forge: forge.Generic, Kind: forge.Pushed}); m.Seen(unnamed) || m.Seen(unnamed) {
		t.Error("a delivery without a name is taken for a replay")
	}
}

// T-D3: each recorded delivery with every value missing, null, and of each other type. Nothing panics, and what is
// accepted is about something.
func TestEveryFieldOfEveryType(t *testing.T) {
	for _, kind := range forge.Kinds() {
		for _, r := range deliveries(t, kind) {
			var whole any
			if err := json.Unmarshal(r.body, &whole); err != nil {
				t.Fatalf("%s, %s: %v", kind, r.name, err)
			}
			for _, path := range paths(whole, nil) {
				for _, other := range []any{missing{}, nil, true, -1.5, 1e300, "x", strings.Repeat("y", 5000), []any{}, []any{nil}, map[string]any{}, map[string]any{"href": nil}} {
					b, err := json.Marshal(replaced(whole, path, other))
					if err != nil {
						t.Fatal(err)
					}
					checkParse(t, kind, r.header, b)
				}
			}
		}
	}
}

type missing struct{}

// paths returns the path of every value below v.
func paths(v any, at []any) [][]any {
	out := [][]any{slices.Clone(at)}
	switch v := v.(type) {
	case map[string]any:
		for k, below := range v {
			out = append(out, paths(below, append(slices.Clone(at), k))...)
		}
	case []any:
		for i, below := range v {
			out = append(out, paths(below, append(slices.Clone(at), i))...)
		}
	}
	return out
}

// replaced returns v with the value at path replaced.
func replaced(v any, path []any, with any) any {
	if len(path) == 0 {
		if with == (missing{}) {
			return nil
		}
		return with
	}
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, below := range v {
			if k == path[0] {
				if len(path) == 1 && isMissing(with) {
					continue
				}
				below = replaced(below, path[1:], with)
			}
			out[k] = below
		}
		return out
	case []any:
		out := slices.Clone(v)
		out[path[0].(int)] = replaced(out[path[0].(int)], path[1:], with)
		return out
	}
	return v
}

func isMissing(v any) bool { _, ok := v.(missing); return ok }

// checkParse parses, and holds what is promised of an event.
func checkParse(t *testing.T, kind forge.Kind, h http.Header, body []byte) {
	t.Helper()
	ev, err := endpoint(kind, secret).Parse(h, body)
	if err != nil {
		if len(err.Error()) > 400 {
			t.Errorf("%s: a reason of %d bytes", kind, len(err.Error()))
		}
		return
	}
	if ev.Kind.IsPullRequest() && ev.PullRequest <= 0 {
		t.Errorf("%s: %s has no number: %.200s", kind, ev.Kind, body)
	}
	if (ev.Kind.Moves() || ev.Kind.IsPullRequest()) && ev.Repository.Path == "" && len(ev.Repository.URLs) == 0 {
		t.Errorf("%s: %s has no repository: %.200s", kind, ev.Kind, body)
	}
	for _, s := range []string{ev.Ref, ev.Sender, ev.Delivery, ev.Repository.Path, ev.Comment.Author} {
		if len(s) > longest || strings.ContainsAny(s, "\n\x1b") {
			t.Errorf("%s: the field %.40q is handed on", kind, s)
		}
	}
	ev.Repository.Keys([]forge.Rewrite{{From: "a", To: "b"}})
	NewMemory(2).Seen(ev)
}

func fuzz(f *testing.F, kind forge.Kind) {
	for _, r := range deliveries(f, kind) {
		f.Add(r.header.Get("X-Event-Key")+r.header.Get("X-Github-Event")+r.header.Get("X-Gitea-Event"), r.body)
	}
	f.Add("push", []byte(`{"repository":null}`))
	f.Fuzz(func(t *testing.T, event string, body []byte) {
		h := http.Header{}
		for _, name := range []string{"X-Event-Key", "X-Github-Event", "X-Gitea-Event", "X-Forgejo-Event"} {
			h.Set(name, event)
		}
		checkParse(t, kind, h, body)
	})
}

func FuzzGitHub(f *testing.F)          { fuzz(f, forge.GitHub) }
func FuzzGitea(f *testing.F)           { fuzz(f, forge.Gitea) }
func FuzzForgejo(f *testing.F)         { fuzz(f, forge.Forgejo) }
func FuzzGitLab(f *testing.F)          { fuzz(f, forge.GitLab) }
func FuzzBitbucket(f *testing.F)       { fuzz(f, forge.Bitbucket) }
func FuzzBitbucketServer(f *testing.F) { fuzz(f, forge.BitbucketServer) }
func FuzzAzureDevOps(f *testing.F)     { fuzz(f, forge.AzureDevOps) }
func FuzzGeneric(f *testing.F)         { fuzz(f, forge.Generic) }

// FuzzProof looks for headers and bodies that pass without the secret.
func FuzzProof(f *testing.F) {
	f.Add("sha256=00", "v1,AAAA", "1", "1790000000", []byte("{}"))
	f.Fuzz(func(t *testing.T, signature, standard, id, at string, body []byte) {
		h := http.Header{}
		for _, name := range []string{"X-Hub-Signature", "X-Hub-Signature-256", "X-Gitea-Signature", "X-Forgejo-Signature", "X-Signature", "X-Gitlab-Token", "Authorization"} {
			h.Set(name, signature)
		}
		h.Set("Webhook-Signature", standard)
		h.Set("Webhook-Id", id)
		h.Set("Webhook-Timestamp", at)
		for _, kind := range forge.Kinds() {
			e := endpoint(kind, secret, signing)
			if e.proofBefore(h) == nil && e.Verify(h, body, time.Unix(1790000000, 0)) == nil && signature != secret {
				t.Errorf("%s is proved by %q and %q", kind, signature, standard)
			}
		}
	})
}
