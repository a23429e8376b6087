package applications

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairlead-dev/fairlead/plan"
)

// Annotations on a declaration that say what Flux and Argo CD have no field for.
const (
	ownPrefix     = "fairlead.dev/"
	maxShareNote  = ownPrefix + "prune-max-share"
	maxCountNote  = ownPrefix + "prune-max-count"
	rollbackNote  = ownPrefix + "rollback-on-failure"
	kindsNote     = ownPrefix + "approve-kinds"
	accountNote   = ownPrefix + "service-account"
	objectPrune   = ownPrefix + "prune" // about the declaration as an object of who declares it
	mostAllowed   = 1_000_000
	wholePercents = 100
)

// readOwn reads the product's own annotations and reports those that it does not know.
func readOwn(r *reporter, m meta, a *Application) {
	for _, name := range slices.Sorted(maps.Keys(m.Annotations)) {
		value, at := strings.TrimSpace(m.Annotations[name]), "metadata.annotations["+name+"]"
		switch name {
		case maxShareNote:
			a.MaxShare = number(r, at, strings.TrimSuffix(value, "%"), wholePercents)
		case maxCountNote:
			a.MaxCount = number(r, at, value, mostAllowed)
		case rollbackNote:
			switch value {
			case "true", "false":
				on := value == "true"
				a.RollbackOnFailure = &on
			default:
				r.error("invalid-value", at, fmt.Sprintf("%q is neither \"true\" nor \"false\"", value), "")
			}
		case accountNote:
			if a.ServiceAccount != "" {
				r.error("invalid-value", at, "spec.serviceAccountName says it already", "remove one of the two")
				continue
			}
			a.ServiceAccount = serviceAccount(r, at, a.Ref.Namespace, value)
		case kindsNote:
			for kind := range strings.SplitSeq(value, ",") {
				if kind = strings.TrimSpace(kind); !plan.IsKind(kind) {
					r.error("invalid-value", at, fmt.Sprintf("%q is no kind: write it like Secret, Deployment.apps or *.rbac.authorization.k8s.io", kind), "")
					continue
				}
				a.Approval.Kinds = append(a.Approval.Kinds, kind)
			}
		case plan.ApproveAnnotation:
			for digest := range strings.SplitSeq(value, ",") {
				if digest = strings.TrimSpace(digest); digest != "" {
					a.Approved = append(a.Approved, digest)
				}
			}
		case objectPrune, plan.SuspendAnnotation, plan.SuspendUntilAnnotation, plan.SuspendReasonAnnotation:
		case verifyModeNote, verifySecretNote:
			if r.ref.Kind != "Application" {
				r.warn("not-honoured", at, "is not honoured", "write spec.verify in the GitRepository")
			}
		default:
			if strings.HasPrefix(name, ownPrefix) {
				r.warn("not-honoured", at, "is not honoured", "see the annotations in docs/applications.md")
			}
		}
	}
	a.Labels = m.Labels
	readSuspension(r, m, a)
}

// serviceAccount returns a service account as NAMESPACE/NAME.
func serviceAccount(r *reporter, at, namespace, name string) string {
	if errs := validation.IsDNS1123Subdomain(name); len(errs) > 0 {
		r.error("invalid-value", at, fmt.Sprintf("%q is no name of a service account: %s", name, errs[0]), "it names one of the declaration's own namespace")
	}
	return or(namespace, "default") + "/" + name
}

// readSuspension reads how a declaration asks to be left as it is: by its field, which suspend is, or by annotations,
// which can also say until when and why.
func readSuspension(r *reporter, m meta, a *Application) {
	s, is, err := plan.SuspendedBy(m.Annotations)
	if err != nil {
		r.error("invalid-value", "metadata.annotations", err.Error(), "the application is suspended until this is put right")
	}
	a.Suspension = s
	a.Suspend = a.Suspend || is
}

// number returns a whole number from 0 to most, or nil with a finding.
func number(r *reporter, at, value string, most int) *int {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > most {
		r.error("invalid-value", at, fmt.Sprintf("%q is not a whole number from 0 to %d", value, most), "")
		return nil
	}
	return &n
}
