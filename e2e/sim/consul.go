package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairlead-dev/fairlead/apply/executor"
	"github.com/fairlead-dev/fairlead/runtimes/consul"
)

// catalog is a model of the node's Consul agent; it outlives the daemon. Only some worlds have one.
type catalog struct {
	w *world

	mu       sync.Mutex
	services map[string]*registered
}

// registered is a service that the agent has, in the words of its API.
type registered struct {
	ID, Service, Address string
	Port                 int
	Tags                 []string
	Meta                 map[string]string
	Weights              struct{ Passing, Warning int }

	ttl    time.Duration
	passed time.Time // when its check last passed; zero when it has none
}

func (r *registered) passing() bool { return !r.passed.IsZero() && time.Since(r.passed) <= r.ttl }

// stranger is a service that somebody else registered.
const stranger = "stranger"

// consulIs is how the agent is at the moment.
type consulIs string

const (
	consulWell   consulIs = "well"
	consulAway   consulIs = "away"   // connections are refused
	consulSilent consulIs = "silent" // a partition: nothing is answered
	consulLossy  consulIs = "lossy"  // some requests are carried out and not answered
)

func newCatalog(w *world) *catalog {
	c := &catalog{w: w}
	c.wipe()
	return c
}

// wipe is what a restart of an agent without its data does; who else registers services does so again.
func (c *catalog) wipe() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.services = map[string]*registered{stranger: {ID: stranger, Service: "db", Address: "192.0.2.9", Port: 5432}}
}

// register gives an incarnation of the daemon the real registry of Consul, with a connection to the model.
func (c *catalog) register(i *incarnation) executor.Registered {
	r, err := consul.New(consul.Options{
		Installation: "fairlead", Settings: consul.Settings{Compare: time.Minute, TTL: 2 * time.Minute}, Transport: &line{c, i},
	})
	if err != nil {
		panic(err)
	}
	i.work.Go(func() { _ = r.Run(i.ctx) })
	return executor.Registered{Registry: r, Gate: gateTime}
}

// line is the connection of one incarnation to the agent.
type line struct {
	*catalog
	inc *incarnation
}

var errConsul = errors.New("connection refused")

// RoundTrip implements http.RoundTripper.
func (l *line) RoundTrip(r *http.Request) (*http.Response, error) {
	ctx, what := r.Context(), "consul "+r.Method+" "+r.URL.Path
	var body []byte
	if r.Body != nil {
		var err error
		if body, err = io.ReadAll(r.Body); err != nil {
			return nil, err
		}
		var about struct{ ID string }
		if json.Unmarshal(body, &about) == nil && about.ID != "" {
			what += " " + about.ID
		}
	}
	n := l.inc.arrive(what)
	f := l.w.faultsNow()
	lost := f.consul == consulLossy && l.w.chance(what, f.episode, n)%3 == 0
	switch {
	case l.inc.dead.Load():
		return nil, dead(ctx)
	case f.consul == consulAway:
		return nil, errConsul
	case f.consul == consulSilent:
		return nil, l.inc.givenUp(ctx, what)
	}
	status, answer := l.serve(r.Method, r.URL.Path, body)
	if r.Method != http.MethodGet {
		l.w.say("    %s: %d, answered: %t", what, status, !lost)
	}
	if lost {
		return nil, l.inc.givenUp(ctx, what)
	}
	return &http.Response{
		StatusCode: status, Status: http.StatusText(status), Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(answer)), ContentLength: int64(len(answer)),
	}, nil
}

// serve answers a request as the agent does.
func (c *catalog) serve(method, path string, body []byte) (status int, answer []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	path, ok := strings.CutPrefix(path, "/v1/agent/")
	if !ok {
		return http.StatusNotFound, nil
	}
	if id, ok := strings.CutPrefix(path, "service/deregister/"); ok {
		c.touch(id)
		if c.services[id] == nil {
			return http.StatusNotFound, []byte("Unknown service ID")
		}
		delete(c.services, id)
		return http.StatusOK, nil
	}
	if check, ok := strings.CutPrefix(path, "check/update/"); ok {
		s := c.services[strings.TrimPrefix(check, "service:")]
		if s == nil || s.passed.IsZero() {
			return http.StatusNotFound, []byte("Unknown check ID")
		}
		s.passed = time.Now()
		return http.StatusOK, nil
	}
	switch path {
	case "service/register":
		return c.add(body)
	case "services":
		return encoded(c.services)
	case "checks":
		type check struct{ CheckID, ServiceID, Status, Type string }
		checks := map[string]check{}
		for id, s := range c.services {
			if !s.passed.IsZero() {
				checks["service:"+id] = check{"service:" + id, id, map[bool]string{true: "passing", false: "critical"}[s.passing()], "ttl"}
			}
		}
		return encoded(checks)
	}
	return http.StatusNotFound, []byte(method + " is unknown here: " + path)
}

func (c *catalog) add(body []byte) (int, []byte) {
	var s struct {
		registered
		Name  string
		Check struct{ TTL string }
	}
	if err := json.Unmarshal(body, &s); err != nil {
		return http.StatusBadRequest, []byte(err.Error())
	}
	c.touch(s.ID)
	ttl, err := time.ParseDuration(s.Check.TTL)
	if err != nil {
		return http.StatusBadRequest, []byte(err.Error())
	}
	s.registered.Service, s.ttl, s.passed = s.Name, ttl, time.Now()
	c.services[s.ID] = &s.registered
	return http.StatusOK, nil
}

// touch judges a change of what is registered.
func (c *catalog) touch(id string) {
	if id == stranger {
		c.w.violate("a service in Consul, which is not ours, was touched")
	}
}

func encoded(v any) (int, []byte) {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return http.StatusOK, b
}

// atRest holds that exactly the ready endpoints of all Services are registered, and pass.
func (c *catalog) atRest(routes []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	var have []string
	for id, s := range c.services {
		if id == stranger {
			continue
		}
		have = append(have, fmt.Sprintf("%s:%d", s.Address, s.Port))
		if !s.passing() {
			c.w.violate("at the end the check of %s in Consul does not pass", id)
		}
	}
	slices.Sort(have)
	slices.Sort(routes)
	if !slices.Equal(have, routes) {
		c.w.violate("at the end Consul has %v, and Services have %v", have, routes)
	}
}

// consul makes the agent be away, silent or lossy, forget everything, or well again.
func (w *world) consul() {
	if w.catalog == nil {
		return
	}
	if w.rnd.IntN(3) == 0 {
		w.say("Consul's agent forgets everything")
		w.catalog.wipe()
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.faults.episode++
	w.faults.consul = []consulIs{consulWell, consulAway, consulSilent, consulLossy}[w.rnd.IntN(4)]
	w.sayLocked("Consul's agent is %s", w.faults.consul)
}
