package daemon

import (
	"fmt"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/fairlead-dev/fairlead/daemon/applications"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// place is where a repository lies, as seen from this machine. What lies nearer may name what lies farther, never the
// other way round: whoever can push to a remote repository must not make the daemon read this machine's files, nor ask
// the services that only this machine can reach.
type place int

const (
	onNetwork  place = iota
	onLoopback       // this machine's own addresses, and those of its link: metadata services of clouds are there
	onDisk           // this machine's files
)

func (p place) String() string {
	return [...]string{"another machine", "an address of this machine alone", "this machine's files"}[p]
}

// placeOf says where a source is read from.
func placeOf(d applications.Source) place {
	if d.Kind == applications.Local {
		return onDisk
	}
	host := ""
	if applications.IsSCP(d.Repository.URL) {
		host, _, _ = strings.Cut(d.Repository.URL, ":")
		host = host[strings.LastIndexByte(host, '@')+1:]
	} else if u, err := url.Parse(d.Repository.URL); err == nil {
		host = u.Hostname()
		if u.Scheme == "file" || u.Scheme == "" {
			return onDisk
		}
	}
	host = strings.ToLower(strings.TrimSuffix(host, "."))
	if host == "localhost" || strings.HasSuffix(host, ".localhost") {
		return onLoopback
	}
	a, err := netip.ParseAddr(host)
	if err != nil {
		return onNetwork
	}
	if a = a.Unmap().WithZone(""); a.IsLoopback() || a.IsUnspecified() || a.IsLinkLocalUnicast() || a.IsMulticast() {
		return onLoopback
	}
	return onNetwork
}

// confine marks as broken what an application may not declare: a source that lies nearer than the application's own. The
// settings are trusted. The caller holds s.mu.
func (s *System) confine(by string, d applications.Declared) (applications.Declared, diag.List) {
	if by == bySettings {
		return d, nil
	}
	own := onNetwork
	if e := s.applications[by]; e != nil {
		if src := s.sources[e.decl.Source]; src != nil {
			own = placeOf(src.decl)
		}
	}
	var found diag.List
	d.Sources = slices.Clone(d.Sources)
	for i := range d.Sources {
		src := &d.Sources[i]
		if at := placeOf(*src); at > own && !src.Broken() {
			x := diag.Diagnostic{
				Severity: diag.Error, Code: "source-out-of-reach", Ref: src.Ref, Origin: src.Origin, Field: "spec.url",
				Message: fmt.Sprintf("names %s, which a repository on %s may not", at, own),
				Hint:    "declare this source in configDir or in the settings of the daemon",
			}
			src.Findings = append(slices.Clone(src.Findings), x)
			found = append(found, x)
		}
	}
	return d, found
}

// contested says what two declarers mean by one name of a source. Neither is believed: what was fetched would come from
// whichever is sorted first, without the signatures that the other asks for.
func contested(name, a, b string, src applications.Source) diag.Diagnostic {
	return diag.Diagnostic{
		Severity: diag.Error, Code: "source-declared-twice", Ref: src.Ref, Origin: src.Origin,
		Message: fmt.Sprintf("source %s is declared by %s and, differently, by %s", name, declarer(a), declarer(b)),
		Hint:    "rename one of them",
	}
}
