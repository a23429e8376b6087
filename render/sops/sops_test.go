package sops_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"github.com/fairlead-dev/fairlead/render/sops"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func identities(t testing.TB, name string) []age.Identity {
	t.Helper()
	ids, err := sops.Identities([]string{string(read(t, name))})
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

// values reads every document of a stream.
func values(t *testing.T, data []byte) []any {
	t.Helper()
	var out []any
	for dec := yaml.NewDecoder(bytes.NewReader(data)); ; {
		var v any
		if err := dec.Decode(&v); errors.Is(err, io.EOF) {
			return out
		} else if err != nil {
			t.Fatalf("%v in:\n%s", err, data)
		}
		out = append(out, v)
	}
}

func TestDecryptsWhatSopsEncrypted(t *testing.T) {
	for name, plain := range map[string]string{
		"secret.yaml": "secret.plain.yaml", "macenc.yaml": "secret.plain.yaml", "values.yaml": "values.plain.yaml", "app.json": "app.plain.json",
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := sops.Decrypt(name, read(t, name), identities(t, "age.key"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(values(t, read(t, plain)), values(t, got)); d != "" {
				t.Errorf("-want +got:\n%s\n%s", d, got)
			}
		})
	}
	for name, want := range map[string][]byte{
		"app.env":  []byte("#\nUSER=bob\nPASSWORD=p=a\\nss word\nEMPTY=\n"),
		"blob.bin": read(t, "blob.plain.bin"),
	} {
		t.Run(name, func(t *testing.T) {
			got, _, err := sops.Decrypt(name, read(t, name), identities(t, "age.key"))
			if err != nil {
				t.Fatal(err)
			}
			if d := cmp.Diff(string(want), string(got)); d != "" {
				t.Errorf("-want +got:\n%s", d)
			}
		})
	}
}

func TestLinesStayWhereTheyAre(t *testing.T) {
	in := read(t, "secret.yaml")
	got, secret, err := sops.Decrypt("secret.yaml", in, identities(t, "age.key"))
	if err != nil {
		t.Fatal(err)
	}
	line := func(data []byte, key string) int {
		return bytes.Count(data[:bytes.Index(data, []byte(key))], []byte("\n"))
	}
	for _, key := range []string{"colon:", "number:", "name: second", "list_unencrypted:"} {
		if a, b := line(in, key), line(got, key); a != b {
			t.Errorf("%s was in line %d and is in line %d", key, a, b)
		}
	}
	if d := cmp.Diff([]string{"hunter2-café", "line one\nline two\n", "a: b # c", "42", "yes", "plain text", "x"}, secret); d != "" {
		t.Errorf("values: -want +got:\n%s", d)
	}
}

func TestRefusals(t *testing.T) {
	good := string(read(t, "secret.yaml"))
	for name, tt := range map[string]struct {
		data, keys, want string
	}{
		"no key":            {good, "", "sops-no-key"},
		"wrong key":         {good, "other.key", "sops-wrong-key"},
		"changed":           {strings.Replace(good, "namespace: shop", "namespace: bank", 1), "age.key", "sops-mac"},
		"value added":       {strings.Replace(good, `empty: ""`, `empty: "new"`, 1), "age.key", "sops-malformed"},
		"value moved":       {strings.Replace(good, "password:", "passw0rd:", 1), "age.key", "sops-malformed"},
		"document removed":  {good[:strings.Index(good, "\n---")+1], "age.key", "sops-mac"},
		"no recipient":      {"a: ENC[AES256_GCM,data:x]\nsops: {mac: ENC[AES256_GCM}\n", "age.key", ""},
		"no age recipients": {"a: b\nsops:\n  mac: 'ENC[AES256_GCM,x]'\n  pgp: [{fp: ABC}]\n", "age.key", "sops-no-age"},
		"two key groups":    {"a: b\nsops:\n  mac: 'ENC[AES256_GCM,x]'\n  key_groups: [{}, {}]\n", "age.key", "sops-key-groups"},
		"ini":               {"[a]\nb = ENC[AES256_GCM,x]\n[sops]\nmac = x\n", "age.key", "sops-format"},
	} {
		t.Run(name, func(t *testing.T) {
			var ids []age.Identity
			if tt.keys != "" {
				ids = identities(t, tt.keys)
			}
			_, _, err := sops.Decrypt("secret.yaml", []byte(tt.data), ids)
			var why *sops.Error
			if tt.want == "" {
				if err != nil {
					t.Errorf("a file without metadata is not encrypted, got %v", err)
				}
				return
			}
			if !errors.As(err, &why) || why.Code != tt.want {
				t.Fatalf("got %v, want %s", err, tt.want)
			}
			if strings.Contains(why.Message+why.Hint, "hunter2") {
				t.Errorf("shows a value: %s", why.Message)
			}
		})
	}
}

func TestBadKeyIsNotShown(t *testing.T) {
	_, err := sops.Identities([]string{"AGE-SECRET-KEY-1NOTAKEY"})
	if err == nil || strings.Contains(err.Error(), "NOTAKEY") {
		t.Errorf("got %v", err)
	}
}

func FuzzDecrypt(f *testing.F) {
	for _, name := range []string{"secret.yaml", "app.json", "app.env", "blob.bin"} {
		f.Add(name, read(f, name))
	}
	ids := identities(f, "age.key")
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		_, _, err := sops.Decrypt(name, data, ids)
		if why := (*sops.Error)(nil); err != nil && !errors.As(err, &why) {
			t.Errorf("an error that is not one of ours: %v", err)
		}
	})
}
