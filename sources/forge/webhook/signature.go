package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"hash"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

const (
	// signingPrefix begins the secrets of the Standard Webhooks specification, which GitLab calls signing tokens.
	signingPrefix = "whsec_"
	// tolerance is how old a signed timestamp may be, and how far in the future. Deliveries that are older are replays.
	tolerance = 5 * time.Minute
	// maxSignatures of one delivery are tried.
	maxSignatures = 8
)

// signingKey returns the key of a signing token, nil for other secrets.
func signingKey(secret string) ([]byte, error) {
	text, ok := strings.CutPrefix(secret, signingPrefix)
	if !ok {
		return nil, nil
	}
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		key, err = base64.RawStdEncoding.DecodeString(text)
	}
	if err != nil || len(key) < 16 {
		return nil, errors.New("it must be base64 of 16 bytes or more")
	}
	return key, nil
}

// signed reports whether a secret is a signing token.
func signed(secret string) bool { return strings.HasPrefix(secret, signingPrefix) }

// anySecret reports whether one of the secrets fits. All are tried, so that time does not tell which one does.
func (e Endpoint) anySecret(fits func(secret string) int) bool {
	found := 0
	for _, s := range e.Secrets {
		found |= fits(s)
	}
	return found == 1
}

// standard reports whether one of the secrets is a signing token.
func (e Endpoint) standard() bool {
	for _, s := range e.Secrets {
		if signed(s) {
			return true
		}
	}
	return false
}

// proofBefore checks the part of the proof that needs no body.
func (e Endpoint) proofBefore(h http.Header) *Rejection {
	missing := func(name string) *Rejection {
		if h.Get(name) == "" {
			return reject(Unsigned, "the delivery is not signed: the header %s is missing; set the same secret in %s and in the file of this hook", name, e.Forge)
		}
		return nil
	}
	switch e.Forge {
	case forge.GitHub:
		if h.Get("X-Hub-Signature-256") == "" && h.Get("X-Hub-Signature") != "" {
			return reject(Unsigned, "the delivery is signed with SHA-1 only, which proves little: the header X-Hub-Signature-256 is missing")
		}
		return missing("X-Hub-Signature-256")
	case forge.Gitea:
		return missing("X-Gitea-Signature")
	case forge.Forgejo:
		return missing("X-Forgejo-Signature")
	case forge.Bitbucket, forge.BitbucketServer:
		return missing("X-Hub-Signature")
	case forge.Generic:
		if h.Get("Webhook-Signature") != "" {
			return nil
		}
		return missing("X-Signature")
	case forge.GitLab:
		return e.gitLabBefore(h)
	case forge.AzureDevOps:
		return e.basic(h)
	}
	return reject(Unrecognised, "this endpoint is for no forge")
}

// proof checks the part of the proof that is about the body.
func (e Endpoint) proof(h http.Header, body []byte, now time.Time) *Rejection {
	ok := false
	switch e.Forge {
	case forge.GitHub:
		ok = e.hexSignature(sha256.New, h.Get("X-Hub-Signature-256"), "sha256=", body)
	case forge.Gitea:
		ok = e.hexSignature(sha256.New, h.Get("X-Gitea-Signature"), "", body)
	case forge.Forgejo:
		ok = e.hexSignature(sha256.New, h.Get("X-Forgejo-Signature"), "", body)
	case forge.Bitbucket, forge.BitbucketServer:
		ok = e.hexSignature(sha256.New, h.Get("X-Hub-Signature"), "sha256=", body)
	case forge.Generic:
		if h.Get("Webhook-Signature") != "" {
			return e.standardSignature(h, body, now)
		}
		value := h.Get("X-Signature")
		ok = e.hexSignature(sha256.New, value, "sha256=", body)
		if strings.HasPrefix(value, "sha512=") {
			ok = e.hexSignature(sha512.New, value, "sha512=", body)
		}
	case forge.GitLab:
		if e.standard() && h.Get("Webhook-Signature") != "" {
			return e.standardSignature(h, body, now)
		}
		return e.gitLabBefore(h)
	case forge.AzureDevOps:
		return e.basic(h)
	}
	if !ok {
		return reject(BadSignature, "the signature is wrong: the secret in %s and the one of this hook differ, or the body was changed on its way", e.Forge)
	}
	return nil
}

// hexSignature reports whether value is prefix and the HMAC of the body in hexadecimal.
func (e Endpoint) hexSignature(of func() hash.Hash, value, prefix string, body []byte) bool {
	text, ok := strings.CutPrefix(value, prefix)
	given, err := hex.DecodeString(text)
	if !ok || err != nil {
		return false
	}
	return e.anySecret(func(secret string) int {
		if signed(secret) {
			return 0
		}
		return equal(given, sum(of, []byte(secret), body))
	})
}

// gitLabBefore compares the token that GitLab sends as it is. A signature is proved with the body.
func (e Endpoint) gitLabBefore(h http.Header) *Rejection {
	token := h.Get("X-Gitlab-Token")
	switch {
	case e.standard() && h.Get("Webhook-Signature") != "":
		return nil
	case token == "":
		return reject(Unsigned, "the delivery has neither a token nor a signature that this hook knows: set the same secret token in GitLab and in the file of this hook")
	case e.anySecret(func(secret string) int {
		if signed(secret) {
			return 0
		}
		return equalText(token, secret)
	}):
		return nil
	}
	return reject(BadSignature, "the token is wrong: the secret token in GitLab and the one of this hook differ")
}

// standardSignature proves a delivery as the Standard Webhooks specification has it: the HMAC of id, time and body.
func (e Endpoint) standardSignature(h http.Header, body []byte, now time.Time) *Rejection {
	id, at := h.Get("Webhook-Id"), h.Get("Webhook-Timestamp")
	if id == "" || at == "" {
		return reject(Unsigned, "the delivery is signed without an id or a time: webhook-id or webhook-timestamp is missing")
	}
	mac := func(key []byte) []byte { return sum(sha256.New, key, []byte(id+"."+at+"."), body) }
	given := strings.Fields(h.Get("Webhook-Signature"))
	ok := e.anySecret(func(secret string) int {
		key, err := signingKey(secret)
		if err != nil || key == nil {
			return 0
		}
		found := 0
		for _, s := range given[:min(len(given), maxSignatures)] {
			text, v1 := strings.CutPrefix(s, "v1,")
			b, err := base64.StdEncoding.DecodeString(text)
			if v1 && err == nil {
				found |= equal(b, mac(key))
			}
		}
		return found
	})
	if !ok {
		return reject(BadSignature, "the signature is wrong: the signing token in %s and the one of this hook differ, or the delivery was changed on its way", e.Forge)
	}
	seconds, err := strconv.ParseInt(at, 10, 64)
	if age := now.Sub(time.Unix(seconds, 0)); err != nil || age > tolerance || age < -tolerance {
		return reject(Stale, "the delivery was signed more than %s ago, or in the future: it is sent again by somebody, or a clock is wrong", tolerance)
	}
	return nil
}

// basic compares a name and a password.
func (e Endpoint) basic(h http.Header) *Rejection {
	r := http.Request{Header: h}
	user, password, ok := r.BasicAuth()
	if !ok {
		return reject(Unsigned, "the delivery has no basic authentication: set user name and password in %s", e.Forge)
	}
	known := equalText(user, e.Username)
	fits := e.anySecret(func(secret string) int { return equalText(password, secret) })
	if known&boolean(fits) != 1 {
		return reject(BadSignature, "the user name or the password is wrong")
	}
	return nil
}

func sum(of func() hash.Hash, key []byte, parts ...[]byte) []byte {
	m := hmac.New(of, key)
	for _, p := range parts {
		m.Write(p)
	}
	return m.Sum(nil)
}

// equal compares in constant time; 1 means equal.
func equal(a, b []byte) int { return subtle.ConstantTimeCompare(a, b) }

// equalText compares in a time that does not tell how long the secret is.
func equalText(a, b string) int {
	x, y := sha256.Sum256([]byte(a)), sha256.Sum256([]byte(b))
	return equal(x[:], y[:])
}

func boolean(b bool) int {
	if b {
		return 1
	}
	return 0
}
