package applications

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestDocumented keeps the tables of docs/applications.md what the code says. The text before them is
// written by hand.
func TestDocumented(t *testing.T) {
	const file, mark = "../../docs/applications.md", "<!-- The tables below are made from the code: go test ./daemon/applications -update -->\n"
	page, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text, _, ok := strings.Cut(string(page), mark)
	if !ok {
		t.Fatalf("%s has lost the line %q", file, mark)
	}
	var b strings.Builder
	b.WriteString(text + mark)
	for _, section := range []struct {
		title string
		rows  []field
	}{
		{"GitRepository (source.toolkit.fluxcd.io/v1)", gitRepositoryFields},
		{"GitRepository, only in v1beta2", gitRepositoryBetaFields},
		{"Kustomization (kustomize.toolkit.fluxcd.io/v1)", kustomizationFields},
		{"Kustomization, only in v1beta2", kustomizationBetaFields},
		{"Application (argoproj.io/v1alpha1)", argoFields},
		{"ImageRepository (image.toolkit.fluxcd.io/v1 and v1beta2)", imageRepositoryFields},
		{"ImagePolicy (image.toolkit.fluxcd.io/v1 and v1beta2)", imagePolicyFields},
		{"ImageUpdateAutomation (image.toolkit.fluxcd.io/v1 and v1beta2)", imageAutomationFields},
		{"Application: a source, below spec.source or spec.sources[]", argoSourceFields},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n| Field | What becomes of it | Note |\n| --- | --- | --- |\n", section.title)
		for _, f := range section.rows {
			fmt.Fprintf(&b, "| `%s` | %s | %s |\n", f.path, becomes(f), note(f))
		}
	}
	if *update {
		if err := os.WriteFile(file, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(page), b.String()); diff != "" {
		t.Errorf("%s is not what the code says; run with -update (-page +code)\n%s", file, diff)
	}
}

func becomes(f field) string {
	switch f.use {
	case honoured:
		if f.required {
			return "works, required"
		}
		return "works"
	case ignored:
		return "no meaning here"
	case warned:
		return "no effect, reported"
	case refused:
		return "refused"
	}
	return string(f.use)
}

func note(f field) string {
	s := f.note
	if len(f.values) > 0 {
		s = strings.TrimPrefix(s+"; ", "; ") + "one of `" + strings.Join(f.values, "`, `") + "`"
	}
	return strings.ReplaceAll(s, "|", "\\|")
}
