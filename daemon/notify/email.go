package notify

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/wneessen/go-mail"
)

// TLSMode says how a connection to a mail server is encrypted.
type TLSMode string

// The modes.
const (
	// STARTTLS is asked for on a plain connection, and nothing is sent without it.
	STARTTLS TLSMode = "starttls"
	// Implicit begins with TLS, as on port 465.
	Implicit TLSMode = "implicit"
	// None is for a relay on the same machine.
	None TLSMode = "none"
)

// Email sends mails through a server.
type Email struct {
	// Server is host:port; without a port it is 587, or 465 with Implicit.
	Server string
	TLS    TLSMode
	From   string
	To     []string
	// Username and Password log in; without a name nobody does.
	Username string
	Password Secret

	host string
	port int
	tls  *tls.Config
}

// NewEmail completes e, or says what is wrong with it.
func NewEmail(e Email, h HTTP) (*Email, error) {
	if e.TLS == "" {
		e.TLS = STARTTLS
	}
	e.host, e.port = e.Server, 587
	if e.TLS == Implicit {
		e.port = 465
	}
	if host, port, err := net.SplitHostPort(e.Server); err == nil {
		if e.port, err = strconv.Atoi(port); err != nil || e.port < 1 || e.port > 65535 {
			return nil, fmt.Errorf("the server %q has no port: write it like mail.example.org:587", e.Server)
		}
		e.host = host
	}
	e.tls = &tls.Config{ServerName: e.host, MinVersion: tls.VersionTLS12}
	if len(h.CA) > 0 {
		pool, err := x509.SystemCertPool()
		if err != nil {
			pool = x509.NewCertPool()
		}
		if !pool.AppendCertsFromPEM(h.CA) {
			return nil, errors.New("the CA holds no certificate in PEM")
		}
		e.tls.RootCAs = pool
	}
	_, err := e.mail(Message{Title: "x", Text: "x"})
	return &e, err
}

// mail returns the mail.
func (e *Email) mail(m Message) (*mail.Msg, error) {
	msg := mail.NewMsg(mail.WithNoDefaultUserAgent())
	if err := msg.From(e.From); err != nil {
		return nil, fmt.Errorf("%q is not a mail address: write it like fairlead@example.org", e.From)
	}
	if err := msg.To(e.To...); err != nil || len(e.To) == 0 {
		return nil, fmt.Errorf("%q is not a list of mail addresses", strings.Join(e.To, ", "))
	}
	msg.Subject(m.Title)
	msg.SetDateWithValue(m.Time)
	_, domain, _ := strings.Cut(strings.TrimSuffix(e.From, ">"), "@")
	msg.SetMessageIDWithValue(m.ID + "@" + domain) // sent again, it is the same mail
	msg.SetGenHeader("Auto-Submitted", "auto-generated")
	msg.SetBodyString(mail.TypeTextPlain, m.Text)
	return msg, nil
}

// Send implements Sender.
func (e *Email) Send(ctx context.Context, m Message) error {
	msg, err := e.mail(m)
	if err != nil {
		return err
	}
	options := []mail.Option{mail.WithPort(e.port), mail.WithTLSConfig(e.tls.Clone()), mail.WithTimeout(tryTimeout)}
	switch e.TLS {
	case Implicit:
		options = append(options, mail.WithSSL())
	case None:
		options = append(options, mail.WithTLSPolicy(mail.NoTLS))
	case STARTTLS:
		options = append(options, mail.WithTLSPolicy(mail.TLSMandatory))
	}
	password, err := e.Password.get("password")
	if err != nil {
		return err
	}
	if e.Username != "" {
		options = append(options, mail.WithUsername(e.Username), mail.WithPassword(password), mail.WithSMTPAuth(mail.SMTPAuthAutoDiscover))
	}
	client, err := mail.NewClient(e.host, options...)
	if err != nil {
		return fmt.Errorf("send a mail: %w", err)
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		failure := errors.New("send a mail: " + scrub(plain(err.Error(), 500), []string{password}))
		var refused *mail.SendError
		if errors.As(err, &refused) && !refused.IsTemp() && refused.ErrorCode() >= 500 {
			return failure
		}
		return &Temporary{Err: failure}
	}
	return nil
}
