// Package webhook reads what Git hosting services and image registries send by themselves: it recognises a delivery, proves that it is from
// who knows the secret, and says what it is about. A delivery is a hint to look, and nothing in it is believed.
//
// The order is fixed: what the headers say is checked before the body is read, the body is proved before it is parsed,
// and all bytes are compared in constant time.
package webhook

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// Endpoint is where deliveries of one forge arrive.
type Endpoint struct {
	// Forge is who delivers: a forge, or one of Registries.
	Forge forge.Kind
	// Secrets prove a delivery; one is enough, so that they can be replaced one after the other.
	Secrets []string
	// Username is the one of basic authentication, for Azure DevOps.
	Username string
}

// Check returns what keeps an endpoint from proving anything.
func (e Endpoint) Check() error {
	if len(e.Secrets) == 0 {
		return fmt.Errorf("a hook of %s needs a secret: without one anybody could send deliveries", e.Forge)
	}
	for _, s := range e.Secrets {
		if strings.TrimSpace(s) == "" {
			return fmt.Errorf("the secret of the hook of %s is empty: write a random one of 32 characters or so, here and in the forge", e.Forge)
		}
		if _, err := signingKey(s); err != nil {
			return fmt.Errorf("the secret of the hook of %s begins with %s and is no signing token: %w", e.Forge, signingPrefix, err)
		}
	}
	if e.Forge == forge.AzureDevOps && e.Username == "" {
		return errors.New("a hook of Azure DevOps is proved by basic authentication: set its username too")
	}
	return nil
}

// Code is why a delivery is rejected, as one word.
type Code string

// The codes.
const (
	Unrecognised Code = "unrecognised" // no forge sends such headers, or it is another than the endpoint's
	Unsigned     Code = "unsigned"     // the proof is missing
	BadSignature Code = "signature"    // the proof is wrong
	Stale        Code = "stale"        // it was signed too long ago, or in the future
	Malformed    Code = "malformed"    // it is proved, and cannot be understood
)

// Rejection is why a delivery does nothing. It says nothing that a stranger may not know.
type Rejection struct {
	Code   Code
	Reason string
}

// Error implements error.
func (r *Rejection) Error() string { return r.Reason }

func reject(code Code, format string, args ...any) *Rejection {
	return &Rejection{code, fmt.Sprintf(format, args...)}
}

// Recognise returns the forge that sends such headers; empty for none. Gitea sends GitHub's headers too, and Forgejo
// Gitea's, so the order matters. Azure DevOps has none of its own.
func Recognise(h http.Header) forge.Kind {
	has := func(name string) bool { return h.Get(name) != "" }
	switch {
	case has("X-Forgejo-Event"):
		return forge.Forgejo
	case has("X-Gitea-Event"):
		return forge.Gitea
	case has("X-Gitlab-Event"):
		return forge.GitLab
	case has("X-Event-Key") && (has("X-Hook-Uuid") || has("X-Request-Uuid")):
		return forge.Bitbucket
	case has("X-Event-Key"):
		return forge.BitbucketServer
	case has("X-Github-Event"):
		return forge.GitHub
	case has("X-Signature"), has("Webhook-Signature"):
		return forge.Generic
	case strings.HasPrefix(h.Get("Authorization"), "Basic "):
		return forge.AzureDevOps
	}
	return ""
}

// Before checks what can be checked before the body is read: that the delivery is from the endpoint's forge, and that
// it has a proof.
func (e Endpoint) Before(h http.Header) *Rejection {
	if e.IsRegistry() {
		return e.registryBefore(h)
	}
	switch kind := Recognise(h); {
	case kind == "":
		return reject(Unrecognised, "no forge sends such headers; this endpoint is for %s", e.Forge)
	case kind != e.Forge:
		return reject(Unrecognised, "this is a delivery of %s, and this endpoint is for %s", kind, e.Forge)
	}
	return e.proofBefore(h)
}

// Verify proves the body with one of the secrets. Before has passed.
func (e Endpoint) Verify(h http.Header, body []byte, now time.Time) *Rejection {
	if e.IsRegistry() {
		return e.registryProof(h, body)
	}
	return e.proof(h, body, now)
}

// Parse reads a proved delivery. The error is a *Rejection.
func (e Endpoint) Parse(h http.Header, body []byte) (forge.Event, error) {
	read := parse
	if e.IsRegistry() {
		read = registryEvent
	}
	ev, err := read(e.Forge, h, body)
	if err != nil {
		return forge.Event{}, reject(Malformed, "%s", wrong(err))
	}
	ev.Forge = e.Forge
	if ev.Delivery == "" {
		ev.Delivery = plain(deliveryID(e.Forge, h))
	}
	return ev, nil
}

func parse(kind forge.Kind, h http.Header, body []byte) (forge.Event, error) {
	var ev forge.Event
	var err error
	switch kind {
	case forge.GitHub:
		ev, err = hub(h.Get("X-Github-Event"), body)
	case forge.Gitea:
		ev, err = hub(h.Get("X-Gitea-Event"), body)
	case forge.Forgejo:
		ev, err = hub(h.Get("X-Forgejo-Event"), body)
	case forge.GitLab:
		ev, err = gitLab(body)
	case forge.Bitbucket:
		ev, err = bitbucket(h.Get("X-Event-Key"), body)
	case forge.BitbucketServer:
		ev, err = bitbucketServer(h.Get("X-Event-Key"), body)
	case forge.AzureDevOps:
		ev, err = azure(body)
	case forge.Generic:
		ev, err = generic(body)
	default:
		err = fmt.Errorf("%q is no forge", string(kind))
	}
	if err != nil {
		return forge.Event{}, err
	}
	switch ev = clean(ev); {
	case ev.Kind == forge.Ping || ev.Kind == forge.Ignored:
	case ev.Repository.Path == "" && len(ev.Repository.URLs) == 0:
		return forge.Event{}, errors.New("the delivery names no repository")
	case ev.Kind.IsPullRequest() && ev.PullRequest <= 0:
		return forge.Event{}, errors.New("the delivery names no pull request")
	}
	return ev, nil
}

// deliveryID is what tells a delivery from others.
func deliveryID(kind forge.Kind, h http.Header) string {
	for _, name := range map[forge.Kind][]string{
		forge.GitHub: {"X-Github-Delivery"}, forge.Gitea: {"X-Gitea-Delivery"}, forge.Forgejo: {"X-Forgejo-Delivery"},
		forge.GitLab: {"Webhook-Id", "Idempotency-Key"}, forge.Bitbucket: {"X-Request-Uuid"}, forge.BitbucketServer: {"X-Request-Id"},
		forge.Generic: {"Webhook-Id", "X-Delivery"},
	}[kind] {
		if id := h.Get(name); id != "" {
			return id
		}
	}
	return ""
}

// decode reads the fields that matter. Others may be missing, null, or of any type.
func decode(body []byte, into any) error {
	return json.Unmarshal(body, into)
}

// wrong says what cannot be understood, without what is in it.
func wrong(err error) string {
	var t *json.UnmarshalTypeError
	var s *json.SyntaxError
	switch {
	case errors.As(err, &t):
		kind, _, _ := strings.Cut(t.Value, " ")
		return fmt.Sprintf("the field %s is a JSON %s", t.Field, kind)
	case errors.As(err, &s):
		return fmt.Sprintf("the body is not JSON: byte %d", s.Offset)
	}
	return err.Error()
}

const (
	longest = 512 // characters of one field
	most    = 20  // URLs of a repository
)

// clean bounds what is handed on.
func clean(ev forge.Event) forge.Event {
	for _, s := range []*string{&ev.Delivery, &ev.Repository.Path, &ev.Ref, &ev.Before, &ev.After, &ev.Sender, &ev.Comment.ID, &ev.Comment.Author} {
		*s = plain(*s)
	}
	ev.Repository.URLs = ev.Repository.URLs[:min(len(ev.Repository.URLs), most)]
	return ev
}

// plain is a field without control characters, empty when it is too long to be meant.
func plain(s string) string {
	if len(s) > longest {
		return ""
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return -1
		}
		return r
	}, s)
}

// urls are those of values that are not empty.
func urls(values ...string) []string {
	var out []string
	for _, v := range values {
		if v != "" && len(v) <= 4096 {
			out = append(out, v)
		}
	}
	return out
}

// moved returns Pushed or Tagged, as a reference is.
func moved(ref string) forge.EventKind {
	if strings.HasPrefix(ref, "refs/tags/") {
		return forge.Tagged
	}
	return forge.Pushed
}

// commanded makes an event of a comment a Commanded one, or one to ignore.
func commanded(ev forge.Event, id, author, body string) forge.Event {
	words, ok := forge.ParseCommand(body)
	if !ok || author == "" || id == "" || id == "0" {
		return forge.Event{Kind: forge.Ignored}
	}
	ev.Kind, ev.Comment = forge.Commanded, forge.CommentRef{ID: id, Author: author, Command: words}
	return ev
}

// once names a command by its comment; it is empty for other events.
func once(ev forge.Event) string {
	if ev.Kind != forge.Commanded {
		return ""
	}
	return string(ev.Forge) + " comment " + strings.Join(ev.Repository.Keys(nil), " ") + " " + ev.Comment.ID
}
