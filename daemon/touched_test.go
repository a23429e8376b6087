package daemon

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/sources/forge"
)

// manyOf is how many applications there are in these tests.
const manyOf = 200

// ownOf is the directory of one of many applications, which only that one reads.
func ownOf(i, version int) (file, content string) {
	name := fmt.Sprintf("app-%03d", i)
	return name + "/kustomization.yaml", fmt.Sprintf("namePrefix: %s-\nresources: [../base]\nconfigMapGenerator: [{name: own, literals: [v=%d]}]\n", name, version)
}

// manyApplications is a daemon that follows many applications of one repository, which is served at a URL.
func manyApplications(t *testing.T) (*host, *gitRepo, *System, string) {
	t.Helper()
	h := newHost(t)
	r := newGitRepo(h)
	url := r.serve()
	files := map[string]string{
		"base/kustomization.yaml": "resources: [config.yaml]\n", "base/config.yaml": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: config}\ndata: {a: \"1\"}\n",
		"cluster/source.yaml": strings.ReplaceAll(repoSource, "URL", url),
	}
	for i := range manyOf {
		name := fmt.Sprintf("app-%03d", i)
		files["cluster/"+name+".yaml"] = strings.ReplaceAll(fluxApp, "NAME", name)
		file, content := ownOf(i, 1)
		files[file] = content
	}
	head := r.commit("Begin", files)
	h.set.Applications = append(h.set.Applications, settings.Application{Name: "cluster", Location: url, Path: "cluster", Ref: "main"})
	s := h.open(Run)
	h.settled(s, head)
	return h, r, s, url
}

// settled waits until all of many applications are healthy at a revision.
func (h *host) settled(s *System, revision string) {
	h.t.Helper()
	h.eventually(s, "everything is at "+revision, func() bool {
		n := 0
		for _, st := range s.statuses() {
			if st.Health == "Healthy" && !st.Walking && st.Applied == revision {
				n++
			}
		}
		return n == manyOf+1
	})
}

// plans counts the plans that were computed, by application.
func plans(t *testing.T, s *System) map[string]uint64 {
	t.Helper()
	families, err := s.recorder.Gatherer().Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]uint64{}
	for _, f := range families {
		if f.GetName() == "fairlead_plan_duration_seconds" {
			for _, m := range f.GetMetric() {
				out[m.GetLabel()[0].GetValue()] = m.GetHistogram().GetSampleCount()
			}
		}
	}
	return out
}

// TestAPushPlansWhatItTouches holds that a push that touches one of many applications plans that one, and one that touches none
// plans none, though all are at the new commit then.
func TestAPushPlansWhatItTouches(t *testing.T) {
	h, r, s, _ := manyApplications(t)
	file, content := ownOf(117, 2)
	for _, c := range []struct {
		name, file, content string
		want                []string
	}{
		{"one", file, content, []string{"app-117"}},
		{"none", "README.md", "Hello\n", nil},
	} {
		before := plans(t, s)
		if len(before) != manyOf+1 {
			t.Fatalf("%d applications were planned", len(before))
		}
		head := r.commit(c.name, map[string]string{c.file: c.content})
		if err := s.fetchAll(t.Context(), nil); err != nil {
			t.Fatal(err)
		}
		h.settled(s, head)
		var planned []string
		for name, n := range plans(t, s) {
			if n > before[name] {
				planned = append(planned, name)
			}
		}
		slices.Sort(planned)
		if !slices.Equal(planned, c.want) {
			t.Errorf("a push that touches %s planned %d: %s", c.name, len(planned), strings.Join(planned[:min(5, len(planned))], ", "))
		}
	}
}

// TestAPreviewPlansWhatItTouches holds the same of a pull request.
func TestAPreviewPlansWhatItTouches(t *testing.T) {
	_, r, s, url := manyApplications(t)
	r.git("checkout", "-q", "-b", "feature")
	file, content := ownOf(117, 2)
	r.commit("One", map[string]string{file: content})
	p, err := s.Preview(t.Context(), api.PreviewRequest{Repository: []string{forge.Key(url)}, Base: "main", Head: "refs/heads/feature"})
	if err != nil {
		t.Fatal(err)
	}
	if len(p.Plan.Applications) != 1 || p.Plan.Applications[0].Name != "app-117" || p.Applications != manyOf+1 {
		t.Errorf("%d of %d applications differ", len(p.Plan.Applications), p.Applications)
	}
}
