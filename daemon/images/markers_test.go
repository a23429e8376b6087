package images

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var chosen = map[string]Image{
	"flux-system:web": {Name: "registry.example.org/web", Tag: "1.20"},
	"flux-system:db":  {Name: "db", Tag: "v2", Digest: "sha256:abc"},
	"other:num":       {Name: "n", Tag: "1e3"},
}

func lookup(p string) (Image, bool) {
	i, ok := chosen[p]
	return i, ok
}

func TestEdit(t *testing.T) {
	before := strings.ReplaceAll(`# head {"$imagepolicy": "flux-system:web"}
apiVersion: apps/v1   # kept
spec:
    containers:
    - {name: a}
    - name: web
      image:   registry.example.org/web:1.9    # {"$imagepolicy": "flux-system:web"}
    - image: "registry.example.org/web:1.9" # {"$imagepolicy": "flux-system:web"}
    - image: 'db:v1@sha256:old'	# {"$imagepolicy": "flux-system:db"}
    - image: ünïcode-left-alone
      ümläut: db:v0 # {"$imagepolicy": "flux-system:db"}
    - image: unknown:1 # {"$imagepolicy": "flux-system:unknown"}
    - image: registry.example.org/web:1.9 # {"imagepolicy": "flux-system:web"}
---
images:
- name: web # {"$imagepolicy": "flux-system:web:name"}
  newTag: v1 # {"$imagepolicy": "flux-system:web:tag"}
- newTag: "v1" # {"$imagepolicy": "flux-system:web:tag"}
- newTag: v1 # { "$imagepolicy" : "other:num:tag" }
- digest: sha256:old # {"$imagepolicy": "flux-system:db:digest"}
- newTag: v2 # {"$imagepolicy": "flux-system:db:tag"}
text: |
  image: a:1 # {"$imagepolicy": "flux-system:web"}
no end`, "\n", "\r\n")
	before = strings.Replace(before, "no end", "last: x # {\"$imagepolicy\": \"flux-system:db:tag\"}", 1)
	want := strings.NewReplacer(
		"image:   registry.example.org/web:1.9 ", "image:   registry.example.org/web:1.20 ",
		`"registry.example.org/web:1.9"`, `"registry.example.org/web:1.20"`,
		`'db:v1@sha256:old'`, `'db:v2@sha256:abc'`,
		`ümläut: db:v0`, `ümläut: db:v2@sha256:abc`,
		"- name: web # {", "- name: registry.example.org/web # {",
		`newTag: v1 # {"$imagepolicy": "flux-system:web:tag"}`, `newTag: "1.20" # {"$imagepolicy": "flux-system:web:tag"}`,
		`newTag: "v1" # {"$imagepolicy": "flux-system:web:tag"}`, `newTag: "1.20" # {"$imagepolicy": "flux-system:web:tag"}`,
		`newTag: v1 # { "$imagepolicy" : "other:num:tag" }`, `newTag: "1e3" # { "$imagepolicy" : "other:num:tag" }`,
		`digest: sha256:old`, `digest: sha256:abc`, "last: x #", "last: v2 #",
	).Replace(before)
	got, changes, problems := Edit("a.yaml", []byte(before), lookup)
	if d := cmp.Diff(want, string(got)); d != "" || len(problems) > 0 {
		t.Errorf("%v (-want +got)\n%s", problems, d)
	}
	if len(changes) != 10 || changes[0] != (Change{"a.yaml", 7, "flux-system:web", "flux-system:web", "registry.example.org/web:1.9", "registry.example.org/web:1.20", chosen["flux-system:web"]}) {
		t.Errorf("%d changes, first %+v", len(changes), changes[0])
	}
	again, changes, _ := Edit("a.yaml", got, lookup)
	if string(again) != string(got) || len(changes) > 0 {
		t.Errorf("a second time changes %v", changes)
	}
}

func TestEditRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ content, want string }{
		"no YAML":        {"a: [\n# {\"$imagepolicy\": \"flux-system:web\"}\n", "is not YAML"},
		"no policy":      {"a: b # {\"$imagepolicy\": \"web\"}\n", "names no policy"},
		"another part":   {"a: b # {\"$imagepolicy\": \"flux-system:web:size\"}\n", "use tag, name or digest"},
		"no digest":      {"a: b # {\"$imagepolicy\": \"flux-system:web:digest\"}\n", "has no digest"},
		"several lines":  {"a: \"b\n  c\" # {\"$imagepolicy\": \"flux-system:web\"}\n", "one line"},
		"escapes":        {"a: \"\\x61:1\" # {\"$imagepolicy\": \"flux-system:web\"}\n", "one line"},
		"a tag before":   {"a: !!str \"b\" # {\"$imagepolicy\": \"flux-system:web\"}\n", "one line"},
		"SOPS":           {"a: b # {\"$imagepolicy\": \"flux-system:web\"}\nsops: {mac: x}\n", "SOPS"},
		"half a comment": {"a: b # {\"$imagepolicy\": \"flux-system:web\"} and more\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			got, changes, problems := Edit("a.yaml", []byte(tt.content), lookup)
			if string(got) != tt.content || len(changes) > 0 {
				t.Errorf("changed to %q", got)
			}
			if (len(problems) == 0) != (tt.want == "") || tt.want != "" && !strings.Contains(problems[0].String(), tt.want) {
				t.Errorf("%v", problems)
			}
		})
	}
}

// FuzzEdit holds that an edit changes nothing that is not marked, is done after one pass, and never fails.
func FuzzEdit(f *testing.F) {
	f.Add("a: b # {\"$imagepolicy\": \"flux-system:web\"}\n")
	f.Add("- 'a' # {\"$imagepolicy\": \"flux-system:web:tag\"}\r\n- {a: \"b\"} # {\"$imagepolicy\": \"flux-system:db\"}\n")
	f.Add("\ufeffa: &x b # {\"$imagepolicy\": \"flux-system:web\"}\n---\nb: *x # {\"$imagepolicy\": \"flux-system:web\"}\n")
	f.Fuzz(func(t *testing.T, content string) {
		got, changes, _ := Edit("a.yaml", []byte(content), lookup)
		if len(changes) == 0 {
			if string(got) != content {
				t.Fatalf("changed without a change: %q", got)
			}
			return
		}
		again, more, _ := Edit("a.yaml", got, lookup)
		if len(more) > 0 || string(again) != string(got) {
			t.Fatalf("%q becomes %q and then %q", content, got, again)
		}
		// Line by line, only marked lines differ.
		a, b := strings.Split(content, "\n"), strings.Split(string(got), "\n")
		if len(a) != len(b) {
			t.Fatalf("%q becomes %q", content, got)
		}
		for i := range a {
			if a[i] != b[i] && !strings.Contains(a[i], markText) {
				t.Fatalf("line %q becomes %q", a[i], b[i])
			}
		}
	})
}
