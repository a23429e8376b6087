package git

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/go-git/go-git/v5/plumbing/format/pktline"
	"github.com/go-git/go-git/v5/plumbing/protocol/packp"
	"github.com/go-git/go-git/v5/plumbing/transport"
	"github.com/skeema/knownhosts"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
	xknownhosts "golang.org/x/crypto/ssh/knownhosts"
)

// sshDialer runs git-upload-pack over ssh. Every session is a connection of its own.
type sshDialer struct {
	at     location
	auth   Auth
	signer ssh.Signer // nil with an agent
}

func newSSH(at location, a Auth) (*sshDialer, error) {
	d := &sshDialer{at: at, auth: a}
	switch {
	case len(a.Identity) > 0:
		var err error
		if a.IdentityPassword != "" {
			d.signer, err = ssh.ParsePrivateKeyWithPassphrase(a.Identity, []byte(a.IdentityPassword))
		} else {
			d.signer, err = ssh.ParsePrivateKey(a.Identity)
		}
		var missing *ssh.PassphraseMissingError
		switch {
		case errors.As(err, &missing):
			return nil, fmt.Errorf("%w: the private key has a passphrase: set it as the password", ErrAuthentication)
		case err != nil && a.IdentityPassword != "":
			return nil, fmt.Errorf("%w: the private key cannot be read with its passphrase: check both", ErrAuthentication)
		case err != nil:
			return nil, fmt.Errorf("%w: the private key cannot be read: give it in PEM, as ssh-keygen writes it", ErrAuthentication)
		}
	case !a.Agent && a.Password == "":
		return nil, fmt.Errorf("%w: ssh needs a private key (identity) or the SSH agent", ErrAuthentication)
	}
	if len(a.KnownHosts) > 0 {
		if _, err := d.hosts(); err != nil {
			return nil, err
		}
	}
	return d, nil
}

// hosts reads the known keys of hosts.
func (d *sshDialer) hosts() (*knownhosts.HostKeyDB, error) {
	var files []string
	if len(d.auth.KnownHosts) > 0 {
		// The library reads files only.
		f, err := os.CreateTemp("", "known_hosts-")
		if err != nil {
			return nil, fmt.Errorf("known hosts: %w", err)
		}
		defer os.Remove(f.Name())
		_, err = f.Write(d.auth.KnownHosts)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("known hosts: %w", err)
		}
		files = []string{f.Name()}
	} else {
		home, _ := os.UserHomeDir()
		for _, name := range []string{filepath.Join(home, ".ssh", "known_hosts"), "/etc/ssh/ssh_known_hosts"} {
			if _, err := os.Stat(name); err == nil {
				files = append(files, name)
			}
		}
		if len(files) == 0 {
			return nil, fmt.Errorf("%w: there is no known_hosts: %s", ErrHostUnknown, d.scan())
		}
	}
	db, err := knownhosts.NewDB(files...)
	if err != nil {
		return nil, fmt.Errorf("known hosts cannot be read: %s", after(err.Error(), "knownhosts: "))
	}
	return db, nil
}

func (d *sshDialer) scan() string {
	host, port, _ := net.SplitHostPort(d.at.hostPort("22"))
	command := "ssh-keyscan "
	if port != "22" {
		command += "-p " + port + " "
	}
	return "compare the output of " + command + host + " with what the host's owner publishes, and add it to known_hosts"
}

func (d *sshDialer) config() (*ssh.ClientConfig, func(), error) {
	done := func() {}
	db, err := d.hosts()
	if err != nil {
		return nil, done, err
	}
	address := d.at.hostPort("22")
	check := db.HostKeyCallback()
	c := &ssh.ClientConfig{
		User: d.at.user, Timeout: 30 * time.Second,
		HostKeyCallback: func(host string, remote net.Addr, key ssh.PublicKey) error {
			err := check(host, remote, key)
			var bad *xknownhosts.KeyError
			var revoked *xknownhosts.RevokedError
			switch {
			case err == nil:
				return nil
			case errors.As(err, &revoked):
				return fmt.Errorf("%w: the key %s of %s is revoked in known_hosts", ErrHostChanged, ssh.FingerprintSHA256(key), host)
			case errors.As(err, &bad) && len(bad.Want) > 0:
				return fmt.Errorf("%w: %s presents %s %s, and known_hosts has another; somebody may be listening in. If the host's owner has changed the key, %s",
					ErrHostChanged, host, key.Type(), ssh.FingerprintSHA256(key), d.scan())
			}
			return fmt.Errorf("%w: %s presents %s %s: %s", ErrHostUnknown, host, key.Type(), ssh.FingerprintSHA256(key), d.scan())
		},
		HostKeyAlgorithms: db.HostKeyAlgorithms(address),
	}
	if c.User == "" {
		c.User = d.auth.Username
	}
	if c.User == "" {
		c.User = "git"
	}
	if d.signer != nil {
		c.Auth = append(c.Auth, ssh.PublicKeys(d.signer))
	}
	if d.auth.Agent && d.signer == nil {
		socket := os.Getenv("SSH_AUTH_SOCK")
		if socket == "" {
			return nil, done, fmt.Errorf("%w: no SSH agent is running (SSH_AUTH_SOCK is not set): start one and add the key, or give a private key", ErrAuthentication)
		}
		conn, err := net.Dial("unix", socket)
		if err != nil {
			return nil, done, fmt.Errorf("%w: the SSH agent does not answer: %w", ErrAuthentication, err)
		}
		done = func() { conn.Close() }
		c.Auth = append(c.Auth, ssh.PublicKeysCallback(agent.NewClient(conn).Signers))
	}
	if d.auth.Password != "" {
		c.Auth = append(c.Auth, ssh.Password(d.auth.Password))
	}
	return c, done, nil
}

func (d *sshDialer) dial(ctx context.Context) (session, error) {
	config, done, err := d.config()
	if err != nil {
		return nil, err
	}
	defer done()
	address := d.at.hostPort("22")
	conn, err := (&net.Dialer{Timeout: config.Timeout}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	s := &sshSession{conn: conn}
	s.stop = context.AfterFunc(ctx, func() { conn.Close() })
	link, channels, requests, err := ssh.NewClientConn(conn, address, config)
	if err != nil {
		s.close()
		return nil, handshakeError(err)
	}
	s.client = ssh.NewClient(link, channels, requests)
	if err := s.start(d.at.path); err != nil {
		s.close()
		return nil, fmt.Errorf("ssh: %w", err)
	}
	return s, nil
}

func (d *sshDialer) close() {}

// handshakeError words why a connection was not made. The library keeps no types here.
func handshakeError(err error) error {
	switch {
	case errors.Is(err, ErrHostChanged), errors.Is(err, ErrHostUnknown):
		return err
	case strings.Contains(err.Error(), "unable to authenticate"):
		return fmt.Errorf("%w: the server refused the key: add its public part to the repository's deploy keys, and check the user name in the URL", ErrAuthentication)
	case strings.Contains(err.Error(), "no common algorithm for host key"):
		return fmt.Errorf("%w: the host has no key of the kinds that known_hosts has for it: add its other keys, from ssh-keyscan", ErrHostChanged)
	}
	return fmt.Errorf("ssh: %w", err)
}

type sshSession struct {
	conn   net.Conn
	client *ssh.Client
	run    *ssh.Session
	in     io.WriteCloser
	out    io.Reader
	said   tail // on standard error
	stop   func() bool
	once   sync.Once
	listed bool
}

func (s *sshSession) start(path string) error {
	var err error
	if s.run, err = s.client.NewSession(); err != nil {
		return err
	}
	if s.in, err = s.run.StdinPipe(); err != nil {
		return err
	}
	if s.out, err = s.run.StdoutPipe(); err != nil {
		return err
	}
	s.run.Stderr = &s.said
	return s.run.Start("git-upload-pack '" + strings.NewReplacer("'", `'\''`, "!", `'\!'`).Replace(path) + "'")
}

func (s *sshSession) list(context.Context) (*packp.AdvRefs, error) {
	adv := packp.NewAdvRefs()
	err := adv.Decode(&bounded{io.NopCloser(s.out), maxListing})
	if errors.Is(err, packp.ErrEmptyAdvRefs) || err == nil && adv.IsEmpty() {
		return nil, ErrEmptyRepository
	}
	if err != nil {
		return nil, s.failed(err)
	}
	transport.FilterUnsupportedCapabilities(adv.Capabilities)
	s.listed = true
	return adv, nil
}

// failed says what the server said.
func (s *sshSession) failed(err error) error {
	s.in.Close()
	_ = s.run.Wait() // its exit code says nothing; all of standard error has come then
	if errors.Is(err, ErrTooLarge) {
		return err
	}
	said := s.said.String()
	var line *pktline.ErrorLine
	if errors.As(err, &line) {
		said = line.Text
	}
	lower := strings.ToLower(said)
	for _, text := range []string{"not found", "does not exist", "does not appear to be a git repository", "no such", "could not be found", "not a git repository"} {
		if strings.Contains(lower, text) {
			return fmt.Errorf("%w: the server says %q: check the URL, and that the key may read it", ErrNotFound, said)
		}
	}
	for _, text := range []string{"denied", "permission", "access"} {
		if strings.Contains(lower, text) {
			return fmt.Errorf("%w: the server says %q: grant the key read access", ErrAuthentication, said)
		}
	}
	if said != "" {
		return fmt.Errorf("the server says %q", said)
	}
	return fmt.Errorf("list references: %w", err)
}

func (s *sshSession) fetch(_ context.Context, req *packp.UploadPackRequest) (*packp.UploadPackResponse, error) {
	if err := req.Validate(); err != nil {
		return nil, err
	}
	s.listed = false
	if err := req.UploadRequest.Encode(s.in); err != nil {
		return nil, err
	}
	if err := req.UploadHaves.Encode(s.in, false); err != nil {
		return nil, err
	}
	if err := pktline.NewEncoder(s.in).EncodeString("done\n"); err != nil {
		return nil, err
	}
	res := packp.NewUploadPackResponse(req)
	if err := res.Decode(io.NopCloser(s.out)); err != nil {
		return nil, err
	}
	return res, nil
}

func (s *sshSession) close() {
	s.once.Do(func() {
		if s.listed {
			_, _ = s.in.Write(pktline.FlushPkt) // so that the server does not report a client that hung up
		}
		s.stop()
		if s.client != nil {
			s.client.Close()
		}
		s.conn.Close()
	})
}

// tail keeps the beginning of what is written.
type tail struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf.Write(p[:min(len(p), max(0, 1024-t.buf.Len()))])
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return strings.Join(strings.Fields(strings.ToValidUTF8(t.buf.String(), "?")), " ")
}
