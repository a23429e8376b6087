package notify

import (
	"cmp"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// Message is what a channel is told at a time. It is what templates see, and the default body of a webhook.
type Message struct {
	// ID stays the same when a message is sent again.
	ID   string    `json:"id"`
	Time time.Time `json:"time"`
	// Title is one line; Text is everything in plain text.
	Title string `json:"title"`
	Text  string `json:"text"`
	// Severity is Warning when one of Items is one.
	Severity     api.EventType `json:"severity"`
	Host         string        `json:"host"`
	Installation string        `json:"installation"`
	Items        []Item        `json:"items"`
	// More is how many events more there were.
	More int `json:"more,omitempty"`
	// Test is true for a message that only tries the channel.
	Test bool `json:"test,omitempty"`
}

// Item is one thing that happened.
type Item struct {
	// Subject is what it is about, for example "application shop".
	Subject     string        `json:"subject"`
	Severity    api.EventType `json:"severity"`
	Reason      string        `json:"reason"`
	Message     string        `json:"message"`
	Application string        `json:"application,omitempty"`
	Source      string        `json:"source,omitempty"`
	Node        string        `json:"node,omitempty"`
	// Object is the one concerned, for example "Pod shop/web-1".
	Object   string    `json:"object,omitempty"`
	Revision string    `json:"revision,omitempty"`
	Time     time.Time `json:"time"`
	// Count is how often it happened since it was said last.
	Count int `json:"count"`
	// Recovered is true when all is well again.
	Recovered bool `json:"recovered,omitempty"`
}

func itemOf(e api.Event, now time.Time) Item {
	i := Item{
		Severity: e.Type, Reason: plain(e.Reason, 100), Message: plain(e.Message, 4000), Application: plain(e.Application, 300), Source: plain(e.Source, 300),
		Node: string(e.Node), Revision: plain(e.Revision, 100), Time: e.Time, Count: 1,
	}
	if i.Time.IsZero() {
		i.Time = now
	}
	if e.Ref.Name != "" {
		i.Object = plain(e.Ref.String(), 600)
	}
	switch {
	case e.Application != "":
		i.Subject = "application " + i.Application
	case e.Source != "":
		i.Subject = "source " + i.Source
	case e.Node != "":
		i.Subject = "node " + i.Node
	default:
		i.Subject = "fairlead"
	}
	return i
}

// plain returns text without control characters but line ends and without characters that change the order of others, at
// most size bytes of it: it may come from a repository.
func plain(s string, size int) string {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || unicode.IsPrint(r) {
			return r
		}
		if r == '\t' || r == '\r' {
			return ' '
		}
		return -1
	}, strings.ToValidUTF8(s, "\uFFFD"))
	return cut(strings.TrimRight(s, " \n"), size)
}

// cut returns at most size bytes, and says so when that is not all.
func cut(s string, size int) string {
	if len(s) <= size {
		return s
	}
	end := max(size-len("…"), 0)
	for end > 0 && s[end]&0xC0 == 0x80 {
		end--
	}
	return s[:end] + "…"
}

// id returns one that no other message has.
func id() string {
	b := make([]byte, 12)
	_, _ = rand.Read(b) // never fails
	return hex.EncodeToString(b)
}

// from says where messages come from.
func (n *Notifier) from() string {
	return strings.TrimSpace(cmp.Or(n.options.Installation, "fairlead") + " on " + n.options.Host)
}

// message returns what a batch says.
func (n *Notifier) message(b batch) Message {
	m := Message{ID: b.id, Time: time.Now(), Severity: api.Normal, Host: n.options.Host, Installation: n.options.Installation, Items: slices.Clone(b.items), More: b.more}
	// What belongs together stands together, what is wrong first, otherwise as it happened.
	order := map[string]int{}
	for _, i := range m.Items {
		if _, ok := order[i.Subject]; !ok {
			order[i.Subject] = len(order)
		}
		if i.Severity == api.Warning {
			m.Severity = api.Warning
		}
	}
	bad := map[string]int{}
	for _, i := range m.Items {
		if i.Severity == api.Warning {
			bad[i.Subject] = -1
		}
	}
	slices.SortStableFunc(m.Items, func(x, y Item) int {
		return cmp.Or(cmp.Compare(bad[x.Subject], bad[y.Subject]), cmp.Compare(order[x.Subject], order[y.Subject]))
	})
	m.Title = strings.Join(strings.Fields(n.from()+": "+headline(m.Items)), " ")
	m.Text = m.text()
	return m
}

// headline sums items up in one line.
func headline(items []Item) string {
	var warned, well, other []string
	add := func(list *[]string, i Item) {
		name := strings.TrimPrefix(i.Subject, "application ")
		if !slices.Contains(*list, name) {
			*list = append(*list, name)
		}
	}
	for _, i := range items {
		switch {
		case i.Severity == api.Warning:
			add(&warned, i)
		case i.Recovered:
			add(&well, i)
		default:
			add(&other, i)
		}
	}
	if len(items) == 1 && !items[0].Recovered {
		return cut(strings.TrimPrefix(items[0].Subject, "application ")+" "+items[0].Reason, 200)
	}
	var parts []string
	for _, p := range []struct {
		verb  string
		names []string
	}{{"trouble with ", warned}, {"well again: ", well}, {"news of ", other}} {
		const most = 3
		switch n := len(p.names); {
		case n > most:
			parts = append(parts, fmt.Sprintf("%s%s and %d more", p.verb, strings.Join(p.names[:most], ", "), n-most))
		case n > 0:
			parts = append(parts, p.verb+strings.Join(p.names, ", "))
		}
	}
	return cut(strings.Join(parts, "; "), 200)
}

// heading is the line over the items of a subject.
func (i Item) heading() string {
	if len(i.Revision) > 12 {
		return i.Subject + " at " + i.Revision[:12]
	}
	if i.Revision != "" {
		return i.Subject + " at " + i.Revision
	}
	return i.Subject
}

// line is what is said of an item below its heading.
func (i Item) line() string {
	s := i.Reason
	if i.Recovered {
		s = "well again"
	}
	if i.Object != "" && !strings.Contains(i.Message, i.Object) {
		s += " " + i.Object
	}
	if i.Message != "" {
		s += ": " + i.Message
	}
	if i.Count > 1 {
		s += fmt.Sprintf(" (%d times)", i.Count)
	}
	return s
}

// text is everything in plain text.
func (m Message) text() string {
	var b strings.Builder
	for at, i := range m.Items {
		if at == 0 || i.Subject != m.Items[at-1].Subject {
			if at > 0 {
				b.WriteString("\n")
			}
			b.WriteString(i.heading() + "\n")
		}
		b.WriteString("  " + strings.ReplaceAll(i.line(), "\n", "\n  ") + "\n")
	}
	if m.More > 0 {
		fmt.Fprintf(&b, "\nand %s more: see `fairlead events`\n", count(m.More, "event"))
	}
	return b.String()
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// part is one subject's heading and lines, for services that have formatting.
type part struct{ heading, lines string }

// parts returns the items by subject, as many as fit into size bytes, each at most each bytes, and a last line when there
// is more.
func (m Message) parts(size, each, most int) (out []part, rest string) {
	left, shown := size, 0
	for at := 0; at < len(m.Items); {
		end := at + 1
		for end < len(m.Items) && m.Items[end].Subject == m.Items[at].Subject {
			end++
		}
		p := part{heading: cut(m.Items[at].heading(), 200)}
		var lines []string
		for _, i := range m.Items[at:end] {
			lines = append(lines, i.line())
		}
		p.lines = cut(strings.Join(lines, "\n"), each-len(p.heading))
		if need := len(p.heading) + len(p.lines); len(out) == most || need > left && len(out) > 0 {
			break
		} else {
			left -= need
		}
		out, at, shown = append(out, p), end, end
	}
	if n := len(m.Items) - shown + m.More; n > 0 {
		rest = "and " + count(n, "event") + " more: see `fairlead events`"
	}
	return out, rest
}
