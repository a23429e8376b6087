package docker

import (
	"encoding/json"
	"testing"

	"github.com/docker/docker/api/types/events"

	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/runtimes"
)

// FuzzEvent reads arbitrary messages of an engine: nothing panics, and no labels are taken for ours that were not
// made with our key.
func FuzzEvent(f *testing.F) {
	e, err := New(Options{Installation: "test", Key: make([]byte, 32)})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { e.Close() })
	id := runtimes.Identity{Application: "shop", Pod: plan.PodKey{Namespace: "n", Name: "p"}, UID: "u", Container: "c"}
	o := origin{Image: "web:1", Sandbox: "s", Made: "2026-01-01T00:00:00Z"}
	genuine := e.labels(id, o)
	genuine["image"], genuine["name"], genuine["exitCode"] = o.Image, e.name(id), "137"
	for _, action := range []events.Action{events.ActionDie, events.ActionStart, events.ActionDestroy, "exec_start: sh"} {
		b, err := json.Marshal(events.Message{Type: events.ContainerEventType, Action: action, Actor: events.Actor{ID: "x", Attributes: genuine}, TimeNano: 1})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"Action":"die","Actor":{"Attributes":{"dev.fairlead.installation":"test","dev.fairlead.attempt":"9999999999999999999"}}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var m events.Message
		if json.Unmarshal(data, &m) != nil {
			return
		}
		ev, ok := e.event(m)
		if !ok || ev.Kind == runtimes.EventGap {
			return
		}
		// Only the labels that were made above have a MAC that fits.
		for name, value := range e.labels(id, o) {
			if m.Actor.Attributes[name] != value {
				t.Fatalf("forged: %s is %q, and the event is %+v", name, m.Actor.Attributes[name], ev)
			}
		}
	})
}
