package forge

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// authorizer adds credentials to requests.
type authorizer interface {
	authorize(ctx context.Context, r *http.Request, repo string) error
	// renew forgets what the service refused, and reports whether there may be another now.
	renew(repo string) bool
}

func newAuthorizer(c *client) (authorizer, error) {
	switch {
	case c.config.App != nil && c.config.Kind != GitHub:
		return nil, fmt.Errorf("%s has no GitHub Apps: use a token", c.config.Kind)
	case c.config.App != nil && c.config.Token != nil:
		return nil, errors.New("a GitHub App needs no token: leave one of them out")
	case c.config.App != nil:
		key, err := readKey(c.config.App.Key)
		if err != nil {
			return nil, err
		}
		if c.config.App.ID <= 0 && c.config.App.ClientID == "" {
			return nil, errors.New("a GitHub App needs its id")
		}
		return &appAuth{client: c, app: *c.config.App, key: key, tokens: map[int64]*appToken{}, installations: map[string]int64{}}, nil
	case c.config.Token != nil:
		return &tokenAuth{client: c}, nil
	}
	return noAuth{}, nil
}

// noAuth asks for what is public.
type noAuth struct{}

func (noAuth) authorize(context.Context, *http.Request, string) error { return nil }
func (noAuth) renew(string) bool                                      { return false }

// tokenAuth sends a token or a password.
type tokenAuth struct{ client *client }

func (a *tokenAuth) authorize(_ context.Context, r *http.Request, _ string) error {
	token, err := a.client.config.Token()
	if err != nil {
		return fmt.Errorf("read the token of %s: %w", a.client.config.Kind, err)
	}
	if token == "" || strings.ContainsAny(token, "\r\n\x00") {
		return fmt.Errorf("the token of %s is empty or has several lines", a.client.config.Kind)
	}
	switch kind := a.client.config.Kind; {
	case a.client.config.Username != "":
		r.SetBasicAuth(a.client.config.Username, token)
	case kind == AzureDevOps && strings.Count(token, ".") != 2: // a personal token; one of Entra ID is a JWT
		r.SetBasicAuth("", token)
	case kind == Gitea || kind == Forgejo:
		r.Header.Set("Authorization", "token "+token)
	default:
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return nil
}

// renew implements authorizer: the token was read a moment ago.
func (a *tokenAuth) renew(string) bool { return false }

// App is a GitHub App.
type App struct {
	// ID is its number; ClientID is taken instead where it is set, as GitHub recommends.
	ID       int64
	ClientID string
	// Installation is the number of the installation. 0 asks GitHub which one a repository belongs to.
	Installation int64
	// Key is a private key of the app in PEM.
	Key []byte
}

func readKey(b []byte) (*rsa.PrivateKey, error) {
	block, _ := pem.Decode(b)
	if block == nil {
		return nil, errors.New("the key of the GitHub App is not in PEM: use the file that GitHub gave when it was made")
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if k, ok := key.(*rsa.PrivateKey); err == nil && ok {
		return k, nil
	}
	return nil, errors.New("the key of the GitHub App is no RSA key: use the file that GitHub gave when it was made")
}

// appAuth gets tokens of installations, and new ones before they expire.
type appAuth struct {
	client *client
	app    App
	key    *rsa.PrivateKey

	mu            sync.Mutex
	tokens        map[int64]*appToken
	installations map[string]int64 // by the owner of repositories
}

type appToken struct {
	token   string
	expires time.Time
}

// renewBefore is how long before its end a token is not used any more. GitHub's are good for an hour.
const renewBefore = 5 * time.Minute

func (a *appAuth) authorize(ctx context.Context, r *http.Request, repo string) error {
	token, err := a.token(ctx, repo)
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+token)
	return nil
}

func (a *appAuth) renew(repo string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	id, ok := a.known(repo)
	delete(a.tokens, id)
	delete(a.installations, owner(repo))
	return ok
}

// known returns the installation of a repository. The caller holds a.mu.
func (a *appAuth) known(repo string) (int64, bool) {
	if a.app.Installation != 0 {
		return a.app.Installation, true
	}
	id, ok := a.installations[owner(repo)]
	return id, ok
}

func owner(repo string) string {
	o, _, _ := strings.Cut(repo, "/")
	return strings.ToLower(o)
}

func (a *appAuth) token(ctx context.Context, repo string) (string, error) {
	a.mu.Lock()
	id, ok := a.known(repo)
	t := a.tokens[id]
	a.mu.Unlock()
	if ok && t != nil && time.Until(t.expires) > renewBefore {
		return t.token, nil
	}
	jwt, err := a.jwt(time.Now())
	if err != nil {
		return "", err
	}
	if !ok {
		var found struct {
			ID int64 `json:"id"`
		}
		if _, err := a.client.do(ctx, call{method: http.MethodGet, path: "/repos/" + escape(repo) + "/installation", bare: "Bearer " + jwt}, &found); err != nil {
			return "", fmt.Errorf("find the installation of the GitHub App for %s: %w", repo, err)
		}
		id = found.ID
	}
	var made struct {
		Token   string    `json:"token"`
		Expires time.Time `json:"expires_at"`
	}
	path := "/app/installations/" + strconv.FormatInt(id, 10) + "/access_tokens"
	if _, err := a.client.do(ctx, call{method: http.MethodPost, path: path, bare: "Bearer " + jwt}, &made); err != nil {
		return "", fmt.Errorf("get a token for the GitHub App: %w", err)
	}
	if made.Token == "" {
		return "", fmt.Errorf("get a token for the GitHub App: %w: it has none", ErrUnreadable)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens[id] = &appToken{token: made.Token, expires: made.Expires}
	if a.app.Installation == 0 {
		a.installations[owner(repo)] = id
	}
	return made.Token, nil
}

// jwt says that we are the app, for nine minutes; GitHub takes ten, and its clock may be behind.
func (a *appAuth) jwt(now time.Time) (string, error) {
	issuer := a.app.ClientID
	if issuer == "" {
		issuer = strconv.FormatInt(a.app.ID, 10)
	}
	claims, err := json.Marshal(map[string]any{"iat": now.Add(-time.Minute).Unix(), "exp": now.Add(9 * time.Minute).Unix(), "iss": issuer})
	if err != nil {
		return "", fmt.Errorf("encode a token of the GitHub App: %w", err)
	}
	enc := base64.RawURLEncoding
	text := enc.EncodeToString([]byte(`{"alg":"RS256","typ":"JWT"}`)) + "." + enc.EncodeToString(claims)
	sum := sha256.Sum256([]byte(text))
	sig, err := rsa.SignPKCS1v15(rand.Reader, a.key, crypto.SHA256, sum[:])
	if err != nil {
		return "", fmt.Errorf("sign a token of the GitHub App: %w", err)
	}
	return text + "." + enc.EncodeToString(sig), nil
}

// escape escapes each part of a path.
func escape(path string) string {
	parts := strings.Split(path, "/")
	for i, p := range parts {
		if p == "." || p == ".." {
			p = "%2E" // no part of a repository's name climbs
		} else {
			p = url.PathEscape(p)
		}
		parts[i] = p
	}
	return strings.Join(parts, "/")
}
