package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/api/apitest"
	"github.com/fairlead-dev/fairlead/daemon/cli"
)

var update = flag.Bool("update", false, "rewrite what scripts compare with")

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// session is what one script has: the backends that its commands talk to, and what the last one did.
type session struct {
	local *apitest.Backend
	// validation answers validate, runErr ends the daemon of up and run.
	validation *api.Validation
	runErr     error
	stdin      string
	code       int
	close      []func()
}

// TestScripts runs the command line in process, with backends that answer from a file.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 filepath.Join("testdata", "scripts"),
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			s := &session{}
			e.Values["session"] = s
			e.Defer(func() {
				for _, c := range s.close {
					c()
				}
			})
			// A socket's path must be short, and the directory of a script may be deep.
			dir, err := os.MkdirTemp("", "fl")
			if err != nil {
				return err
			}
			s.close = append(s.close, func() { os.RemoveAll(dir) })
			e.Vars = append(e.Vars, "FAIRLEAD_STATE_DIR="+dir, "NO_COLOR=", "CI=", "TERM=xterm", "HOME="+e.WorkDir)
			state, err := os.ReadFile(filepath.Join("testdata", "state.json"))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(e.WorkDir, "state.json"), state, 0o600)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"fairlead": fairlead,
			// local FILE gives commands that work on their own a backend with the state in FILE.
			"local": func(ts *testscript.TestScript, _ bool, args []string) {
				of(ts).local = apitest.New(stateFile(ts, args))
			},
			// daemon FILE starts a daemon that answers on the socket.
			"daemon": func(ts *testscript.TestScript, _ bool, args []string) {
				of(ts).serve(ts, apitest.New(stateFile(ts, args)))
			},
			"validation": func(ts *testscript.TestScript, _ bool, args []string) {
				v := &api.Validation{}
				ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[0])), v))
				of(ts).validation = v
			},
			"runfails": func(ts *testscript.TestScript, _ bool, args []string) {
				of(ts).runErr = errors.New(strings.Join(args, " "))
			},
			// input TEXT is the stdin of the next command.
			"input": func(ts *testscript.TestScript, _ bool, args []string) {
				of(ts).stdin = strings.Join(args, " ") + "\n"
			},
			// code N checks the exit code of the last command.
			"code": func(ts *testscript.TestScript, _ bool, args []string) {
				if want, err := strconv.Atoi(args[0]); err != nil || of(ts).code != want {
					ts.Fatalf("exit code %d, want %s", of(ts).code, args[0])
				}
			},
			// calls FILE compares what the local backend was asked.
			"calls": func(ts *testscript.TestScript, neg bool, args []string) {
				got := strings.Join(of(ts).local.Calls(), "\n")
				if found := strings.Contains(got, args[0]); found == neg {
					ts.Fatalf("the backend was asked:\n%s", got)
				}
			},
		},
	})
}

func of(ts *testscript.TestScript) *session { return ts.Value("session").(*session) }

func stateFile(ts *testscript.TestScript, args []string) apitest.State {
	var s apitest.State
	if len(args) == 0 {
		return s
	}
	d := json.NewDecoder(strings.NewReader(ts.ReadFile(args[0])))
	d.DisallowUnknownFields()
	ts.Check(d.Decode(&s))
	return s
}

func (s *session) serve(ts *testscript.TestScript, b api.Backend) {
	l, err := api.Listen(context.Background(), filepath.Join(ts.Getenv("FAIRLEAD_STATE_DIR"), "fairlead.sock"))
	ts.Check(err)
	s.serveOn(l, b)
}

func (s *session) serveOn(l net.Listener, b api.Backend) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = api.Serve(ctx, l, b)
	}()
	s.close = append([]func(){func() { cancel(); <-done }}, s.close...)
}

// fairlead runs a command line. A script says with "!" that it fails.
func fairlead(ts *testscript.TestScript, neg bool, args []string) {
	s := of(ts)
	var stdout, stderr bytes.Buffer
	env := cli.Env{
		Args: args, Stdin: strings.NewReader(s.stdin), Stdout: &stdout, Stderr: &stderr,
		Getenv: ts.Getenv, Now: func() time.Time { return now }, Version: "v1.2.3", Revision: "abcdef",
		New: func(_ context.Context, set cli.Settings, log zerolog.Logger) (cli.System, error) {
			fmt.Fprintf(&stderr, "settings: %+v\n", shown(set))
			log.Info().Str("application", "shop").Msg("reconciled")
			return system{apitest.New(apitest.State{}), s.runErr}, nil
		},
		Validate: func(_ context.Context, set cli.Settings) (api.Validation, error) {
			if s.validation == nil {
				return api.Validation{}, fmt.Errorf("open %s: no such directory", set.Location)
			}
			return *s.validation, nil
		},
		RenderWorker: func(_ context.Context, r io.Reader, w io.Writer) error { _, err := io.Copy(w, r); return err },
	}
	if s.local != nil {
		env.Local = func(_ context.Context, set cli.Settings, _ zerolog.Logger) (api.Backend, func() error, error) {
			if set.Location != "" {
				fmt.Fprintf(&stderr, "settings: %+v\n", shown(set))
			}
			return s.local, func() error { return nil }, nil
		}
	}
	for i, a := range env.Args {
		if f, ok := strings.CutPrefix(a, "@"); ok {
			env.Args[i] = ts.MkAbs(f) // the process stays where it is
		}
	}
	s.code = cli.Run(context.Background(), env)
	s.stdin = ""
	for _, o := range []struct {
		w io.Writer
		b []byte
	}{{ts.Stdout(), stdout.Bytes()}, {ts.Stderr(), stderr.Bytes()}} {
		// The same in every run.
		_, err := o.w.Write(bytes.ReplaceAll(o.b, []byte(ts.Getenv("FAIRLEAD_STATE_DIR")), []byte("/STATE")))
		ts.Check(err)
	}
	if (s.code != 0) != neg {
		ts.Fatalf("exit code %d", s.code)
	}
}

// shown is what scripts compare of settings: no path of the machine.
func shown(s cli.Settings) cli.Settings {
	s.StateDir, s.Socket = "", filepath.Base(s.Socket)
	s.Location, s.ConfigFile = filepath.Base(s.Location), filepath.Base(s.ConfigFile)
	return s
}

// system is a daemon that ends at once.
type system struct {
	api.Backend
	err error
}

func (s system) Run(context.Context) error {
	if s.err != nil {
		return s.err
	}
	return context.Canceled
}
