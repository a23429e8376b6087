package notify

import (
	"context"
	"errors"
	"io"
	"log"
	"net/url"
	"strings"
	"sync"

	"github.com/nicholas-fedor/shoutrrr/pkg/router"
	"github.com/nicholas-fedor/shoutrrr/pkg/types"
)

// Shoutrrr sends to any service that the library of that name knows, by its URL.
type Shoutrrr struct {
	URL Secret

	// sending is held while the library is at work: it cannot be interrupted, and waits for as long as it likes.
	sending sync.Mutex
}

// Send implements Sender. The library does not say which failures are for ever, so everything but a URL that it does not
// understand is tried again.
func (s *Shoutrrr) Send(ctx context.Context, m Message) error {
	target, err := s.URL.get("URL")
	if err != nil {
		return err
	}
	services, err := router.New(log.New(io.Discard, "", 0))
	if err != nil {
		return err
	}
	service, err := services.Locate(target)
	if err != nil {
		return errors.New("the URL is not one that shoutrrr understands") // its words repeat the URL
	}
	if !s.sending.TryLock() {
		return &Temporary{Err: errors.New("the service has not answered to the message before yet")}
	}
	done := make(chan error, 1)
	go func() {
		defer s.sending.Unlock()
		// Not every service knows a title, and those that do not refuse it.
		done <- service.Send(m.Title+"\n\n"+m.Text, &types.Params{})
	}()
	select {
	case err = <-done:
	case <-ctx.Done():
		return &Temporary{Err: errors.New("the service does not answer")}
	}
	if err == nil {
		return nil
	}
	return &Temporary{Err: errors.New("send by " + service.GetID() + ": " + scrub(plain(err.Error(), 300), secretsIn(target)))}
}

// secretsIn are the parts of a URL that may be secret: all of them.
func secretsIn(target string) []string {
	out := []string{target}
	u, err := url.Parse(target)
	if err != nil {
		return out
	}
	out = append(out, u.RawQuery, u.Path)
	if u.User != nil {
		pass, _ := u.User.Password()
		out = append(out, u.User.String(), pass, u.User.Username())
	}
	out = append(out, strings.Split(u.Path, "/")...)
	for _, values := range u.Query() {
		out = append(out, values...)
	}
	return append(out, u.Host)
}
