// Package hooks is where Git hosting services and image registries deliver what happened to them. A delivery is proved, then answered, and
// makes the daemon look; what is in it is never believed. Whoever cannot prove a delivery changes nothing, however many
// and however large the requests are.
package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"

	"github.com/fairlead-dev/fairlead/sources/forge"
	"github.com/fairlead-dev/fairlead/sources/forge/webhook"
)

// Sources are what is cloned.
type Sources interface {
	// Look asks for a look at every source whose repository has one of the keys, and returns their names. It does not
	// wait; a source at which a look is due already is not looked at twice.
	Look(keys []string) []string
}

// Images are the repositories of images whose tags are followed.
type Images interface {
	// LookAtImages asks for a look at the tags of images, and returns how many repositories that are. It does not wait.
	LookAtImages(images []string) int
}

// PullRequests are what is done about pull requests.
type PullRequests interface {
	// PullRequest is told that something happened to one: that it is worth asking the forge about. It must return at
	// once, for the forge waits; what it does later is bounded and coalesced by whoever implements it. The event's
	// words are of strangers.
	PullRequest(ev forge.Event)
}

// Options are what a Server is made from.
type Options struct {
	// Endpoints are by their paths.
	Endpoints map[string]webhook.Endpoint
	// MaxBody is the size of the largest delivery in bytes. Default DefaultMaxBody.
	MaxBody int64
	// Rewrites say where repositories are cloned from when deliveries name another place.
	Rewrites []forge.Rewrite
	Sources  Sources
	// PullRequests is nil when nobody waits for them.
	PullRequests PullRequests
	// Images is nil when no tags are followed.
	Images Images
	Log    zerolog.Logger
}

const (
	// DefaultMaxBody is the size of the largest delivery in bytes.
	DefaultMaxBody = 2 << 20
	// budget is how many bytes of all bodies are held at a time, at least one of the largest.
	budget = 8 << 20
	// waitForBudget is how long a delivery waits for its part.
	waitForBudget = 3 * time.Second
	// remembered is how many deliveries are known, so that one that comes again counts once.
	remembered = 10_000
)

// Server answers deliveries. It is an http.Handler.
type Server struct {
	options Options
	memory  *webhook.Memory
	room    *semaphore.Weighted
	size    int64 // of room
	// buffers are for bodies that do not say how large they are: as many as there is room for.
	buffers chan []byte
	// accepted and rejected write some lines a minute, however many deliveries there are.
	accepted, rejected zerolog.Logger

	mu        sync.Mutex
	counts    map[Count]uint64
	endpoints map[string]EndpointStats // by path
	looks     uint64
	last      map[string]Delivery // by source
}

// New returns a Server, or what is wrong with an endpoint.
func New(o Options) (*Server, error) {
	o.MaxBody = cmp.Or(o.MaxBody, DefaultMaxBody)
	for _, path := range slices.Sorted(maps.Keys(o.Endpoints)) {
		if err := o.Endpoints[path].Check(); err != nil {
			return nil, fmt.Errorf("hook %s: %w", path, err)
		}
	}
	for _, r := range o.Rewrites {
		if !r.Valid() {
			return nil, fmt.Errorf("the rewrite from %q to %q must have a host on both sides", r.From, r.To)
		}
	}
	size := max(budget, o.MaxBody)
	burst := func(n uint32) zerolog.Logger {
		return o.Log.Sample(&zerolog.BurstSampler{Burst: n, Period: time.Minute})
	}
	return &Server{
		options: o, memory: webhook.NewMemory(remembered), room: semaphore.NewWeighted(size), size: size, buffers: make(chan []byte, size/o.MaxBody),
		accepted: burst(60), rejected: burst(10), counts: map[Count]uint64{}, endpoints: map[string]EndpointStats{}, last: map[string]Delivery{},
	}, nil
}

// answer is how a request ends.
type answer struct {
	status int
	result Result
	text   string
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a, path := answer{http.StatusNotFound, NotFound, "there is no hook here"}, ""
	e, ok := s.options.Endpoints[r.URL.Path]
	if ok {
		a, path = s.deliver(w, r, e), r.URL.Path
	}
	s.count(path, e.Forge, a.result)
	if a.status >= http.StatusBadRequest {
		// The connection ends: what else a stranger sends on it is not worth reading.
		w.Header().Set("Connection", "close")
		s.rejected.Warn().Str("forge", string(e.Forge)).Str("from", r.RemoteAddr).Int("status", a.status).Str("reason", string(a.result)).Msg("hook rejected: " + a.text)
	}
	switch a.status {
	case http.StatusMethodNotAllowed:
		w.Header().Set("Allow", http.MethodPost)
	case http.StatusUnauthorized:
		if e.Forge == forge.AzureDevOps {
			w.Header().Set("WWW-Authenticate", `Basic realm="hooks"`)
		}
	case http.StatusServiceUnavailable:
		w.Header().Set("Retry-After", "5")
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(a.status)
	_, _ = io.WriteString(w, a.text+"\n")
}

// deliver reads, proves and hands on one delivery.
func (s *Server) deliver(w http.ResponseWriter, r *http.Request, e webhook.Endpoint) answer {
	if token := r.URL.Query().Get("token"); token != "" && e.IsRegistry() {
		r.Header.Set(webhook.TokenHeader, token)
	}
	if a, ok := s.before(r, e); !ok {
		return a
	}
	body, release, a := s.read(w, r)
	defer release()
	if a.status != 0 {
		return a
	}
	if rejection := e.Verify(r.Header, body, time.Now()); rejection != nil {
		return refused(rejection)
	}
	ev, err := e.Parse(r.Header, body)
	if err != nil {
		var rejection *webhook.Rejection
		if errors.As(err, &rejection) {
			return refused(rejection)
		}
		return answer{http.StatusBadRequest, Result(webhook.Malformed), err.Error()}
	}
	switch {
	case ev.Kind == forge.Ping:
		return answer{http.StatusOK, Pinged, "this hook works"}
	case ev.Kind == forge.Ignored:
		return answer{http.StatusOK, Ignored, "nothing is done about this kind of event"}
	case s.memory.Seen(ev):
		s.accepted.Info().Str("forge", string(ev.Forge)).Str("delivery", ev.Delivery).Msg("hook ignored: it was delivered before")
		return answer{http.StatusOK, Repeated, "this was delivered before"}
	}
	return s.hand(ev)
}

// before checks what needs no body.
func (s *Server) before(r *http.Request, e webhook.Endpoint) (answer, bool) {
	if r.Method != http.MethodPost {
		return answer{http.StatusMethodNotAllowed, BadMethod, "a hook is delivered by POST"}, false
	}
	kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	switch {
	case kind == "application/x-www-form-urlencoded":
		return answer{http.StatusUnsupportedMediaType, BadType, "the delivery is a form: set the content type of this hook to application/json"}, false
	case err != nil || kind != "application/json" && !(e.IsRegistry() && strings.HasSuffix(kind, "+json")):
		return answer{http.StatusUnsupportedMediaType, BadType, "the content type must be application/json"}, false
	case r.Header.Get("Content-Encoding") != "":
		return answer{http.StatusUnsupportedMediaType, BadType, "the delivery must not be compressed"}, false
	case r.ContentLength > s.options.MaxBody:
		return s.tooLarge(), false
	}
	if rejection := e.Before(r.Header); rejection != nil {
		return refused(rejection), false
	}
	return answer{}, true
}

func (s *Server) tooLarge() answer {
	return answer{http.StatusRequestEntityTooLarge, TooLarge, fmt.Sprintf("the delivery has more than %d bytes (hooks.maxBody)", s.options.MaxBody)}
}

// read reads the body, as far as it may be. All bodies together stay below a limit until they are released.
func (s *Server) read(w http.ResponseWriter, r *http.Request) (body []byte, release func(), _ answer) {
	need := r.ContentLength
	if need < 0 {
		need = s.options.MaxBody // it does not say
	}
	need = max(need, 1)
	ctx, cancel := context.WithTimeout(r.Context(), waitForBudget)
	defer cancel()
	if s.room.Acquire(ctx, need) != nil {
		return nil, func() {}, answer{http.StatusServiceUnavailable, Busy, "too many deliveries at a time: send this one again"}
	}
	release = func() { s.room.Release(need) }
	reader := http.MaxBytesReader(w, r.Body, s.options.MaxBody)
	var err error
	if r.ContentLength >= 0 {
		body = make([]byte, r.ContentLength)
		_, err = io.ReadFull(reader, body)
	} else {
		buffer := s.buffer()
		release = func() {
			s.buffers <- buffer // there is room: it was taken from there
			s.room.Release(need)
		}
		var n int
		if n, err = io.ReadFull(reader, buffer); errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			err = nil // it is shorter than it may be
		}
		body = buffer[:n]
	}
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return nil, release, s.tooLarge()
	case err != nil:
		return nil, release, answer{http.StatusBadRequest, Broken, "the delivery ended before its end"}
	}
	return body, release, answer{}
}

// buffer returns room for the largest body and one byte more, which is never read into.
func (s *Server) buffer() []byte {
	select {
	case b := <-s.buffers:
		return b
	default:
		return make([]byte, s.options.MaxBody+1)
	}
}

// refused is the answer to a delivery that is not proved, or not understood.
func refused(r *webhook.Rejection) answer {
	if r.Code == webhook.Malformed {
		return answer{http.StatusBadRequest, Result(r.Code), r.Reason}
	}
	return answer{http.StatusUnauthorized, Result(r.Code), r.Reason}
}

// hand has what an event is about looked at.
func (s *Server) hand(ev forge.Event) answer {
	var names []string
	if ev.Kind.Moves() {
		names = s.options.Sources.Look(ev.Repository.Keys(s.options.Rewrites))
		slices.Sort(names)
	}
	if ev.Kind.IsPullRequest() && s.options.PullRequests != nil {
		s.options.PullRequests.PullRequest(ev)
	}
	looks := len(names)
	if ev.Kind == forge.ImagePushed && s.options.Images != nil {
		looks = s.options.Images.LookAtImages(ev.Images)
	}
	now := time.Now()
	s.mu.Lock()
	s.looks += uint64(looks)
	for _, n := range names {
		s.last[n] = Delivery{At: now, Forge: ev.Forge, Event: ev.Kind, Ref: ev.Ref}
	}
	s.mu.Unlock()
	s.accepted.Info().Str("forge", string(ev.Forge)).Str("event", string(ev.Kind)).Str("delivery", ev.Delivery).Str("ref", ev.Ref).Strs("sources", names).Strs("images", ev.Images).Msg("hook accepted")
	text := "accepted"
	switch {
	case len(names) > 0:
		text = "accepted: looking at " + strings.Join(names, ", ")
	case ev.Kind == forge.ImagePushed && looks > 0:
		text = "accepted: looking at the tags of " + strings.Join(ev.Images, ", ")
	case ev.Kind == forge.ImagePushed:
		text = "accepted: no ImageRepository follows " + strings.Join(ev.Images, ", ")
	case ev.Kind.Moves():
		text = "accepted: no source is cloned from this repository (hooks.rewrites may say where it is cloned from)"
	}
	return answer{http.StatusAccepted, Accepted, text}
}
