package git

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/go-git/go-git/v5/plumbing/transport"

	"github.com/fairlead-dev/fairlead/sources"
)

// Classes of errors of Fetch, for errors.Is.
var (
	ErrAuthentication  = errors.New("authentication failed")
	ErrNotFound        = errors.New("repository not found")
	ErrNoReference     = errors.New("reference not found")
	ErrNoCommit        = errors.New("commit not found")
	ErrEmptyRepository = errors.New("the repository is empty: push a first commit")
	ErrTLS             = errors.New("TLS")
	ErrHostUnknown     = errors.New("the host's key is not known")
	ErrHostChanged     = errors.New("the host's key is not the known one")
	ErrUnreachable     = errors.New("the host cannot be reached")
	ErrNotVerified     = errors.New("the signature is refused")
	ErrTooLarge        = errors.New("the repository is too large")
)

// errDamaged: objects on disk are missing or not what their names say.
var errDamaged = errors.New("objects of the repository are missing or damaged")

// Error is why a fetch failed. Its text holds no credentials.
type Error struct {
	text   string
	causes []error
}

func (e *Error) Error() string { return e.text }

// Unwrap returns the classes of the error, not the errors that libraries returned, which may show credentials.
func (e *Error) Unwrap() []error { return e.causes }

// explain words an error, without credentials.
func (s *Source) explain(ctx context.Context, err error) error {
	text, class := s.describe(ctx, err)
	e := &Error{text: s.scrub(s.at.shown() + ": " + text)}
	if class != nil {
		e.causes = append(e.causes, class)
	}
	var refusal *sources.Refusal
	if errors.As(err, &refusal) {
		said := *refusal
		said.Text = s.scrub(said.Text)
		e.causes = append(e.causes, &said)
	}
	for _, c := range []error{context.Canceled, context.DeadlineExceeded} {
		if errors.Is(err, c) || errors.Is(ctx.Err(), c) {
			e.causes = append(e.causes, c)
		}
	}
	return e
}

func (s *Source) describe(ctx context.Context, err error) (string, error) {
	for _, class := range []error{ErrNotVerified, ErrNoReference, ErrNoCommit, ErrEmptyRepository, ErrHostUnknown, ErrHostChanged, ErrNotFound, ErrTLS, ErrAuthentication, ErrTooLarge} {
		if errors.Is(err, class) {
			return err.Error(), class
		}
	}
	var (
		unknown  x509.UnknownAuthorityError
		host     x509.HostnameError
		invalid  x509.CertificateInvalidError
		verify   *tls.CertificateVerificationError
		alert    tls.AlertError
		record   tls.RecordHeaderError
		op       *net.OpError
		resolved *net.DNSError
	)
	switch {
	case ctx.Err() != nil && errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "no answer in time: check that the host can be reached, or raise the timeout", ErrUnreachable
	case ctx.Err() != nil:
		return "the fetch was canceled", nil
	case errors.Is(err, transport.ErrAuthenticationRequired), errors.Is(err, transport.ErrAuthorizationFailed):
		return s.authentication(err), ErrAuthentication
	case errors.Is(err, transport.ErrRepositoryNotFound):
		return ErrNotFound.Error() + ": check the URL, and that the credentials may read it", ErrNotFound
	case errors.Is(err, transport.ErrEmptyRemoteRepository):
		return ErrEmptyRepository.Error(), ErrEmptyRepository
	case errors.As(err, &unknown):
		return "TLS: the server's certificate is signed by an authority that is not trusted here: give its certificate as ca.crt", ErrTLS
	case errors.As(err, &host):
		return "TLS: the server's certificate is for another host: " + host.Error(), ErrTLS
	case errors.As(err, &invalid):
		return "TLS: the server's certificate is not valid: " + invalid.Error(), ErrTLS
	case errors.As(err, &verify):
		return "TLS: the server's certificate cannot be verified: " + verify.Err.Error(), ErrTLS
	case errors.As(err, &record), strings.Contains(err.Error(), "server gave HTTP response to HTTPS client"):
		return "TLS: the server does not speak TLS at this port: check the scheme and port of the URL", ErrTLS
	case errors.As(err, &alert), strings.Contains(err.Error(), "remote error: tls:"):
		return "TLS: the server refused the connection (" + after(err.Error(), "remote error: tls: ") +
			"): if it asks for a client certificate, give one as tls.crt and tls.key", ErrTLS
	case errors.As(err, &resolved):
		return "the name " + resolved.Name + " cannot be resolved: check the URL and the DNS of this machine", ErrUnreachable
	case errors.As(err, &op) && op.Op == "dial":
		return "the host cannot be reached: " + op.Err.Error(), ErrUnreachable
	}
	return err.Error(), nil
}

func (s *Source) authentication(err error) string {
	a := s.opt.Auth
	switch {
	case errors.Is(err, transport.ErrAuthorizationFailed):
		return ErrAuthentication.Error() + ": the server knows the credentials, but they may not read this repository: grant them read access"
	case a.Username == "" && a.Password == "" && a.BearerToken == "" && len(a.ClientCert) == 0:
		return ErrAuthentication.Error() + ": the server asks for credentials and none are set: set a user name and password, or a token (or the repository does not exist: some servers ask then as well)"
	case a.BearerToken != "":
		return ErrAuthentication.Error() + ": the server refused the bearer token: check it; many servers want a token as the password of a user name"
	}
	return ErrAuthentication.Error() + ": the server refused the user name and password: check them, and that the token has not expired"
}

func after(s, sep string) string {
	if _, rest, ok := strings.Cut(s, sep); ok {
		return rest
	}
	return s
}

// scrub removes every credential of the source from a text.
func (s *Source) scrub(text string) string {
	text = Redact(text)
	a := s.opt.Auth
	secrets := []string{a.Password, a.BearerToken, a.IdentityPassword, s.at.password}
	if a.Password == "" && s.at.scheme != "ssh" {
		secrets = append(secrets, a.Username) // a token that stands for a user
	}
	for _, secret := range secrets {
		if len(secret) >= 3 {
			text = strings.ReplaceAll(text, secret, "***")
		}
	}
	return text
}

// damaged wraps what shows that objects on disk are not right.
func damaged(what string, err error) error {
	return fmt.Errorf("%w: %s: %w", errDamaged, what, err)
}
