package applications

import (
	"fmt"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/git/signature"
)

// Annotations of an Argo CD Application, which has no field for it: in Argo CD the project says who has to sign.
const (
	verifyModeNote   = ownPrefix + "verify-mode"
	verifySecretNote = ownPrefix + "verify-secret"
)

// verification returns what is asked for, and reports keys that cannot be read.
func (rd *reader) verification(r *reporter, at, mode string, from Ref) Verification {
	v := Verification{Mode: mode, SecretRef: from}
	if from.Name == "" {
		return v // reported
	}
	data, ok := rd.secrets(from.Namespace, from.Name)
	if !ok {
		r.error("unknown-reference", at+".secretRef.name", "there is no "+from.String(), "declare it beside this, or put it into configDir of the settings")
		return v
	}
	_, other, err := signature.Parse(data)
	if err != nil {
		r.error("invalid-value", at+".secretRef.name", fmt.Sprintf("the public keys in %s cannot be used: %s", from, strings.ReplaceAll(err.Error(), "\n", "; ")), "")
	}
	for _, name := range other {
		r.warn("not-honoured", at+".secretRef.name", fmt.Sprintf("the key %s of %s holds no public key", name, from), "")
	}
	return v
}

// checkMode reports a mode that the reference cannot fulfil.
func checkMode(r *reporter, at, mode string, g Repository) {
	tag := g.Tag != "" || g.SemVer != "" || strings.HasPrefix(g.RefName, "refs/tags/")
	if g.Commit != "" || g.RefName != "" && !strings.HasPrefix(g.RefName, "refs/tags/") {
		tag = false // it counts before the others
	}
	if mode != "HEAD" && !tag && g.Revision == "" {
		r.error("invalid-value", at, fmt.Sprintf("%s asks for the signature of a tag, and no tag is followed", mode), "follow a tag or a range of versions, or write HEAD")
	}
}

// argoVerification reads the annotations that say who has to sign the revisions of an Application's sources.
func (rd *reader) argoVerification(r *reporter, namespace string, m meta) Verification {
	mode, secret := m.Annotations[verifyModeNote], m.Annotations[verifySecretNote]
	at := func(name string) string { return "metadata.annotations[" + name + "]" }
	switch {
	case mode == "" && secret == "":
		return Verification{}
	case secret == "":
		r.error("missing-field", at(verifySecretNote), "is missing beside "+verifyModeNote, "name the Secret with the public keys of who may sign")
	case mode != "" && mode != "HEAD" && mode != "Tag" && mode != "TagAndHEAD":
		r.error("invalid-value", at(verifyModeNote), fmt.Sprintf("%q is not one of HEAD, Tag, TagAndHEAD", mode), "")
		mode = "TagAndHEAD" // nothing less than what may have been meant
	}
	return rd.verification(r, "metadata.annotations["+verifySecretNote+"]", or(mode, "HEAD"), Ref{Kind: "Secret", Namespace: namespace, Name: secret})
}
