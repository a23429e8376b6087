package daemon

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/settings"
)

// TestHooksAreServed declares sources of two repositories, and delivers a push of one of them.
func TestHooksAreServed(t *testing.T) {
	h := newHost(t)
	h.file("secret", "correct horse\n")
	h.set.Hooks = &settings.Hooks{Listen: "127.0.0.1:0", Endpoints: []settings.Endpoint{{Forge: "github", SecretFile: filepath.Join(h.dir, "secret")}}}
	for name, location := range map[string]string{"one": "https://127.0.0.1:1/team/config.git", "two": "ssh://git@127.0.0.1:1/team/config", "other": "https://127.0.0.1:1/team/other"} {
		h.set.Applications = append(h.set.Applications, settings.Application{Name: name, Location: location})
	}
	s := h.open(Run)
	serve, err := s.serveHooks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- serve() }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	body := `{"ref":"refs/heads/main","repository":{"clone_url":"https://127.0.0.1/Team/Config.git"}}`
	mac := hmac.New(sha256.New, []byte("correct horse"))
	mac.Write([]byte(body))
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+s.hooksFrom().Address+"/hooks/github", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range map[string]string{"Content-Type": "application/json", "X-GitHub-Event": "push", "X-GitHub-Delivery": "1", "X-Hub-Signature-256": "sha256=" + hex.EncodeToString(mac.Sum(nil))} {
		r.Header.Set(k, v)
	}
	res, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != http.StatusAccepted {
		t.Errorf("the delivery is answered %s", res.Status)
	}
	for name, want := range map[string]bool{"one": true, "two": true, "other": false} {
		if d := s.lastDelivery(name); (d != nil) != want || d != nil && (d.Ref != "refs/heads/main" || d.Forge != "github" || time.Since(d.Received) > time.Minute) {
			t.Errorf("the newest delivery about %s: %+v", name, d)
		}
	}
	if e := s.hooksFrom().Endpoints; len(e) != 1 || e[0].Accepted != 1 || e[0].Rejected != 0 {
		t.Errorf("endpoints %+v", e)
	}
	if names := s.Look([]string{"127.0.0.1/team/other"}); !slices.Equal(names, []string{"other"}) {
		t.Errorf("looked at %v", names)
	}
	if names := s.Look([]string{"", ".*", "/", "127.0.0.1/team"}); names != nil {
		t.Errorf("looked at %v", names)
	}
}

// T-W1: without a secret the daemon does not start.
func TestHooksNeedSecrets(t *testing.T) {
	h := newHost(t)
	h.file("secret", "\n")
	for _, e := range []settings.Endpoint{{Forge: "github", SecretFile: filepath.Join(h.dir, "secret")}, {Forge: "github", SecretFile: filepath.Join(h.dir, "none")}, {Forge: "github", SecretEnv: "FAIRLEAD_TEST_NOT_SET"}} {
		h.set.Hooks = &settings.Hooks{Listen: "127.0.0.1:0", Endpoints: []settings.Endpoint{e}}
		s, err := h.try(Run)
		if err == nil || !strings.Contains(err.Error(), "hooks.endpoints[0]: ") {
			t.Errorf("%+v: got %v", e, err)
		}
		if s != nil {
			h.stop(s)
		}
	}
	h.set.Hooks = nil
	h.set.Forges = []settings.Forge{{Kind: "github", TokenFile: filepath.Join(h.dir, "secret")}}
	if _, err := h.try(Run); err == nil || !strings.Contains(err.Error(), "forges[0]: the token is empty") {
		t.Errorf("got %v", err)
	}
}
