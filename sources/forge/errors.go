package forge

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// The classes of errors, for errors.Is.
var (
	// ErrNotFound: there is no such thing, or the credentials may not see it.
	ErrNotFound = errors.New("not found")
	// ErrUnauthorized: the credentials are wrong or have expired.
	ErrUnauthorized = errors.New("the credentials are wrong or have expired")
	// ErrForbidden: the credentials do not allow it.
	ErrForbidden = errors.New("the credentials do not allow it")
	// ErrLimited: the service takes no more requests until APIError.Until.
	ErrLimited = errors.New("too many requests")
	// ErrUnavailable: the service did not answer, or answered that it cannot.
	ErrUnavailable = errors.New("the service is not available")
	// ErrRefused: the service does not take what was sent.
	ErrRefused = errors.New("refused")
	// ErrUnreadable: the service answered something else than it documents.
	ErrUnreadable = errors.New("the answer cannot be understood")
)

// APIError is that a service did not do what it was asked.
type APIError struct {
	Forge Kind
	// Method and Path are the request, without query and credentials.
	Method, Path string
	// Status is the HTTP status; 0 without an answer.
	Status int
	// Class is one of the classes above.
	Class error
	// Message is what the service says, one line.
	Message string
	// Until is when it may be tried again; zero when the service does not say.
	Until time.Time
	// cause is why there is no answer.
	cause error
	// unsent is true when the service cannot have received the request.
	unsent bool
}

// Error implements error.
func (e *APIError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s %s: %v", e.Forge, e.Method, e.Path, e.Class)
	if e.Status != 0 {
		fmt.Fprintf(&b, " (%d)", e.Status)
	}
	if e.Message != "" {
		b.WriteString(": " + e.Message)
	}
	if e.cause != nil {
		b.WriteString(": " + e.cause.Error())
	}
	if !e.Until.IsZero() {
		b.WriteString("; again from " + e.Until.UTC().Format(time.RFC3339))
	}
	switch e.Class {
	case ErrUnauthorized:
		b.WriteString(" (renew the token of this forge in the settings)")
	case ErrForbidden:
		b.WriteString(" (give the token of this forge the permissions that docs/forges names)")
	}
	return b.String()
}

// Unwrap lets errors.Is find the class and the cause.
func (e *APIError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.Class}
	}
	return []error{e.Class, e.cause}
}

// Temporary reports whether the same may succeed later.
func (e *APIError) Temporary() bool { return e.Class == ErrLimited || e.Class == ErrUnavailable }

// classOf returns the class of an answer that is no success.
func classOf(status int, h http.Header) error {
	switch {
	case status == http.StatusUnauthorized, status == http.StatusNonAuthoritativeInfo: // Azure DevOps shows a page to sign in
		return ErrUnauthorized
	case status == http.StatusTooManyRequests,
		status == http.StatusForbidden && (h.Get("X-Ratelimit-Remaining") == "0" || h.Get("Retry-After") != ""):
		return ErrLimited
	case status == http.StatusForbidden:
		return ErrForbidden
	case status == http.StatusNotFound, status == http.StatusGone:
		return ErrNotFound
	case status >= 500, status == http.StatusRequestTimeout:
		return ErrUnavailable
	}
	return ErrRefused
}

// oneLine returns text as one line that is not too long, without control characters.
func oneLine(s string, limit int) string {
	s = strings.Join(strings.Fields(strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd {
			return ' '
		}
		return r
	}, s)), " ")
	return cut(s, limit)
}

// cut shortens s to at most limit characters, the last of which then is an ellipsis.
func cut(s string, limit int) string {
	if limit <= 0 {
		return s
	}
	n := 0
	for i := range s {
		if n == limit {
			runes := []rune(s[:i])
			return string(runes[:limit-1]) + "…"
		}
		n++
	}
	return s
}

// ignoreNotFound returns nil for ErrNotFound.
func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}
