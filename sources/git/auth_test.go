package git

import (
	"crypto/ed25519"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"

	"github.com/fairlead-dev/fairlead/sources"
)

func TestHTTPAuthentication(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	server := serveHTTP(t, r, nil)
	const password = "s3cret-passw0rd"
	server.deny = func(req *http.Request) int {
		user, pass, _ := req.BasicAuth()
		switch {
		case user == "ada" && pass == password, req.Header.Get("Authorization") == "Bearer t0ken-t0ken":
			return 0
		case user == "eve":
			return http.StatusForbidden
		}
		return http.StatusUnauthorized
	}
	inURL := strings.Replace(server.URL, "http://", "http://ada:"+password+"@", 1)
	for name, o := range map[string]Options{
		"basic":      {URL: server.URL, Auth: Auth{Username: "ada", Password: password}},
		"bearer":     {URL: server.URL, Auth: Auth{BearerToken: "t0ken-t0ken"}},
		"in the URL": {URL: inURL},
	} {
		t.Run(name, func(t *testing.T) { fetch(t, open(t, o), "") })
	}
	for name, tt := range map[string]struct {
		o     Options
		words string
	}{
		"none":         {Options{}, "none are set"},
		"wrong":        {Options{Auth: Auth{Username: "ada", Password: "wrong-" + password}}, "check them"},
		"wrong token":  {Options{Auth: Auth{BearerToken: "wr0ng-" + password}}, "bearer token"},
		"not allowed":  {Options{Auth: Auth{Username: "eve", Password: password}}, "grant them read access"},
		"wrong in URL": {Options{URL: strings.Replace(inURL, "ada", "bob", 1)}, "check them"},
	} {
		t.Run(name, func(t *testing.T) {
			if tt.o.URL == "" {
				tt.o.URL = server.URL
			}
			_, err := open(t, tt.o).Fetch(t.Context(), "")
			if !errors.Is(err, ErrAuthentication) || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("error %v, want one that says %q", err, tt.words)
			}
			if shown := fmt.Sprintf("%v %+v %#v %v", err, err, errors.Unwrap(err), tt.o); strings.Contains(shown, password) && tt.o.URL == server.URL || strings.Contains(fmt.Sprint(err), password) {
				t.Errorf("a password is shown: %s", shown)
			}
		})
	}
}

func TestTLS(t *testing.T) {
	r := newRepo(t)
	r.commit("first", map[string]string{"f": "1"})
	ca, otherCA := newAuthority(t), newAuthority(t)
	cert, key := ca.issue(t, x509.ExtKeyUsageServerAuth, "127.0.0.1")
	clientCert, clientKey := ca.issue(t, x509.ExtKeyUsageClientAuth)
	strangerCert, strangerKey := otherCA.issue(t, x509.ExtKeyUsageClientAuth)
	start := func(c *tls.Config) *server {
		return serveHTTP(t, r, func(s *httptest.Server) { s.TLS = c; s.StartTLS() })
	}
	plain := start(&tls.Config{Certificates: []tls.Certificate{pair(t, cert, key)}})
	mutual := start(&tls.Config{Certificates: []tls.Certificate{pair(t, cert, key)}, ClientCAs: ca.pool(), ClientAuth: tls.RequireAndVerifyClientCert})
	wrongName, wrongKey := ca.issue(t, x509.ExtKeyUsageServerAuth, "example.com")
	elsewhere := start(&tls.Config{Certificates: []tls.Certificate{pair(t, wrongName, wrongKey)}})
	noTLS := serveHTTP(t, r, nil)

	fetch(t, open(t, Options{URL: plain.URL, Auth: Auth{CA: ca.PEM}}), "")
	fetch(t, open(t, Options{URL: mutual.URL, Auth: Auth{CA: ca.PEM, ClientCert: clientCert, ClientKey: clientKey}}), "")
	refused(t, open(t, Options{URL: plain.URL}), ErrTLS, "not trusted", "ca.crt")
	refused(t, open(t, Options{URL: plain.URL, Auth: Auth{CA: otherCA.PEM}}), ErrTLS, "not trusted")
	refused(t, open(t, Options{URL: elsewhere.URL, Auth: Auth{CA: ca.PEM}}), ErrTLS, "another host")
	refused(t, open(t, Options{URL: mutual.URL, Auth: Auth{CA: ca.PEM}}), ErrTLS, "client certificate")
	refused(t, open(t, Options{URL: mutual.URL, Auth: Auth{CA: ca.PEM, ClientCert: strangerCert, ClientKey: strangerKey}}), ErrTLS)
	refused(t, open(t, Options{URL: strings.Replace(noTLS.URL, "http:", "https:", 1)}), ErrTLS, "does not speak TLS")
	if _, err := New(Options{URL: plain.URL, Dir: t.TempDir(), Auth: Auth{CA: []byte("x")}}); !errors.Is(err, ErrTLS) {
		t.Errorf("a bad CA: %v", err)
	}
	if _, err := New(Options{URL: plain.URL, Dir: t.TempDir(), Auth: Auth{ClientCert: clientCert, ClientKey: strangerKey}}); !errors.Is(err, ErrTLS) {
		t.Errorf("a key of another certificate: %v", err)
	}
}

func identity(t testing.TB, key ed25519.PrivateKey, passphrase string) []byte {
	t.Helper()
	var block *pem.Block
	var err error
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(block)
}

func TestSSH(t *testing.T) {
	r := newRepo(t)
	first := r.commit("first", map[string]string{"f": "1"})
	signer, private := newSigner(t)
	stranger, strangerKey := newSigner(t)
	server := serveSSH(t, signer.PublicKey())
	known := server.knownHosts(server.hostKey)
	url := "ssh://git@" + server.address + r.dir

	// An agent that holds the key.
	keys := agent.NewKeyring()
	if err := keys.Add(agent.AddedKey{PrivateKey: private}); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(t.TempDir(), "agent")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go agent.ServeAgent(keys, c)
		}
	}()
	t.Setenv("SSH_AUTH_SOCK", socket)

	for name, a := range map[string]Auth{
		"key":                 {Identity: identity(t, private, ""), KnownHosts: known},
		"key with passphrase": {Identity: identity(t, private, "open sesame"), IdentityPassword: "open sesame", KnownHosts: known},
		"agent":               {Agent: true, KnownHosts: known},
	} {
		t.Run(name, func(t *testing.T) {
			s := open(t, Options{URL: url, Auth: a})
			got := fetch(t, s, "")
			if string(got.Revision) != first {
				t.Errorf("revision %s, want %s", got.Revision, first)
			}
			contents(t, got.Files)
			unchanged(t, s, got.Revision)
		})
	}
	t.Run("next commits", func(t *testing.T) {
		s := open(t, Options{URL: url, Auth: Auth{Identity: identity(t, private, ""), KnownHosts: known}})
		have := fetch(t, s, "").Revision
		for range 3 {
			r.commit("more", map[string]string{"f": have.Short()})
		}
		if got := fetch(t, s, have); got.History != sources.FastForward {
			t.Errorf("history %s", got.History)
		}
	})
	t.Run("host changed", func(t *testing.T) {
		refused(t, open(t, Options{URL: url, Auth: Auth{Identity: identity(t, private, ""), KnownHosts: server.knownHosts(stranger.PublicKey())}}),
			ErrHostChanged, ssh.FingerprintSHA256(server.hostKey), "ssh-keyscan -p")
	})
	t.Run("host unknown", func(t *testing.T) {
		refused(t, open(t, Options{URL: url, Auth: Auth{Identity: identity(t, private, ""), KnownHosts: []byte("example.com " + string(ssh.MarshalAuthorizedKey(stranger.PublicKey())))}}),
			ErrHostUnknown, ssh.FingerprintSHA256(server.hostKey), "known_hosts")
	})
	t.Run("wrong key", func(t *testing.T) {
		refused(t, open(t, Options{URL: url, Auth: Auth{Identity: identity(t, strangerKey, ""), KnownHosts: known}}), ErrAuthentication, "deploy keys")
	})
	t.Run("no repository", func(t *testing.T) {
		refused(t, open(t, Options{URL: url + "-missing", Auth: Auth{Identity: identity(t, private, ""), KnownHosts: known}}), ErrNotFound, "check the URL")
	})
	for name, a := range map[string]Auth{
		"passphrase missing": {Identity: identity(t, private, "open sesame"), KnownHosts: known},
		"passphrase wrong":   {Identity: identity(t, private, "open sesame"), IdentityPassword: "close sesame", KnownHosts: known},
		"no key":             {KnownHosts: known},
		"no PEM":             {Identity: []byte("x"), KnownHosts: known},
	} {
		if _, err := New(Options{URL: url, Dir: t.TempDir(), Auth: a}); !errors.Is(err, ErrAuthentication) || strings.Contains(err.Error(), "sesame") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
