package environment

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/fairlead-dev/fairlead/runtimes"
)

// Expand replaces $(NAME) in every argument by the value that env (NAME=value lines) gives it.
// $$ stands for one $, so $$(NAME) is left as $(NAME); a reference to what env does not define
// stays as it is written. Nothing is expanded twice.
func Expand(args, env []string) []string {
	if args == nil {
		return nil
	}
	defined := lookup(env)
	out := make([]string, len(args))
	for i, a := range args {
		out[i] = expand(a, defined)
	}
	return out
}

// ExpandPath expands a subPathExpr as Expand does; what env does not define is an error.
func ExpandPath(expr string, env []string) (string, error) {
	defined := lookup(env)
	var undefined []string
	path := expandFunc(expr, func(name string) string {
		v, ok := defined[name]
		if !ok {
			undefined = append(undefined, name)
		}
		return v
	})
	if len(undefined) > 0 {
		return "", fmt.Errorf("subPathExpr %q: the container has no variable %s: %w", expr, strings.Join(undefined, ", "), runtimes.ErrInvalid)
	}
	return path, nil
}

func lookup(env []string) map[string]string {
	m := make(map[string]string, len(env))
	for _, line := range env {
		name, value, _ := strings.Cut(line, "=")
		m[name] = value
	}
	return m
}

func expand(s string, defined map[string]string) string {
	return expandFunc(s, func(name string) string {
		if v, ok := defined[name]; ok {
			return v
		}
		return "$(" + name + ")"
	})
}

func expandFunc(s string, value func(name string) string) string {
	if !strings.Contains(s, "$") {
		return s
	}
	var b strings.Builder
	for {
		i := strings.IndexByte(s, '$')
		if i < 0 || i == len(s)-1 {
			b.WriteString(s)
			return b.String()
		}
		b.WriteString(s[:i])
		s = s[i+1:]
		switch s[0] {
		case '$':
			b.WriteByte('$')
			s = s[1:]
		case '(':
			if end := strings.IndexByte(s, ')'); end > 0 {
				b.WriteString(value(s[1:end]))
				s = s[end+1:]
				continue
			}
			b.WriteString("$(")
			s = s[1:]
		default:
			_, size := utf8.DecodeRuneInString(s)
			b.WriteByte('$')
			b.WriteString(s[:size])
			s = s[size:]
		}
	}
}
