package cli

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// noSuchCommand refuses arguments of the root: they were meant as a command.
func (a *app) noSuchCommand(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	var names []string
	for _, sub := range c.Commands() {
		if !sub.Hidden {
			names = append(names, sub.Name())
		}
	}
	return fmt.Errorf("unknown command %q%s; `fairlead --help` lists the commands", args[0], didYouMean(args[0], names))
}

var unknownFlag = regexp.MustCompile(`^unknown (?:shorthand )?flag: (?:'.' in )?-?-?(\S+)$`)

// flagError says which flag was meant.
func flagError(c *cobra.Command, err error) error {
	hint := fmt.Sprintf("; see `%s --help`", c.CommandPath())
	m := unknownFlag.FindStringSubmatch(err.Error())
	if m == nil {
		return fmt.Errorf("%w%s", err, hint)
	}
	var names []string
	add := func(f *pflag.Flag) { names = append(names, f.Name) }
	c.Flags().VisitAll(add)
	c.InheritedFlags().VisitAll(add)
	near := nearest(m[1], names)
	if near != "" {
		near = fmt.Sprintf("; did you mean --%s?", near)
		hint = ""
	}
	return fmt.Errorf("%w%s%s", err, near, hint)
}

// didYouMean is "; did you mean X?" or empty.
func didYouMean(got string, known []string) string {
	if n := nearest(got, known); n != "" {
		return fmt.Sprintf("; did you mean %q?", n)
	}
	return ""
}

// nearest returns the known word that was probably meant, or nothing. Ties go to the lower word.
func nearest(got string, known []string) string {
	known = slices.Sorted(slices.Values(known))
	best, bestDistance := "", max(1, len(got)/3)+1
	for _, k := range known {
		if len(got) >= 2 && strings.HasPrefix(k, got) {
			return k
		}
		if d := distance(strings.ToLower(got), k); d < bestDistance {
			best, bestDistance = k, d
		}
	}
	return best
}

// distance counts the letters to insert, delete, replace or swap with their neighbour (optimal string alignment).
func distance(a, b string) int {
	rows := make([][]int, len(a)+1)
	for i := range rows {
		rows[i] = make([]int, len(b)+1)
		rows[i][0] = i
	}
	for j := range rows[0] {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			rows[i][j] = min(rows[i-1][j]+1, rows[i][j-1]+1, rows[i-1][j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				rows[i][j] = min(rows[i][j], rows[i-2][j-2]+1)
			}
		}
	}
	return rows[len(a)][len(b)]
}

// explain adds to an error what to do about it, where the error itself cannot know.
func (a *app) explain(root *cobra.Command, err error) string {
	s := err.Error()
	switch {
	case errors.Is(err, api.ErrMoved):
		s += "\nMake a new plan and look at it: `fairlead plan --out FILE`."
	case errors.Is(err, api.ErrUnsupported):
		s += "\nStart a daemon with `fairlead up` or `fairlead run`."
	}
	return s
}

// args checks the number of arguments in words.
func args(least, most int, what string) cobra.PositionalArgs {
	return func(c *cobra.Command, got []string) error {
		switch {
		case len(got) < least:
			return fmt.Errorf("%s needs %s; usage: %s", c.CommandPath(), what, c.UseLine())
		case most >= 0 && len(got) > most:
			return fmt.Errorf("%s does not take %q; usage: %s", c.CommandPath(), got[most], c.UseLine())
		}
		return nil
	}
}
