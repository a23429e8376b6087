package e2e

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/crypto/ssh"
)

// sshServer is git-upload-pack behind SSH, for who has the key.
type sshServer struct {
	// URL is ssh://user@host:port/DIR, where DIR is the directory that is served.
	URL string
	// Key is the private key that is let in, Stranger one that is not, in the form of OpenSSH.
	Key, Stranger []byte
	// KnownHosts is the line of known_hosts for the server, Impostor one that has another key for it.
	KnownHosts, Impostor []byte

	dir string
}

// serveSSH serves the repositories below dir until the test ends.
func serveSSH(t testing.TB, dir string) *sshServer {
	t.Helper()
	host, _ := newSSHKey(t)
	other, _ := newSSHKey(t)
	client, key := newSSHKey(t)
	_, stranger := newSSHKey(t)
	config := &ssh.ServerConfig{PublicKeyCallback: func(_ ssh.ConnMetadata, key ssh.PublicKey) (*ssh.Permissions, error) {
		if string(key.Marshal()) != string(client.PublicKey().Marshal()) {
			return nil, errors.New("unknown key")
		}
		return nil, nil
	}}
	config.AddHostKey(host)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	line := func(key ssh.PublicKey) []byte {
		return fmt.Appendf(nil, "[127.0.0.1]:%s %s", port, ssh.MarshalAuthorizedKey(key))
	}
	s := &sshServer{
		URL: fmt.Sprintf("ssh://git@127.0.0.1:%s%s", port, dir), dir: dir,
		Key: key, Stranger: stranger, KnownHosts: line(host.PublicKey()), Impostor: line(other.PublicKey()),
	}
	var connections sync.WaitGroup
	connections.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			connections.Go(func() { s.serve(conn, config) })
		}
	})
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func newSSHKey(t testing.TB) (ssh.Signer, []byte) {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		t.Fatal(err)
	}
	return signer, pem.EncodeToMemory(block)
}

// serve answers one connection. What goes wrong ends it; the client says so.
func (s *sshServer) serve(conn net.Conn, config *ssh.ServerConfig) {
	defer conn.Close()
	_, channels, requests, err := ssh.NewServerConn(conn, config)
	if err != nil {
		return
	}
	go ssh.DiscardRequests(requests)
	for c := range channels {
		if c.ChannelType() != "session" {
			_ = c.Reject(ssh.UnknownChannelType, "only sessions")
			continue
		}
		channel, requests, err := c.Accept()
		if err != nil {
			return
		}
		go s.session(channel, requests)
	}
}

// session runs git-upload-pack on a repository below the served directory, and nothing else.
func (s *sshServer) session(channel ssh.Channel, requests <-chan *ssh.Request) {
	defer channel.Close()
	for req := range requests {
		var command struct{ Line string }
		if req.Type != "exec" || ssh.Unmarshal(req.Payload, &command) != nil {
			_ = req.Reply(req.Type == "env", nil)
			continue
		}
		name, quoted, _ := strings.Cut(command.Line, " ")
		dir := filepath.Clean(strings.Trim(quoted, "'"))
		if name != "git-upload-pack" || !strings.HasPrefix(dir, s.dir) {
			_ = req.Reply(false, nil)
			return
		}
		_ = req.Reply(true, nil)
		cmd := exec.Command("git", "-c", "safe.directory=*", "upload-pack", dir)
		cmd.Stdout, cmd.Stderr = channel, channel.Stderr()
		in, err := cmd.StdinPipe()
		if err != nil {
			return
		}
		go func() { // ends with the channel
			_, _ = io.Copy(in, channel)
			_ = in.Close()
		}()
		status := uint32(0)
		if cmd.Run() != nil {
			status = 1
		}
		_, _ = channel.SendRequest("exit-status", false, ssh.Marshal(struct{ Status uint32 }{status}))
		return
	}
}
