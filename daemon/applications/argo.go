package applications

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/diag"
)

// argoInterval is how often Argo CD looks at a repository by default.
const argoInterval = 3 * time.Minute

// cascade are the finalizers that make Argo CD delete an application's objects with it.
var cascade = []string{
	"resources-finalizer.argocd.argoproj.io",
	"resources-finalizer.argocd.argoproj.io/foreground",
	"resources-finalizer.argocd.argoproj.io/background",
	"foreground-finalizer.argocd.argoproj.io",
	"background-finalizer.argocd.argoproj.io",
}

type argoSource struct {
	RepoURL        string `json:"repoURL"`
	TargetRevision string `json:"targetRevision"`
	Path           string `json:"path"`
	Name           string `json:"name"`
	Ref            string `json:"ref"`
	Directory      *struct {
		Recurse bool   `json:"recurse"`
		Include string `json:"include"`
		Exclude string `json:"exclude"`
	} `json:"directory"`
	Kustomize *struct {
		NamePrefix string   `json:"namePrefix"`
		NameSuffix string   `json:"nameSuffix"`
		Namespace  string   `json:"namespace"`
		Images     []string `json:"images"`
		Replicas   []struct {
			Name  string `json:"name"`
			Count any    `json:"count"`
		} `json:"replicas"`
		CommonLabels            map[string]string `json:"commonLabels"`
		CommonAnnotations       map[string]string `json:"commonAnnotations"`
		LabelWithoutSelector    bool              `json:"labelWithoutSelector"`
		Patches                 []json.RawMessage `json:"patches"`
		Components              []string          `json:"components"`
		IgnoreMissingComponents bool              `json:"ignoreMissingComponents"`
	} `json:"kustomize"`
}

type argoApplication struct {
	Metadata meta `json:"metadata"`
	Spec     struct {
		Source      *argoSource  `json:"source"`
		Sources     []argoSource `json:"sources"`
		Destination struct {
			Server    string `json:"server"`
			Name      string `json:"name"`
			Namespace string `json:"namespace"`
		} `json:"destination"`
		SyncPolicy struct {
			Automated *struct {
				Enabled    *bool `json:"enabled"`
				Prune      bool  `json:"prune"`
				SelfHeal   *bool `json:"selfHeal"`
				AllowEmpty bool  `json:"allowEmpty"`
			} `json:"automated"`
			SyncOptions []string `json:"syncOptions"`
			Retry       struct {
				Backoff struct {
					MaxDuration string `json:"maxDuration"`
				} `json:"backoff"`
			} `json:"retry"`
		} `json:"syncPolicy"`
		IgnoreDifferences []struct {
			selector
			JSONPointers []string `json:"jsonPointers"`
		} `json:"ignoreDifferences"`
	} `json:"spec"`
}

func (rd *reader) readArgo(d declaration) {
	var x argoApplication
	r := d.report
	decode(r, rd.argoApp, d.content, &x)

	base := Application{Application: plan.Application{Name: shownName(d.Namespace, d.Name)}, Ref: d.Ref, Origin: d.Origin, Interval: argoInterval, Wait: true, DeletionPolicy: Orphan}
	base.Requested, base.Suspend = readAnnotations(r, x.Metadata)
	readOwn(r, x.Metadata, &base)
	if x.Spec.Destination.Server != "" && x.Spec.Destination.Name != "" {
		r.error("invalid-value", "spec.destination", "has both server and name", "remove one")
	}
	spec, _ := d.content["spec"].(map[string]any)
	if dest, is := spec["destination"].(map[string]any); is && empty(dest["server"]) && empty(dest["name"]) {
		r.error("missing-field", "spec.destination", "names neither server nor name", "write name: in-cluster")
	}
	for _, f := range x.Metadata.Finalizers {
		if slices.Contains(cascade, f) {
			base.DeletionPolicy = Delete
		}
	}
	base.Manual = true
	if auto := x.Spec.SyncPolicy.Automated; auto != nil {
		base.Manual = auto.Enabled != nil && !*auto.Enabled
		base.Prune, base.AllowEmpty = auto.Prune, auto.AllowEmpty
		if auto.SelfHeal != nil && !*auto.SelfHeal {
			r.warn("not-honoured", "spec.syncPolicy.automated.selfHeal", "is not honoured when false", "what was changed by hand is always set right; suspend the application or write ignoreDifferences")
		}
	}
	base.RetryInterval = period(r, "spec.syncPolicy.retry.backoff.maxDuration", x.Spec.SyncPolicy.Retry.Backoff.MaxDuration)
	for i, o := range x.Spec.SyncPolicy.SyncOptions {
		readSyncOption(r, fmt.Sprintf("spec.syncPolicy.syncOptions[%d]", i), strings.ReplaceAll(o, " ", ""), &base)
	}
	for i, rule := range x.Spec.IgnoreDifferences {
		at := fmt.Sprintf("spec.ignoreDifferences[%d]", i)
		base.Ignore = append(base.Ignore, plan.IgnoreRule{
			Group: exact(r, at+".group", rule.Group), Kind: exact(r, at+".kind", rule.Kind),
			Namespace: exact(r, at+".namespace", rule.Namespace), Name: exact(r, at+".name", rule.Name),
			Pointers: pointers(r, at+".jsonPointers", rule.JSONPointers),
		})
	}

	var list []argoSource
	ats := []string{"spec.source"}
	switch {
	case x.Spec.Source != nil && len(x.Spec.Sources) > 0:
		r.error("invalid-value", "spec.sources", "stands beside spec.source", "remove one")
		list = []argoSource{*x.Spec.Source}
	case x.Spec.Source != nil:
		list = []argoSource{*x.Spec.Source}
	case len(x.Spec.Sources) > 0:
		ats = nil
		for i, s := range x.Spec.Sources {
			at := fmt.Sprintf("spec.sources[%d]", i)
			if s.Ref != "" && s.Path == "" {
				r.warn("not-honoured", at, "is left out", "a source with ref and without path only holds values for Helm")
				continue
			}
			list, ats = append(list, s), append(ats, at)
		}
	default:
		r.error("missing-field", "spec.source", "is required and missing", "")
	}
	if len(list) == 0 {
		list, ats = []argoSource{{}}, []string{"spec.source"}
	}
	verify := rd.argoVerification(r, d.Namespace, x.Metadata)
	for i, s := range list {
		a := base
		if len(list) > 1 {
			a.Name += ":" + or(s.Name, strconv.Itoa(i+1))
		}
		a.Path, a.Render = readArgoSource(r, ats[i], s)
		a.Render.DefaultNamespace = x.Spec.Destination.Namespace
		if s.RepoURL != "" {
			a.Source = rd.derive(r, ats[i], s, verify)
		}
		rd.waiting = append(rd.waiting, waiting{index: len(rd.out.Applications), report: r})
		rd.out.Applications = append(rd.out.Applications, a)
	}
}

// readSyncOption takes over one entry of syncOptions.
func readSyncOption(r *reporter, at, s string, a *Application) {
	o, known, named := findSyncOption(s)
	switch {
	case known && o.use == warned:
		r.warn("not-honoured", at, s+" is not honoured", o.note)
	case !known && named:
		name, value, _ := strings.Cut(s, "=")
		r.error("invalid-value", at, fmt.Sprintf("%q is not a value of %s", value, name), "")
	case !known:
		r.warn("not-honoured", at, fmt.Sprintf("%q is not an option that fairlead knows", s), "")
	}
	switch s {
	case "Prune=false", "Prune=confirm":
		a.Prune = false
	case "Delete=false", "Delete=confirm":
		a.DeletionPolicy = Orphan
	case "Force=true":
		a.Force = true
	}
}

// readArgoSource returns the path of a source and how it is rendered.
func readArgoSource(r *reporter, at string, s argoSource) (string, render.Options) {
	var o render.Options
	if s.Path == "" && s.RepoURL != "" {
		r.error("missing-field", at+".path", "is required and missing", `write "." for the root of the repository`)
	}
	p, _ := inside(r, at+".path", s.Path)
	if s.Ref != "" {
		r.warn("not-honoured", at+".ref", "is not honoured", "it only names values for Helm")
	}
	if s.Kustomize != nil && s.Directory != nil {
		r.error("invalid-value", at, "has both kustomize and directory", "remove one")
	}
	o.Directory.NoRecurse = true
	if d := s.Directory; d != nil {
		o.Directory = render.Directory{Plain: true, NoRecurse: !d.Recurse, Include: d.Include, Exclude: d.Exclude}
	}
	k := s.Kustomize
	if k == nil {
		return p, o
	}
	o.NamePrefix, o.NameSuffix, o.TargetNamespace = k.NamePrefix, k.NameSuffix, k.Namespace
	o.CommonLabels, o.CommonAnnotations = k.CommonLabels, k.CommonAnnotations
	o.Patches, o.Components, o.IgnoreMissingComponents = k.Patches, k.Components, k.IgnoreMissingComponents
	if len(k.CommonLabels) > 0 && !k.LabelWithoutSelector {
		r.error("unsupported-field", at+".kustomize.commonLabels", "would change selectors, which is not supported",
			"set labelWithoutSelector: true, or write the labels in the kustomization file")
	}
	for i, image := range k.Images {
		raw, ok := kustomizeImage(image)
		if !ok {
			r.error("invalid-value", fmt.Sprintf("%s.kustomize.images[%d]", at, i), fmt.Sprintf("%q changes no image", image),
				"write it like name:tag, name@sha256:…, old=new or old=new:tag")
			continue
		}
		o.Images = append(o.Images, raw)
	}
	for i, rep := range k.Replicas {
		count, ok := whole(rep.Count)
		if s, isText := rep.Count.(string); isText {
			n, err := strconv.ParseInt(s, 10, 32)
			count, ok = n, err == nil
		}
		if rep.Count == nil {
			continue // reported
		}
		if !ok || count < 0 {
			r.error("invalid-value", fmt.Sprintf("%s.kustomize.replicas[%d].count", at, i), fmt.Sprintf("%v is not a number of replicas", rep.Count), "")
			continue
		}
		o.Replicas = append(o.Replicas, encode(map[string]any{"name": rep.Name, "count": count}))
	}
	return p, o
}

// kustomizeImage turns "[old=]new[:tag][@digest]" into an entry of a kustomization's images.
func kustomizeImage(s string) (json.RawMessage, bool) {
	old, image, renamed := strings.Cut(s, "=")
	if !renamed {
		image = old
	}
	image, digest, pinned := strings.Cut(image, "@")
	name, tag := image, ""
	if i := strings.LastIndexByte(image, ':'); i > strings.LastIndexByte(image, '/') {
		name, tag = image[:i], image[i+1:]
		if tag == "" {
			return nil, false
		}
	}
	entry := map[string]any{"name": name}
	if renamed {
		entry["name"] = old
		if name != "*" {
			entry["newName"] = name
		}
	}
	if tag != "" {
		entry["newTag"] = tag
	}
	if pinned {
		entry["digest"] = digest
	}
	if entry["name"] == "" || name == "" || (pinned && digest == "") || len(entry) == 1 {
		return nil, false
	}
	return encode(entry), true
}

// derive returns the name of the source that an Argo CD source means. Applications that name the same
// repository and revision, and ask for the same signatures, share it.
func (rd *reader) derive(r *reporter, at string, s argoSource, verify Verification) string {
	revision := or(s.TargetRevision, "HEAD")
	name := strings.TrimPrefix(strings.TrimSuffix(strings.TrimSuffix(ShownURL(s.RepoURL), "/"), ".git"), "https://") + "@" + revision
	if verify.Mode != "" {
		name += "+" + verify.Mode + ":" + verify.SecretRef.Namespace + "/" + verify.SecretRef.Name
	}
	chart := slices.IndexFunc(r.list, func(d diag.Diagnostic) bool { return d.Field == at+".chart" })
	if chart >= 0 {
		name += "#chart" // that is no repository, and is never asked
	}
	if _, known := rd.derived[name]; known {
		return name
	}
	sr := &reporter{ref: r.ref, origin: r.origin}
	if chart >= 0 {
		sr.list = append(sr.list, r.list[chart])
	}
	out := Source{Name: name, Kind: Git, Origin: r.origin, Interval: argoInterval, Repository: Repository{URL: s.RepoURL}, Verify: verify}
	checkURL(sr, at+".repoURL", s.RepoURL)
	out.Repository.SetRevision(s.TargetRevision)
	checkReference(sr, at+".targetRevision", &out.Repository)
	if badRef.MatchString(out.Repository.Revision) {
		sr.error("invalid-value", at+".targetRevision", fmt.Sprintf("%q is neither a branch, a tag, a commit nor a range of versions", s.TargetRevision), "")
	}
	if verify.Mode != "" {
		checkMode(sr, "metadata.annotations["+verifyModeNote+"]", verify.Mode, out.Repository)
	}
	out.SecretRef, out.Repository.Auth = rd.argoAuth(sr, at+".repoURL", s.RepoURL)
	out.Repository.HideCredentials()
	out.Findings = sr.list
	rd.derived[name] = len(rd.out.Sources)
	rd.out.Sources = append(rd.out.Sources, out)
	return name
}
