package api

import (
	"context"
	"errors"
)

// The classes of errors that a Backend returns. Test with errors.Is; they survive the socket.
var (
	// ErrNotFound: there is no such application, object, pod or container.
	ErrNotFound = errors.New("not found")
	// ErrInvalid: the request makes no sense; asking again will not help.
	ErrInvalid = errors.New("invalid request")
	// ErrMoved: the revision or the observed state is not what a saved plan was made from.
	ErrMoved = errors.New("moved since the plan was made")
	// ErrConflict: it cannot be done now, for example because another pass is running.
	ErrConflict = errors.New("conflict")
	// ErrUnavailable: the daemon, the engine or the source does not answer.
	ErrUnavailable = errors.New("unavailable")
	// ErrUnsupported: this backend cannot do it, for example because it needs a running daemon.
	ErrUnsupported = errors.New("not supported")
)

// Code is the class of an Error on the wire.
type Code string

// The codes, one for each class; CodeFailed is everything else.
const (
	CodeNotFound    Code = "not-found"
	CodeInvalid     Code = "invalid"
	CodeMoved       Code = "moved"
	CodeConflict    Code = "conflict"
	CodeUnavailable Code = "unavailable"
	CodeUnsupported Code = "unsupported"
	CodeCanceled    Code = "canceled"
	CodeFailed      Code = "failed"
)

type class struct {
	code   Code
	err    error
	status int
}

// classes is searched in order; it is never modified.
var classes = [...]class{
	{CodeNotFound, ErrNotFound, 404},
	{CodeInvalid, ErrInvalid, 400},
	{CodeMoved, ErrMoved, 412},
	{CodeConflict, ErrConflict, 409},
	{CodeUnavailable, ErrUnavailable, 503},
	{CodeUnsupported, ErrUnsupported, 501},
	{CodeCanceled, context.Canceled, 499},
}

// Error is an error as it crosses the socket, and as it is kept in results.
type Error struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

// Error returns the message.
func (e *Error) Error() string { return e.Message }

// Unwrap returns the class, so that errors.Is works on both sides of the socket.
func (e *Error) Unwrap() error {
	for _, c := range classes {
		if c.code == e.Code {
			return c.err
		}
	}
	return nil
}

// ErrorFrom returns err as an Error with its class; nil for nil.
func ErrorFrom(err error) *Error {
	if err == nil {
		return nil
	}
	for _, c := range classes {
		if errors.Is(err, c.err) {
			return &Error{Code: c.code, Message: err.Error()}
		}
	}
	return &Error{Code: CodeFailed, Message: err.Error()}
}

// status is the HTTP status of the error's class.
func (e *Error) status() int {
	for _, c := range classes {
		if c.code == e.Code {
			return c.status
		}
	}
	return 500
}
