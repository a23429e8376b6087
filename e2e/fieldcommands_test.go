package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

func fieldsApply(ts *testscript.TestScript, neg bool, args []string) {
	h := fieldsHostOf(ts)
	for _, file := range args {
		ts.Check(h.write(ts.Getenv("FAIRLEAD_NAMESPACE"), "manifest.yaml", ts.ReadFile(file)))
	}
}

// ask runs fairlead and returns what it says. Unlike ts.Exec it leaves no trace, since it is called again and again.
func (h *fieldsHost) ask(ts *testscript.TestScript, args ...string) (string, error) {
	cmd := exec.Command(h.program, args...)
	for _, name := range []string{"FAIRLEAD_CONFIG", "FAIRLEAD_NAMESPACE", "DOCKER_HOST", "NO_COLOR"} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		err = fmt.Errorf("fairlead %s: %w: %s", strings.Join(args, " "), err, exit.Stderr)
	}
	return string(out), err
}

// fieldsPods waits until the line of a pod in "fairlead get pods" matches.
func fieldsPods(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: pods PATTERN")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	until(ts, func() error {
		out, err := fieldsHostOf(ts).ask(ts, "get", "pods")
		if err == nil && want.MatchString(out) == neg {
			err = fmt.Errorf("pods that match %s: %t, not %t", args[0], neg, !neg)
		}
		return err
	})
}

// patience is how long something that must happen may take.
const patience = 3 * time.Minute

// until tries until it gets no error.
func until(ts *testscript.TestScript, try func() error) {
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		err := try()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			pods, e1 := fieldsHostOf(ts).ask(ts, "get", "pods")
			events, e2 := fieldsHostOf(ts).ask(ts, "events")
			ts.Fatalf("still after %v: %v\n%s\n%s", patience, err, pods, errors.Join(e1, e2, errors.New(events)))
		}
	}
}

func fieldsLog(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: log POD[:CONTAINER] FILE")
	}
	want := strings.Split(strings.TrimSuffix(ts.ReadFile(args[1]), "\n"), "\n")
	target, container, _ := strings.Cut(args[0], ":")
	cmd := []string{"logs", target}
	if container != "" {
		cmd = append(cmd, "-c", container)
	}
	until(ts, func() error {
		text, err := fieldsHostOf(ts).ask(ts, cmd...)
		if err != nil {
			return err
		}
		text = strings.TrimSuffix(text, "\n")
		got := strings.Split(text, "\n")
		for i, line := range want {
			if i >= len(got) || !matches(line, got[i]) {
				return fmt.Errorf("line %d of the log of %s is not %q:\n%s", i+1, args[0], line, text)
			}
		}
		if len(got) > len(want) {
			return fmt.Errorf("the log of %s has more than %d lines:\n%s", args[0], len(want), text)
		}
		return nil
	})
}

func matches(want, got string) bool {
	if pattern, ok := strings.CutPrefix(want, "~ "); ok {
		return regexp.MustCompile("^(?:" + pattern + ")$").MatchString(got)
	}
	return want == got
}

func fieldsField(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: field KIND NAME PATH PATTERN")
	}
	want := regexp.MustCompile("^(?:" + args[3] + ")$")
	until(ts, func() error {
		got, err := fieldOf(ts, args[0], args[1], args[2])
		if err == nil && !want.MatchString(got) {
			err = fmt.Errorf("%s %s: %s is %q, not %s", args[0], args[1], args[2], got, args[3])
		}
		return err
	})
}

// fieldOf returns a field of an object, "" when it is not there.
func fieldOf(ts *testscript.TestScript, kind, name, path string) (string, error) {
	cmd := []string{"get", kind, name, "-o", "json"}
	if selector, ok := strings.CutPrefix(name, "-l="); ok {
		cmd = []string{"get", kind, "-l", selector, "-o", "json"}
	}
	out, err := fieldsHostOf(ts).ask(ts, cmd...)
	if err != nil {
		return "", err
	}
	var v any
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		return "", err
	}
	for key := range strings.SplitSeq(path, ".") {
		switch x := v.(type) {
		case map[string]any:
			v = x[key]
		case []any:
			i, err := strconv.Atoi(key)
			if err != nil || i >= len(x) {
				return "", nil
			}
			v = x[i]
		default:
			return "", nil
		}
	}
	if v == nil {
		return "", nil
	}
	return fmt.Sprint(v), nil
}

func fieldsEvent(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: event PATTERN")
	}
	want := regexp.MustCompile("(?m)" + args[0])
	until(ts, func() error {
		out, err := fieldsHostOf(ts).ask(ts, "events")
		if err == nil && want.MatchString(out) == neg {
			err = fmt.Errorf("events that match %s: %t, not %t", args[0], neg, !neg)
		}
		return err
	})
}

func address(ts *testscript.TestScript, pod string) string {
	var ip string
	until(ts, func() (err error) {
		if ip, err = fieldOf(ts, "pod", pod, "status.podIP"); err == nil && ip == "" {
			err = fmt.Errorf("the pod %s has no address", pod)
		}
		return err
	})
	return ip
}

func fieldsIP(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: ip POD VARIABLE")
	}
	ts.Setenv(args[1], address(ts, args[0]))
}

func fieldsSwitch(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: switch on|off POD NAME")
	}
	url := fmt.Sprintf("http://%s:8080/%s/%s", address(ts, args[1]), args[0], args[2])
	until(ts, func() error { _, err := page(url); return err })
}

// fieldsInspect writes fields of what the engine says of a pod's container.
func fieldsInspect(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 3 {
		ts.Fatalf("usage: inspect FILE POD FIELD...")
	}
	text, err := inspection(ts, args[1], args[2:])
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), []byte(text), 0o600))
}

func fieldsInspected(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: inspected POD FIELD VALUE")
	}
	until(ts, func() error {
		got, err := inspection(ts, args[0], args[1:2])
		if want := args[1] + "=" + args[2] + "\n"; err == nil && got != want {
			err = fmt.Errorf("the engine says %q, not %q", got, want)
		}
		return err
	})
}

// inspection are fields of what the engine says of a pod's first container, one a line.
func inspection(ts *testscript.TestScript, pod string, fields []string) (string, error) {
	id, err := fieldOf(ts, "pod", pod, "status.containerStatuses.0.containerID")
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, raw, err := fieldsHostOf(ts).engine.ContainerInspectWithRaw(ctx, strings.TrimPrefix(id, "docker://"), false)
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, path := range fields {
		var v any
		if err := json.Unmarshal(raw, &v); err != nil {
			return "", err
		}
		for key := range strings.SplitSeq(path, ".") {
			m, _ := v.(map[string]any)
			v = m[key]
		}
		b, err := json.Marshal(v)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, "%s=%s\n", path, b)
	}
	return text.String(), nil
}

func fieldsDescribed(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: described KIND/NAME PATTERN")
	}
	want := regexp.MustCompile(args[1])
	until(ts, func() error {
		out, err := fieldsHostOf(ts).ask(ts, "describe", args[0])
		if err == nil && !want.MatchString(out) {
			err = fmt.Errorf("%s does not match %s:\n%s", args[0], args[1], out)
		}
		return err
	})
}

func fieldsUnreachable(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: unreachable ADDR")
	}
	until(ts, func() error {
		c, err := net.DialTimeout("tcp", args[0], time.Second)
		if err != nil {
			return nil
		}
		return errors.Join(fmt.Errorf("somebody answers at %s", args[0]), c.Close())
	})
}

func fieldsCgroup(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: cgroup POD CONTROLLER/FILE VALUE")
	}
	controller, file, _ := strings.Cut(args[1], "/")
	until(ts, func() error {
		id, err := fieldOf(ts, "pod", args[0], "status.containerStatuses.0.containerID")
		if err != nil {
			return err
		}
		name := filepath.Join("/sys/fs/cgroup", controller, "docker", strings.TrimPrefix(id, "docker://"), file)
		got, err := os.ReadFile(name)
		if err == nil && strings.TrimSpace(string(got)) != args[2] {
			err = fmt.Errorf("%s is %s, not %s", args[1], got, args[2])
		}
		return err
	})
}
