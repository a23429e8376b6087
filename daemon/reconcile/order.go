package reconcile

import (
	"fmt"

	"github.com/fairlead-dev/fairlead/sources"
)

// Dependency is how an application is that others depend on.
type Dependency struct {
	// Ready: it is healthy at its newest revision, and so is everything that it depends on itself.
	Ready bool
	// Failed: it will not become ready before something changes.
	Failed bool
	// Why says in words why it is not ready.
	Why string
}

// DependencyOf says how an application is, to those that depend on it; subject names it, and newest is the revision that its
// source has. What it depends on itself is not part of that.
func DependencyOf(st Status, newest sources.Revision, subject string) Dependency {
	behind := st.Revision != newest
	if !behind && !st.Walking && st.Health == Healthy && st.Applied == string(st.Revision) {
		return Dependency{Ready: true}
	}
	d := Dependency{Failed: !behind && !st.Walking && (st.Health == Failed || st.Health == Degraded)}
	switch {
	case behind && st.Health == Healthy:
		d.Why = fmt.Sprintf("waits for %s, which is not at revision %s yet", subject, newest.Short())
	case st.Detail == "":
		d.Why = fmt.Sprintf("waits for %s: %s", subject, st.Reason)
	default:
		d.Why = fmt.Sprintf("waits for %s: %s: %s", subject, st.Reason, firstLine(st.Detail))
	}
	return d
}

// dependencies sums up what an application depends on: one that failed says more than one that is on its way.
func (a *Application) dependencies(c Config) Dependency {
	out := Dependency{Ready: true}
	for _, name := range c.DependsOn {
		if d := a.world.Dependency(name); !d.Ready && (out.Ready || d.Failed && !out.Failed) {
			out = d
		}
	}
	return out
}

// permitted reports whether an application may be changed that is applied only when somebody asks. Who asks, asks for all
// of a revision, in however many stages that is applied.
func (a *Application) permitted(c Config, asked bool) bool {
	if asked {
		a.retrySync = true
		if c.Manual {
			a.granted = a.rendered.revision
		}
		return true
	}
	return a.granted != "" && a.granted == a.rendered.revision
}
