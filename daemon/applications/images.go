package applications

import (
	"fmt"
	"regexp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairlead-dev/fairlead/daemon/images"
	"github.com/fairlead-dev/fairlead/render/object"
)

const fluxImage = "image.toolkit.fluxcd.io"

// pullRequestNote asks, on an ImageUpdateAutomation with a branch of its own, for a pull request.
const pullRequestNote = ownPrefix + "pull-request"

const accessNote = "references across namespaces are allowed"

// imageRepositoryFields are those of image.toolkit.fluxcd.io/v1.
var imageRepositoryFields = []field{
	{path: "spec", kind: object_, use: honoured, required: true},
	{path: "spec.image", kind: text, use: honoured, required: true},
	{path: "spec.interval", kind: duration, use: honoured, required: true},
	{path: "spec.timeout", kind: duration, use: honoured},
	{path: "spec.secretRef", kind: object_, use: honoured},
	{path: "spec.secretRef.name", kind: text, use: honoured, required: true},
	{path: "spec.certSecretRef", kind: object_, use: honoured},
	{path: "spec.certSecretRef.name", kind: text, use: honoured, required: true},
	{path: "spec.exclusionList", kind: texts, use: honoured},
	{path: "spec.insecure", kind: boolean, use: honoured},
	{path: "spec.suspend", kind: boolean, use: honoured},
	{path: "spec.provider", kind: text, use: honoured, values: []string{"generic"}, note: cloudOnly},
	{path: "spec.serviceAccountName", kind: text, use: refused, note: "name the Secret with secretRef"},
	{path: "spec.accessFrom", kind: anything, use: warned, note: accessNote},
	{path: "spec.proxySecretRef", kind: anything, use: refused, note: "set HTTPS_PROXY for the daemon"},
}

// imagePolicyFields are those of image.toolkit.fluxcd.io/v1.
var imagePolicyFields = []field{
	{path: "spec", kind: object_, use: honoured, required: true},
	{path: "spec.imageRepositoryRef", kind: object_, use: honoured, required: true},
	{path: "spec.imageRepositoryRef.name", kind: text, use: honoured, required: true},
	{path: "spec.imageRepositoryRef.namespace", kind: text, use: honoured},
	{path: "spec.policy", kind: object_, use: honoured, required: true},
	{path: "spec.policy.semver", kind: object_, use: honoured},
	{path: "spec.policy.semver.range", kind: text, use: honoured, required: true},
	{path: "spec.policy.alphabetical", kind: object_, use: honoured},
	{path: "spec.policy.alphabetical.order", kind: text, use: honoured, values: []string{"asc", "desc"}},
	{path: "spec.policy.numerical", kind: object_, use: honoured},
	{path: "spec.policy.numerical.order", kind: text, use: honoured, values: []string{"asc", "desc"}},
	{path: "spec.filterTags", kind: object_, use: honoured},
	{path: "spec.filterTags.pattern", kind: text, use: honoured},
	{path: "spec.filterTags.extract", kind: text, use: honoured},
	{path: "spec.digestReflectionPolicy", kind: text, use: honoured, values: []string{"Never", "IfNotPresent", "Always"}},
	{path: "spec.interval", kind: duration, use: ignored, note: "a digest is looked at with the tags of its ImageRepository"},
	{path: "spec.suspend", kind: boolean, use: honoured},
}

// imageAutomationFields are those of ImageUpdateAutomation of image.toolkit.fluxcd.io/v1.
var imageAutomationFields = []field{
	{path: "spec", kind: object_, use: honoured, required: true},
	{path: "spec.sourceRef", kind: object_, use: honoured, required: true},
	{path: "spec.sourceRef.apiVersion", kind: text, use: ignored},
	{path: "spec.sourceRef.kind", kind: text, use: honoured, required: true, values: []string{"GitRepository"}},
	{path: "spec.sourceRef.name", kind: text, use: honoured, required: true},
	{path: "spec.sourceRef.namespace", kind: text, use: honoured},
	{path: "spec.interval", kind: duration, use: honoured, required: true},
	{path: "spec.git", kind: object_, use: honoured, required: true},
	{path: "spec.git.checkout", kind: object_, use: honoured},
	{path: "spec.git.checkout.ref", kind: object_, use: honoured, required: true},
	{path: "spec.git.checkout.ref.branch", kind: text, use: honoured},
	{path: "spec.git.checkout.ref.tag", kind: text, use: honoured},
	{path: "spec.git.checkout.ref.semver", kind: text, use: honoured},
	{path: "spec.git.checkout.ref.name", kind: text, use: honoured},
	{path: "spec.git.checkout.ref.commit", kind: text, use: honoured},
	{path: "spec.git.commit", kind: object_, use: honoured, required: true},
	{path: "spec.git.commit.author", kind: object_, use: honoured, required: true},
	{path: "spec.git.commit.author.name", kind: text, use: honoured},
	{path: "spec.git.commit.author.email", kind: text, use: honoured, required: true},
	{path: "spec.git.commit.messageTemplate", kind: text, use: honoured},
	{path: "spec.git.commit.messageTemplateValues", kind: textMap, use: honoured},
	{path: "spec.git.commit.signingKey", kind: object_, use: honoured},
	{path: "spec.git.commit.signingKey.secretRef", kind: object_, use: honoured, required: true},
	{path: "spec.git.commit.signingKey.secretRef.name", kind: text, use: honoured, required: true},
	{path: "spec.git.push", kind: object_, use: honoured},
	{path: "spec.git.push.branch", kind: text, use: honoured},
	{path: "spec.git.push.refspec", kind: text, use: refused, note: "write push.branch"},
	{path: "spec.git.push.options", kind: textMap, use: refused, note: "no push options are sent; for a pull request use the annotation fairlead.dev/pull-request"},
	{path: "spec.policySelector", kind: object_, use: honoured},
	{path: "spec.policySelector.matchLabels", kind: textMap, use: honoured},
	{path: "spec.policySelector.matchExpressions", kind: objects, use: honoured},
	{path: "spec.policySelector.matchExpressions[].key", kind: text, use: honoured, required: true},
	{path: "spec.policySelector.matchExpressions[].operator", kind: text, use: honoured, required: true},
	{path: "spec.policySelector.matchExpressions[].values", kind: texts, use: honoured},
	{path: "spec.update", kind: object_, use: honoured},
	{path: "spec.update.strategy", kind: text, use: honoured, values: []string{"Setters"}},
	{path: "spec.update.path", kind: text, use: honoured},
	{path: "spec.suspend", kind: boolean, use: honoured},
}

// imageTables are the tables of the kinds of images.
func imageTables() map[string]*node {
	return map[string]*node{
		"ImageRepository":       tree(metadataFields, imageRepositoryFields),
		"ImagePolicy":           tree(metadataFields, imagePolicyFields),
		"ImageUpdateAutomation": tree(metadataFields, imageAutomationFields),
	}
}

// readImage reads an object about images. One with a mistake is left out, and said so.
func (rd *reader) readImage(d declaration) {
	r := d.report
	table := rd.images[d.Kind]
	var suspended bool
	switch d.Kind {
	case "ImageRepository":
		x, m := rd.imageRepository(d, table)
		x.Requested, suspended = readAnnotations(r, m)
		if x.Suspend = x.Suspend || suspended; !r.list.HasErrors() {
			rd.out.Images.Repositories = append(rd.out.Images.Repositories, x)
		}
	case "ImagePolicy":
		x, m := imagePolicy(d, table)
		x.Labels = m.Labels
		if !r.list.HasErrors() {
			rd.out.Images.Policies = append(rd.out.Images.Policies, x)
		}
	default:
		x, m := imageAutomation(d, table)
		x.Requested, suspended = readAnnotations(r, m)
		if x.Suspend = x.Suspend || suspended; !r.list.HasErrors() {
			rd.out.Images.Automations = append(rd.out.Images.Automations, x)
		}
	}
	rd.loose = append(rd.loose, r.list...)
}

func (rd *reader) imageRepository(d declaration, table *node) (images.Repository, meta) {
	var x struct {
		Metadata meta `json:"metadata"`
		Spec     struct {
			Image         string   `json:"image"`
			Interval      string   `json:"interval"`
			Timeout       string   `json:"timeout"`
			SecretRef     nameRef  `json:"secretRef"`
			CertSecretRef nameRef  `json:"certSecretRef"`
			ExclusionList []string `json:"exclusionList"`
			Insecure      bool     `json:"insecure"`
			Suspend       bool     `json:"suspend"`
		} `json:"spec"`
	}
	r := d.report
	decode(r, table, d.content, &x)
	out := images.Repository{
		Ref: d.Ref, Image: x.Spec.Image, Interval: period(r, "spec.interval", x.Spec.Interval), Timeout: period(r, "spec.timeout", x.Spec.Timeout),
		Insecure: x.Spec.Insecure, Suspend: x.Spec.Suspend, Exclude: x.Spec.ExclusionList,
	}
	if out.Timeout == 0 {
		out.Timeout = time.Minute
	}
	if _, err := images.ParseRepository(x.Spec.Image); x.Spec.Image != "" && err != nil {
		r.error("invalid-value", "spec.image", err.Error(), "write it like registry.example.org/team/app")
	}
	if out.Exclude == nil {
		out.Exclude = []string{`^.*\.sig$`}
	}
	for i, e := range out.Exclude {
		if _, err := regexp.Compile(e); err != nil {
			r.error("invalid-value", fmt.Sprintf("spec.exclusionList[%d]", i), fmt.Sprintf("%q is not a regular expression", e), "")
		}
	}
	secret := func(at, name string) object.Ref {
		if name == "" {
			return object.Ref{}
		}
		if _, ok := rd.secrets(d.Namespace, name); !ok {
			r.error("unknown-reference", at, fmt.Sprintf("there is no Secret %s/%s", d.Namespace, name), "declare it beside the ImageRepository, or put it into configDir of the settings")
		}
		return object.Ref{Kind: "Secret", Namespace: d.Namespace, Name: name}
	}
	out.Secret, out.CertSecret = secret("spec.secretRef.name", x.Spec.SecretRef.Name), secret("spec.certSecretRef.name", x.Spec.CertSecretRef.Name)
	return out, x.Metadata
}

func imagePolicy(d declaration, table *node) (images.Choice, meta) {
	type order struct {
		Order images.Order `json:"order"`
	}
	var x struct {
		Metadata meta `json:"metadata"`
		Spec     struct {
			ImageRepositoryRef struct {
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"imageRepositoryRef"`
			Policy struct {
				SemVer *struct {
					Range string `json:"range"`
				} `json:"semver"`
				Alphabetical *order `json:"alphabetical"`
				Numerical    *order `json:"numerical"`
			} `json:"policy"`
			FilterTags struct {
				Pattern string `json:"pattern"`
				Extract string `json:"extract"`
			} `json:"filterTags"`
			Digest  images.Reflection `json:"digestReflectionPolicy"`
			Suspend bool              `json:"suspend"`
		} `json:"spec"`
	}
	r := d.report
	decode(r, table, d.content, &x)
	out := images.Choice{
		Ref: d.Ref, Digest: images.Reflection(or(string(x.Spec.Digest), string(images.Never))), Suspend: x.Spec.Suspend,
		Repository: object.Ref{Group: fluxImage, Kind: "ImageRepository", Namespace: or(x.Spec.ImageRepositoryRef.Namespace, d.Namespace), Name: x.Spec.ImageRepositoryRef.Name},
		Policy:     images.Policy{Pattern: x.Spec.FilterTags.Pattern, Extract: x.Spec.FilterTags.Extract},
	}
	if s := x.Spec.Policy.SemVer; s != nil {
		out.Policy.SemVer = s.Range
	}
	if o := x.Spec.Policy.Alphabetical; o != nil {
		out.Policy.Alphabetical = images.Order(or(string(o.Order), string(images.Ascending)))
	}
	if o := x.Spec.Policy.Numerical; o != nil {
		out.Policy.Numerical = images.Order(or(string(o.Order), string(images.Ascending)))
	}
	if err := out.Policy.Check(); err != nil && !r.list.HasErrors() {
		r.error("invalid-value", "spec.policy", err.Error(), "")
	}
	return out, x.Metadata
}

func imageAutomation(d declaration, table *node) (images.Automation, meta) {
	var x struct {
		Metadata meta `json:"metadata"`
		Spec     struct {
			SourceRef struct {
				Kind      string `json:"kind"`
				Name      string `json:"name"`
				Namespace string `json:"namespace"`
			} `json:"sourceRef"`
			Interval string `json:"interval"`
			Git      struct {
				Checkout struct {
					Ref struct {
						Branch string `json:"branch"`
						Tag    string `json:"tag"`
						SemVer string `json:"semver"`
						Name   string `json:"name"`
						Commit string `json:"commit"`
					} `json:"ref"`
				} `json:"checkout"`
				Commit struct {
					Author struct {
						Name  string `json:"name"`
						Email string `json:"email"`
					} `json:"author"`
					MessageTemplate       string            `json:"messageTemplate"`
					MessageTemplateValues map[string]string `json:"messageTemplateValues"`
					SigningKey            struct {
						SecretRef nameRef `json:"secretRef"`
					} `json:"signingKey"`
				} `json:"commit"`
				Push struct {
					Branch string `json:"branch"`
				} `json:"push"`
			} `json:"git"`
			PolicySelector *metav1.LabelSelector `json:"policySelector"`
			Update         struct {
				Path string `json:"path"`
			} `json:"update"`
			Suspend bool `json:"suspend"`
		} `json:"spec"`
	}
	r := d.report
	decode(r, table, d.content, &x)
	g := x.Spec.Git
	out := images.Automation{
		Ref: d.Ref, Interval: period(r, "spec.interval", x.Spec.Interval), Suspend: x.Spec.Suspend,
		Branch: g.Checkout.Ref.Branch, Tag: g.Checkout.Ref.Tag, SemVer: g.Checkout.Ref.SemVer, RefName: g.Checkout.Ref.Name, Commit: g.Checkout.Ref.Commit,
		Push: g.Push.Branch, Name: or(g.Commit.Author.Name, "fairlead"), Email: g.Commit.Author.Email, Message: g.Commit.MessageTemplate, MessageValues: g.Commit.MessageTemplateValues,
	}
	out.Path, _ = inside(r, "spec.update.path", x.Spec.Update.Path)
	if name := g.Commit.SigningKey.SecretRef.Name; name != "" {
		out.SigningKey = object.Ref{Kind: "Secret", Namespace: d.Namespace, Name: name}
	}
	if x.Spec.PolicySelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(x.Spec.PolicySelector)
		if err != nil {
			r.error("invalid-value", "spec.policySelector", err.Error(), "")
			selector = labels.Nothing()
		}
		out.Selector = selector
	}
	if err := out.CheckMessage(); err != nil {
		r.error("invalid-value", "spec.git.commit.messageTemplate", err.Error(), "templates have .AutomationObject, .Changed.Changes, .Changed.FileChanges and .Values")
	}
	switch v := x.Metadata.Annotations[pullRequestNote]; v {
	case "", "false":
	case "true":
		out.PullRequest = true
		if out.Push == "" {
			r.error("missing-field", "spec.git.push.branch", "is missing, and a pull request is asked for", "name the branch that it is from")
		}
	default:
		r.error("invalid-value", "metadata.annotations["+pullRequestNote+"]", fmt.Sprintf("%q is neither \"true\" nor \"false\"", v), "")
	}
	// Whether it may be written to, who declared it decides.
	out.Source = shownName(or(x.Spec.SourceRef.Namespace, d.Namespace), x.Spec.SourceRef.Name)
	out.Origin = d.Origin
	return out, x.Metadata
}
