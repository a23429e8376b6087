package worker

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/render"
)

// TestMain makes the test program a child too.
func TestMain(m *testing.M) {
	if len(os.Args) < 2 || os.Args[1] != Argument {
		os.Exit(m.Run())
	}
	mode := ""
	if len(os.Args) > 2 {
		mode = os.Args[2]
	}
	switch mode {
	case "":
		if err := Serve(context.Background(), os.Stdin, os.Stdout, &render.Engine{}); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	case "hang":
		<-time.After(time.Hour)
	case "die":
		os.Exit(3)
	case "eat":
		if err := confine(512 << 20); err != nil {
			fmt.Fprintln(os.Stderr, err)
		}
		var all [][]byte
		for {
			b := make([]byte, 16<<20)
			for i := range b {
				b[i] = 1
			}
			all = append(all, b)
			runtime.KeepAlive(all)
		}
	case "probe":
		probe()
	case "krusty":
		if err := krustyChild(os.Args[3:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
}

// probe says what a confined process can still do.
func probe() {
	if err := confine(1 << 30); err != nil {
		fmt.Println("confine:", err)
	}
	say := func(what string, err error) {
		if err == nil {
			fmt.Println(what, "is possible")
		}
	}
	_, err := os.ReadFile("/etc/hostname")
	say("reading a file", err)
	_, err = os.ReadFile("/proc/self/environ")
	say("reading the environment", err)
	say("writing a file", os.WriteFile("/tmp/fairlead-probe", nil, 0o600))
	_, err = net.Dial("tcp", "127.0.0.1:1")
	if !errors.Is(err, os.ErrPermission) {
		fmt.Println("making a socket:", err)
	}
	say("running a program", exec.Command("/proc/self/exe").Run())
	p, _ := os.FindProcess(os.Getppid())
	say("signalling the parent", p.Signal(os.Signal(os.Interrupt)))
	fmt.Println("uid", os.Getuid())
}

func TestChildIsConfined(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("only Linux confines children")
	}
	out, err := exec.Command(os.Args[0], Argument, "probe").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	uid := os.Getuid()
	if uid == 0 {
		uid = nobody
	}
	if d := cmp.Diff(fmt.Sprintf("uid %d\n", uid), string(out)); d != "" {
		t.Error(d)
	}
}

func files() fstest.MapFS {
	fsys := fstest.MapFS{
		"base/kustomization.yaml":   {Data: []byte("resources: [cm.yaml]\nconfigMapGenerator:\n- name: gen\n  files: [conf/app.ini]\n")},
		"base/cm.yaml":              {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {x: \"1\"}\n")},
		"base/conf/app.ini":         {Data: []byte("k=v\n")},
		"apps/plain.yaml":           {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain, namespace: p}\n")},
		"apps/bad.yaml":             {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bad}\ndta: {}\n")},
		"apps/z/kustomization.yaml": {Data: []byte("resources: [in.yaml, out.yaml]\n")},
		"apps/z/in.yaml":            {Data: []byte("cm.yaml"), Mode: fs.ModeSymlink | 0o777},
		"apps/z/cm.yaml":            {Data: []byte("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: linked}\n")},
		"apps/z/out.yaml":           {Data: []byte("/etc/passwd"), Mode: fs.ModeSymlink | 0o777},
	}
	for i := range 40 {
		fsys[fmt.Sprintf("apps/o%02d/kustomization.yaml", i)] = &fstest.MapFile{Data: fmt.Appendf(nil, "resources: [../../base]\nnamespace: n%02d\n", i)}
	}
	return fsys
}

func pool(t *testing.T, o Options, mode ...string) *Pool {
	o.Command = append([]string{os.Args[0], Argument}, mode...)
	p := NewPool(o)
	t.Cleanup(func() { _ = p.Close() })
	return p
}

func TestPoolRendersAsTheEngineDoes(t *testing.T) {
	req := render.Request{Source: "s", Revision: "r", Files: files(), Path: "apps"}
	want, err := render.Render(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.Objects) != 82 || len(want.Diags) != 2 || want.Diags[1].Code != "symlink" {
		t.Fatalf("%d objects, diagnostics:\n%s", len(want.Objects), want.Diags)
	}
	p := pool(t, Options{})
	for range 2 {
		got, err := render.With(t.Context(), req, p)
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(want, got); d != "" {
			t.Fatalf("-engine +pool:\n%s", d)
		}
	}
}

func TestOverrunsConcernTheirUnitOnly(t *testing.T) {
	for mode, want := range map[string]string{
		"hang": "base: error: rendering it took longer than 100ms and was stopped",
		"eat":  "base: error: rendering it needed more than 512 MiB of memory and was stopped",
		"die":  "base: error: the process that rendered it broke down, twice",
	} {
		t.Run(mode, func(t *testing.T) {
			o := Options{Memory: 512 << 20}
			if mode == "hang" {
				o.Timeout = 100 * time.Millisecond
			}
			res, err := render.With(t.Context(), render.Request{Files: files(), Path: "base"}, pool(t, o, mode))
			if err != nil {
				t.Fatal(err)
			}
			if got := res.Diags.String(); !strings.HasPrefix(got, want) || !res.Diags.HasErrors() {
				t.Errorf("got %q, want %q…", got, want)
			}
		})
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(50*time.Millisecond, cancel)
	_, err := render.With(ctx, render.Request{Files: files(), Path: "base"}, pool(t, Options{}, "hang"))
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
}

func TestClosedPoolRefuses(t *testing.T) {
	p := pool(t, Options{})
	if err := p.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := render.With(t.Context(), render.Request{Files: files(), Path: "base"}, p); !errors.Is(err, ErrClosed) {
		t.Errorf("got %v, want %v", err, ErrClosed)
	}
}

func TestChildWithoutTheProgramIsAnError(t *testing.T) {
	p := NewPool(Options{Command: []string{"/nonexistent/fairlead", Argument}})
	if _, err := render.With(t.Context(), render.Request{Files: files(), Path: "base"}, p); err == nil || !strings.Contains(err.Error(), "start a render worker") {
		t.Errorf("got %v", err)
	}
}

// FuzzResult feeds frames of a hostile child to the parent's decoder.
func FuzzResult(f *testing.F) {
	m := newMessage(msgResult)
	m.result(render.UnitResult{Reads: []string{"a"}, Objects: []render.Rendered{{APIVersion: "v1", Written: []byte("{}")}}})
	f.Add(m.b[5:])
	f.Add([]byte{0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = (&fields{b: b}).result()
	})
}
