package applications

import (
	"fmt"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/render/object"
)

// named is a declaration with its name.
type named struct {
	name   *string
	ref    object.Ref
	origin object.Origin
	report *reporter
}

// checkNames sees to it that no two sources and no two applications have one name. Where two want it,
// both get an error, so that what runs under the name is left as it is; the second is named in full.
func (rd *reader) checkNames(also []Declared) {
	var sources, apps []named
	taken := map[string]named{}
	for _, d := range also {
		for _, s := range d.Sources {
			taken["source "+s.Name] = named{origin: s.Origin}
		}
		for _, a := range d.Applications {
			taken["application "+a.Name] = named{origin: a.Origin}
		}
	}
	for i := range rd.out.Sources {
		s := &rd.out.Sources[i]
		sources = append(sources, named{&s.Name, s.Ref, s.Origin, &reporter{ref: s.Ref, origin: s.Origin}})
	}
	for _, w := range rd.waiting {
		a := &rd.out.Applications[w.index]
		apps = append(apps, named{&a.Name, a.Ref, a.Origin, w.report})
	}
	clash := func(what string, list []named) {
		for _, n := range list {
			first, is := taken[what+*n.name]
			if !is {
				taken[what+*n.name] = n
				continue
			}
			n.taken(first)
			if first.report != nil {
				first.taken(n)
			}
			*n.name = n.ref.Kind + " " + n.ref.Namespace + "/" + *n.name
		}
	}
	clash("source ", sources)
	clash("application ", apps)
	for i, n := range sources {
		rd.out.Sources[i].Findings = append(rd.out.Sources[i].Findings, n.report.list...)
	}
}

// taken reports that another declaration wants the name of n.
func (n named) taken(by named) {
	who := "the settings"
	if !by.ref.IsZero() {
		who = by.ref.String()
	}
	n.report.error("duplicate-name", "metadata.name", fmt.Sprintf("%s is called %s too (%s)", who, *n.name, place(by.origin)), "give one of them another name")
}

// checkReferences looks up sources and dependencies, finds cycles, and hands out the findings.
func (rd *reader) checkReferences(also []Declared) {
	sources, apps := map[object.Ref]string{}, map[object.Ref]string{}
	names := map[string]bool{}
	for _, s := range rd.out.Sources {
		sources[s.Ref] = s.Name
	}
	for _, d := range also {
		for _, s := range d.Sources {
			names[s.Name] = true
		}
		for _, a := range d.Applications {
			apps[object.Ref{Group: fluxKustomize, Kind: "Kustomization", Name: a.Name}] = a.Name
		}
	}
	for _, a := range rd.out.Applications {
		apps[a.Ref] = a.Name
	}
	edges := map[string][]string{}
	for _, w := range rd.waiting {
		a := &rd.out.Applications[w.index]
		if !w.source.IsZero() {
			name, ok := sources[w.source]
			if short := shownName(w.source.Namespace, w.source.Name); !ok && names[short] {
				name, ok = short, true
			}
			if !ok {
				w.report.error("unknown-reference", "spec.sourceRef", fmt.Sprintf("there is no %s", w.source), "declare it, or correct the name or namespace")
			}
			a.Source = name
		}
		for _, ref := range w.dependsOn {
			name, ok := apps[ref]
			if !ok {
				name, ok = apps[object.Ref{Group: ref.Group, Kind: ref.Kind, Name: shownName(ref.Namespace, ref.Name)}]
			}
			if !ok {
				w.report.error("unknown-reference", fmt.Sprintf("spec.dependsOn[%s]", ref.Name), fmt.Sprintf("there is no %s", ref), "declare it, or correct the name or namespace")
				name = shownName(ref.Namespace, ref.Name)
			}
			a.DependsOn = append(a.DependsOn, name)
		}
		edges[a.Name] = a.DependsOn
	}
	for _, d := range also {
		for _, a := range d.Applications {
			edges[a.Name] = a.DependsOn
		}
	}
	cycles := findCycles(edges)
	for _, w := range rd.waiting {
		a := &rd.out.Applications[w.index]
		if cycle := cycles[a.Name]; cycle != nil {
			w.report.error("dependency-cycle", "spec.dependsOn", "depends on itself: "+strings.Join(cycle, " → "), "remove one of these dependencies")
		}
	}
	for _, w := range rd.waiting {
		rd.out.Applications[w.index].Findings = w.report.list
	}
}

// findCycles returns for each application that depends on itself the way round, beginning and ending
// with it.
func findCycles(edges map[string][]string) map[string][]string {
	out := map[string][]string{}
	for _, start := range sortedKeys(edges) {
		// Breadth first, so that the shortest way round is named.
		from := map[string]string{}
		queue := []string{start}
		for len(queue) > 0 && out[start] == nil {
			at := queue[0]
			queue = queue[1:]
			for _, next := range edges[at] {
				if next == start {
					way := []string{start}
					for n := at; n != start; n = from[n] {
						way = append(way, n)
					}
					way = append(way, start)
					slices.Reverse(way)
					out[start] = way
					break
				}
				if _, seen := from[next]; !seen {
					from[next] = at
					queue = append(queue, next)
				}
			}
		}
	}
	return out
}
