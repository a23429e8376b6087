// Package telemetry says how the daemon fares: logs, metrics, health endpoints and systemd.
package telemetry

import (
	"fmt"
	"io"
	"time"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/render/object"
)

// The keys of log lines. There are no others for these things.
const (
	KeySource      = "source"
	KeyRevision    = "revision"
	KeyApplication = "application"
	KeyNode        = "node"
	KeyRef         = "ref"
	KeyStep        = "step"
	KeyReason      = "reason"
)

// LogFormat is the form of log lines.
type LogFormat string

// The formats: lines for people, and JSON for programs.
const (
	Console LogFormat = "console"
	JSON    LogFormat = "json"
)

// LogOptions are the settings of a logger.
type LogOptions struct {
	Format LogFormat
	// Level is trace, debug, info, warn or error; empty means info.
	Level string
	// Color uses colours in the Console format.
	Color bool
	// Now is the clock of the time field; nil means time.Now.
	Now func() time.Time
}

const (
	jsonTime    = "2006-01-02T15:04:05.000Z07:00"
	consoleTime = "15:04:05.000"
)

// NewLogger returns a logger that writes to w.
func NewLogger(w io.Writer, o LogOptions) (zerolog.Logger, error) {
	level := zerolog.InfoLevel
	switch o.Level {
	case "", "info":
	case "trace":
		level = zerolog.TraceLevel
	case "debug":
		level = zerolog.DebugLevel
	case "warn":
		level = zerolog.WarnLevel
	case "error":
		level = zerolog.ErrorLevel
	default:
		return zerolog.Nop(), fmt.Errorf("log level %q is unknown; use trace, debug, info, warn or error", o.Level)
	}
	now := o.Now
	if now == nil {
		now = time.Now
	}
	stamp := func() string { return now().UTC().Format(jsonTime) }
	switch o.Format {
	case JSON:
	case Console, "":
		w = zerolog.ConsoleWriter{
			Out: w, NoColor: !o.Color, TimeFormat: consoleTime,
			FieldsOrder: []string{KeyApplication, KeySource, KeyRevision, KeyNode, KeyRef, KeyStep, KeyReason},
		}
		stamp = func() string { return now().Format(consoleTime) }
	default:
		return zerolog.Nop(), fmt.Errorf("log format %q is unknown; use console or json", o.Format)
	}
	// The time is added here and not by zerolog's Timestamp, whose format is global.
	return zerolog.New(w).Level(level).Hook(zerolog.HookFunc(func(e *zerolog.Event, _ zerolog.Level, _ string) {
		e.Str(zerolog.TimestampFieldName, stamp())
	})), nil
}

// Ref adds an object's name under its key; nothing for the zero Ref.
func Ref(e *zerolog.Event, r object.Ref) *zerolog.Event {
	if r.IsZero() {
		return e
	}
	return e.Str(KeyRef, r.String())
}

// LogEvent writes an event as a log line: Warning as a warning, the progress of a step that began as debug.
func LogEvent(l zerolog.Logger, ev api.Event) {
	e := l.Info()
	switch {
	case ev.Type == api.Warning:
		e = l.Warn()
	case ev.Step != nil && ev.Step.State == api.StepStarted:
		e = l.Debug()
	}
	str := func(key, value string) {
		if value != "" {
			e.Str(key, value)
		}
	}
	str(KeyApplication, ev.Application)
	str(KeySource, ev.Source)
	str(KeyRevision, ev.Revision)
	str(KeyNode, string(ev.Node))
	Ref(e, ev.Ref)
	if ev.Step != nil {
		e.Str(KeyStep, fmt.Sprintf("%d %s", ev.Step.ID, ev.Step.Op))
	}
	str(KeyReason, ev.Reason)
	if ev.Count > 1 {
		e.Int("count", ev.Count)
	}
	e.Msg(ev.Message)
}
