package fake_test

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/runtimes"
	"github.com/fairlead-dev/fairlead/runtimes/fake"
	"github.com/fairlead-dev/fairlead/runtimes/runtimetest"
)

// program is the test program of runtimetest, as far as the contract needs it.
type program struct {
	output, errors []string
	code           int
	stays, ignores bool
	copies         bool
	missing        bool
}

func parse(cmd, env []string) program {
	var p program
	if len(cmd) == 0 || cmd[0] != runtimetest.ProgramPath {
		return program{missing: true}
	}
	for cmd = cmd[1:]; len(cmd) > 0; {
		var args []string
		if i := slices.Index(cmd, "--"); i >= 0 {
			args, cmd = cmd[:i], cmd[i+1:]
		} else {
			args, cmd = cmd, nil
		}
		switch args[0] {
		case "exit":
			p.code, _ = strconv.Atoi(args[1])
		case "wait", "forever":
			p.stays = true
		case "ignore-term":
			p.ignores = true
		case "copy":
			p.copies = true
		case "print":
			p.output = append(p.output, strings.Split(args[1], "\n")...)
		case "warn":
			p.errors = append(p.errors, strings.Split(args[1], "\n")...)
		case "env":
			for _, line := range env {
				if value, ok := strings.CutPrefix(line, args[1]+"="); ok {
					p.output = append(p.output, value)
				}
			}
		}
	}
	return p
}

func process(spec runtimes.ContainerSpec) fake.Process {
	p := parse(slices.Concat(spec.Command, spec.Args), spec.Env)
	out := fake.Process{
		Exits: !p.stays, Code: p.code, IgnoreTERM: p.ignores, Output: p.output, Errors: p.errors,
		Exec: func(ctx context.Context, cmd fake.Command) (int, error) { return run(ctx, cmd, spec.Env) },
	}
	if p.missing {
		out.StartError = "no such file or directory"
	}
	return out
}

func run(ctx context.Context, cmd fake.Command, env []string) (int, error) {
	p := parse(cmd.Args, env)
	if p.missing {
		return 0, fmt.Errorf("no such file or directory: %w", runtimes.ErrInvalid)
	}
	for _, l := range p.output {
		if _, err := io.WriteString(cmd.Stdout, l+"\n"); err != nil {
			return 0, err
		}
	}
	for _, l := range p.errors {
		if _, err := io.WriteString(cmd.Stderr, l+"\n"); err != nil {
			return 0, err
		}
	}
	if p.copies {
		if _, err := io.Copy(cmd.Stdout, cmd.Stdin); err != nil {
			return 0, err
		}
	}
	if p.stays {
		<-ctx.Done()
	}
	return p.code, nil
}

func TestContract(t *testing.T) {
	machine := fake.New()
	defer machine.Close()
	machine.CheckMounts()
	machine.AddImage("program", fake.Image{Present: true, Run: process})
	f := runtimetest.Commands("program")
	installations := map[string]*fake.Engine{}
	f.Foreign = func(t *testing.T, spec runtimes.ContainerSpec) string {
		for _, c := range machine.Containers() { // the engine under test is that which made the sandbox
			for _, e := range installations {
				if c.ID == spec.SandboxID && c.Name == e.Name(c.Identity) {
					return machine.AddForeign(e.Name(spec.Identity))
				}
			}
		}
		t.Fatal("nobody made the sandbox")
		return ""
	}
	f.Tamper = func(t *testing.T, id string) string { return machine.Hand().Tamper(id) }
	f.Duplicate = func(t *testing.T, id string) string { return machine.Hand().Tamper(id) }
	f.Rename = func(t *testing.T, id string) {
		if !machine.Hand().Rename(id, runtimetest.Name(t)) {
			t.Fatal("there is no such container")
		}
	}
	f.Exists = func(t *testing.T, id string) bool {
		return slices.ContainsFunc(machine.Containers(), func(s fake.State) bool { return s.ID == id })
	}
	f.Disconnect = func(t *testing.T) { machine.Disconnect() }
	runtimetest.Engine(t, func(t *testing.T, installation string) runtimes.Engine {
		e := machine.Open(installation)
		installations[installation] = e
		return e
	}, f)
}
