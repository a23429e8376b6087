package notify

import (
	"crypto/sha256"
	"encoding/hex"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

const (
	maxWaiting = 200  // events that are told one by one in a message
	maxSaid    = 5000 // things that a channel remembers
)

// Memory is what a channel has said, by what it is about.
type Memory map[string]Said

// Said is one thing that was said.
type Said struct {
	// Digest is that of its words; the words themselves are not kept.
	Digest string    `json:"digest"`
	At     time.Time `json:"at"`
	// Warning is true until it is said that all is well.
	Warning bool `json:"warning,omitempty"`
}

// inbox collects what one channel is to say, and knows what it has said. Its methods are told the time.
type inbox struct {
	group, repeat time.Duration
	limit         int // messages an hour

	said    Memory
	waiting []Item
	more    int         // events that were too many
	due     time.Time   // of what waits
	sent    []time.Time // of the messages of the last hour
}

// outcome is what becomes of an event.
type outcome int

const (
	excluded outcome = iota
	repeated
	overflowed
	queued
)

// batch is what one message says.
type batch struct {
	id    string
	items []Item
	more  int
	// before is what was said before about the same, for the case that this is not heard.
	before Memory
}

// add takes an event that the rules want or not. What is well again is told wherever it was told that it was not.
func (b *inbox) add(e api.Event, wanted bool, now time.Time) outcome {
	item := itemOf(e, now)
	item.Recovered = recovers(e) && b.ill(item.Subject)
	if item.Recovered {
		b.forgive(item.Subject)
	}
	if !wanted && !item.Recovered {
		return excluded
	}
	key := item.key()
	if at := slices.IndexFunc(b.waiting, func(w Item) bool { return w.key() == key }); at >= 0 {
		// It is not said yet, so only its newest state is.
		item.Count += b.waiting[at].Count
		b.waiting = append(slices.Delete(b.waiting, at, at+1), item)
		return repeated
	}
	if s, ok := b.said[key]; ok && s.Digest == item.digest() && !item.Recovered && (b.repeat <= 0 || now.Sub(s.At) < b.repeat) {
		return repeated
	}
	if len(b.waiting) == 0 && b.more == 0 {
		b.due = now.Add(b.group)
	}
	if len(b.waiting) >= maxWaiting {
		b.more++
		return overflowed
	}
	b.waiting = append(b.waiting, item)
	return queued
}

// recovers reports whether an event says that all is well with an application, a source or Consul.
func recovers(e api.Event) bool {
	if e.Type != api.Normal || e.Ref.Name != "" || e.Step != nil {
		return false
	}
	return e.Application != "" && e.Reason == "Applied" || e.Source != "" && e.Reason == "Fetched" || e.Reason == "ConsulRegistered"
}

// ill reports whether something bad was said, or is going to be, and nothing good since.
func (b *inbox) ill(subject string) bool {
	for k, s := range b.said {
		if s.Warning && strings.HasPrefix(k, subject+"\x00") {
			return true
		}
	}
	return slices.ContainsFunc(b.waiting, func(i Item) bool { return i.Subject == subject && i.Severity == api.Warning })
}

// forgive forgets what was bad about a subject, so that it is said when it comes again.
func (b *inbox) forgive(subject string) {
	for k, s := range b.said {
		if s.Warning && strings.HasPrefix(k, subject+"\x00") {
			delete(b.said, k)
		}
	}
}

// take returns what is to be said now, or when to ask again; zero for not before the next event. At the end nothing is
// waited for.
func (b *inbox) take(now time.Time, end bool) (_ batch, ok bool, again time.Time) {
	if len(b.waiting) == 0 {
		return batch{}, false, time.Time{}
	}
	if !end {
		b.sent = slices.DeleteFunc(b.sent, func(t time.Time) bool { return now.Sub(t) >= time.Hour })
		if len(b.sent) >= b.limit {
			if free := b.sent[len(b.sent)-b.limit].Add(time.Hour); free.After(b.due) {
				b.due = free
			}
		}
		if now.Before(b.due) {
			return batch{}, false, b.due
		}
	}
	out := batch{id: id(), items: b.waiting, more: b.more, before: Memory{}}
	b.waiting, b.more, b.due = nil, 0, time.Time{}
	b.sent = append(b.sent, now)
	if b.said == nil {
		b.said = Memory{}
	}
	for _, i := range out.items {
		key := i.key()
		if s, ok := b.said[key]; ok {
			out.before[key] = s
		}
		if i.Recovered {
			b.forgive(i.Subject)
		} else {
			b.said[key] = Said{Digest: i.digest(), At: now, Warning: i.Severity == api.Warning}
		}
	}
	b.trim()
	return out, true, time.Time{}
}

// unsay forgets that a batch was said.
func (b *inbox) unsay(x batch) {
	for _, i := range x.items {
		key := i.key()
		if s, ok := b.said[key]; !ok || s.Digest != i.digest() {
			continue
		}
		delete(b.said, key)
		if s, ok := x.before[key]; ok {
			b.said[key] = s
		}
	}
}

// trim forgets the oldest.
func (b *inbox) trim() {
	if len(b.said) <= maxSaid {
		return
	}
	keys := make([]string, 0, len(b.said))
	for k := range b.said {
		keys = append(keys, k)
	}
	slices.SortFunc(keys, func(x, y string) int {
		if c := b.said[x].At.Compare(b.said[y].At); c != 0 {
			return c
		}
		return strings.Compare(x, y)
	})
	for _, k := range keys[:len(keys)-maxSaid*9/10] {
		delete(b.said, k)
	}
}

// key is what an item is about.
func (i Item) key() string { return i.Subject + "\x00" + i.Object + "\x00" + i.Reason }

// digest tells one wording from another.
func (i Item) digest() string {
	sum := sha256.Sum256([]byte(string(i.Severity) + "\x00" + i.Message))
	return hex.EncodeToString(sum[:12])
}
