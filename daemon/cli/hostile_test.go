package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
)

// TestNothingSteersTheTerminal puts control characters into everything that a repository, an engine or a
// container may say, and looks for them in what the commands write.
func TestNothingSteersTheTerminal(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("testdata", "state.json"))
	if err != nil {
		t.Fatal(err)
	}
	var state any
	if err := json.Unmarshal(b, &state); err != nil {
		t.Fatal(err)
	}
	poisoned := map[string]bool{}
	for _, key := range []string{
		"message", "reason", "short", "ref", "author", "application", "source", "path", "generator", "declaredBy", "location",
		"status", "health", "phase", "image", "imageID", "ip", "node", "uid", "cause", "old", "new", "healed", "hint", "field", "selector", "version",
		"installation", "stateDir", "engineVersion", "images", "containers", "logTail", "labels", "annotations", "type", "code", "reasons",
	} {
		poisoned[key] = true
	}
	if b, err = json.Marshal(poison(state, poisoned, false)); err != nil {
		t.Fatal(err)
	}
	var s apitest.State
	if err := json.Unmarshal(b, &s); err != nil {
		t.Fatal(err)
	}
	s.Apply.Outcomes[0].Error = &api.Error{Message: "first" + evil + "\nsecond" + evil}
	s.Apply.Outcomes[0].LogTail = []string{evil}
	for _, line := range []string{
		"get pods,deploy,jobs,cm,secrets,ns,sa,applications,sources,nodes,events", "get all -o wide", "get applications,sources,nodes,events -o wide", "get all -o name",
		"get pods -o yaml", "get pods -o json", "describe pod web-1", "describe pod blog-1", "describe deploy web", "describe deploy blog", "describe job migrate", "describe cm web-config", "describe secret login",
		"describe app shop", "describe app blog", "describe src shop", "events -o wide", "events", "status", "status -o wide", "plan", "plan -o markdown", "plan -o yaml", "apply", "down --dry-run", "down --yes",
		"get pods " + evil, "describe " + evil + " x", evil, "logs " + evil,
	} {
		var out bytes.Buffer
		Run(t.Context(), Env{
			Args: strings.Fields(line), Stdin: strings.NewReader(""), Stdout: &out, Stderr: &out, Now: func() time.Time { return time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC) },
			Getenv: func(k string) string { return map[string]string{"FAIRLEAD_STATE_DIR": "/nonexistent"}[k] },
			Local: func(context.Context, Settings, zerolog.Logger) (api.Backend, func() error, error) {
				return apitest.New(s), func() error { return nil }, nil
			},
		})
		if out.Len() == 0 {
			t.Errorf("%q wrote nothing", line)
		}
		if i := bytes.IndexAny(out.Bytes(), "\x1b\r\u009b\u202e"); i >= 0 {
			t.Errorf("%q wrote %q", line, out.Bytes()[max(0, i-80):min(out.Len(), i+20)])
		}
	}
}

// evil begins with sequences that erase the screen and turn the direction of text.
const evil = "\x1b[2J\r\u009b2J\u202e"

// poison appends evil to the strings below the keys.
func poison(v any, keys map[string]bool, on bool) any {
	switch v := v.(type) {
	case map[string]any:
		out := map[string]any{}
		for k, e := range v {
			out[k] = poison(e, keys, keys[k])
		}
		return out
	case []any:
		var out []any
		for _, e := range v {
			out = append(out, poison(e, keys, on))
		}
		return out
	case string:
		if on {
			return v + evil
		}
	}
	return v
}
