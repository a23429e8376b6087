package settings

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/notify"
)

// Notifications say who is told of what happens.
type Notifications struct {
	// Host is how messages name this host. Default: its name.
	Host string `yaml:"host"`
	// Channels are the places that are told.
	Channels []NotificationChannel `yaml:"channels"`
}

// NotificationChannel is one place that is told.
type NotificationChannel struct {
	// Name is unique. Required.
	Name string `yaml:"name"`
	// Kind is slack, discord, teams, matrix, email, webhook or shoutrrr. Required.
	Kind string `yaml:"kind"`
	// URL is an address without a secret in it: a webhook's, a Matrix homeserver's, that of Slack's API. URLFile holds one that is secret,
	// and is read for every message; URLEnv names an environment variable instead.
	URL     string `yaml:"url"`
	URLFile string `yaml:"urlFile"`
	URLEnv  string `yaml:"urlEnv"`
	// TokenFile holds a token, or the password for email; TokenEnv names an environment variable instead.
	TokenFile string `yaml:"tokenFile"`
	TokenEnv  string `yaml:"tokenEnv"`
	// Room is a channel's ID for slack with a token, and a room's ID or alias for matrix.
	Room string `yaml:"room"`
	// Server, TLS, From, To and Username are those of email.
	Server   string   `yaml:"server"`
	TLS      string   `yaml:"tls"`
	From     string   `yaml:"from"`
	To       []string `yaml:"to"`
	Username string   `yaml:"username"`
	// Method, Headers, Template or TemplateFile, and KeyFile or KeyEnv, with which bodies are signed, are those of webhook.
	Method       string            `yaml:"method"`
	Headers      map[string]string `yaml:"headers"`
	Template     string            `yaml:"template"`
	TemplateFile string            `yaml:"templateFile"`
	KeyFile      string            `yaml:"keyFile"`
	KeyEnv       string            `yaml:"keyEnv"`
	// CAFile holds certificates in PEM that are trusted besides the system's.
	CAFile string `yaml:"caFile"`
	// Events say what is told: what one of them matches. Default every warning. Exclude takes away from that.
	Events  []NotificationRule `yaml:"events"`
	Exclude []NotificationRule `yaml:"exclude"`
	// Group is how long further events are waited for after the first. Default 15s.
	Group Duration `yaml:"group"`
	// Repeat is after what time something that is still so is said again. Default never.
	Repeat Duration `yaml:"repeat"`
	// Limit is how many messages are sent in any hour. Default 60.
	Limit int `yaml:"limit"`
}

// NotificationRule selects events. Names may have * for anything; empty lists select everything.
type NotificationRule struct {
	// Severity is Warning or Normal, which is everything. Default Warning, or Normal where reasons are named.
	Severity     string   `yaml:"severity"`
	Reasons      []string `yaml:"reasons"`
	Applications []string `yaml:"applications"`
	Sources      []string `yaml:"sources"`
	// Labels is a label selector for the application.
	Labels string `yaml:"labels"`
}

// channelKeys are the keys that belong to each kind, besides those of all.
var channelKeys = map[string][]string{
	"slack":    {"url", "urlFile", "urlEnv", "tokenFile", "tokenEnv", "room"},
	"discord":  {"urlFile", "urlEnv"},
	"teams":    {"urlFile", "urlEnv"},
	"matrix":   {"url", "tokenFile", "tokenEnv", "room"},
	"email":    {"server", "tls", "from", "to", "username", "tokenFile", "tokenEnv"},
	"webhook":  {"url", "urlFile", "urlEnv", "tokenFile", "tokenEnv", "method", "headers", "template", "templateFile", "keyFile", "keyEnv"},
	"shoutrrr": {"urlFile", "urlEnv"},
}

// given are the keys of a kind that are set.
func (c NotificationChannel) given() map[string]bool {
	out := map[string]bool{}
	for key, is := range map[string]bool{
		"url": c.URL != "", "urlFile": c.URLFile != "", "urlEnv": c.URLEnv != "", "tokenFile": c.TokenFile != "", "tokenEnv": c.TokenEnv != "",
		"room": c.Room != "", "server": c.Server != "", "tls": c.TLS != "", "from": c.From != "", "to": len(c.To) > 0, "username": c.Username != "",
		"method": c.Method != "", "headers": len(c.Headers) > 0, "template": c.Template != "", "templateFile": c.TemplateFile != "",
		"keyFile": c.KeyFile != "", "keyEnv": c.KeyEnv != "",
	} {
		if is {
			out[key] = true
		}
	}
	return out
}

var channelName = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

func (n Notifications) check(add func(key, format string, args ...any)) {
	names := map[string]bool{}
	for i, c := range n.Channels {
		at := fmt.Sprintf("notifications.channels[%d]", i)
		if !channelName.MatchString(c.Name) {
			add(at+".name", "%q must be letters, digits, dots and dashes, at most 63", c.Name)
		} else if names[c.Name] {
			add(at+".name", "%q is the name of another channel too: give one of them another", c.Name)
		}
		names[c.Name] = true
		c.check(at, add)
	}
}

func (c NotificationChannel) check(at string, add func(key, format string, args ...any)) {
	known, ok := channelKeys[c.Kind]
	if !ok {
		add(at+".kind", "%q is unknown: use %s", c.Kind, strings.Join(slices.Sorted(maps.Keys(channelKeys)), ", "))
		return
	}
	given := c.given()
	for _, key := range slices.Sorted(maps.Keys(given)) {
		if !slices.Contains(known, key) {
			add(at+"."+key, "does not belong to %s", c.Kind)
		}
	}
	one := func(required bool, keys ...string) {
		n := 0
		for _, k := range keys {
			if given[k] {
				n++
			}
		}
		if n > 1 || required && n == 0 {
			add(at, "set one of %s", strings.Join(keys, ", "))
		}
	}
	need := func(keys ...string) {
		for _, k := range keys {
			if !given[k] {
				add(at+"."+k, "is missing")
			}
		}
	}
	one(c.Kind == "matrix", "tokenFile", "tokenEnv")
	switch token := given["tokenFile"] || given["tokenEnv"]; c.Kind {
	case "slack":
		if one(!token, "url", "urlFile", "urlEnv"); token {
			need("room")
		} else if given["url"] {
			add(at+".url", "the URL of a webhook is a secret: put it into a file and name that with urlFile")
		}
	case "discord", "teams", "shoutrrr":
		one(true, "urlFile", "urlEnv")
	case "matrix":
		need("url", "room")
	case "email":
		need("server", "from", "to")
		if given["username"] != token {
			add(at+".username", "belongs together with tokenFile or tokenEnv, which hold the password")
		}
	case "webhook":
		one(true, "url", "urlFile", "urlEnv")
		one(false, "template", "templateFile")
		one(false, "keyFile", "keyEnv")
	}
	if u, err := url.Parse(c.URL); c.URL != "" && (err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" || u.User != nil) {
		add(at+".url", "is not a URL without credentials that begins with https://")
	}
	switch c.Method {
	case "", http.MethodPost, http.MethodPut, http.MethodPatch:
	default:
		add(at+".method", "%q is not possible: use POST, PUT or PATCH", c.Method)
	}
	switch notify.TLSMode(c.TLS) {
	case "", notify.STARTTLS, notify.Implicit, notify.None:
	default:
		add(at+".tls", "%q is unknown: use starttls, implicit or none", c.TLS)
	}
	if c.Limit < 0 || c.Limit > 3600 {
		add(at+".limit", "%d is not possible: use 1 to 3600 messages an hour", c.Limit)
	}
	for list, rules := range map[string][]NotificationRule{"events": c.Events, "exclude": c.Exclude} {
		for i, r := range rules {
			where := fmt.Sprintf("%s.%s[%d]", at, list, i)
			switch api.EventType(r.Severity) {
			case "", api.Normal, api.Warning:
			default:
				add(where+".severity", "%q is unknown: use Warning or Normal", r.Severity)
			}
			if _, err := notify.NewRule(notify.Rule{}, r.Labels); err != nil {
				add(where+".labels", "%v", err)
			}
		}
	}
	// What the files say is looked at when they are read.
	if _, err := c.sender(""); err != nil && c.TemplateFile == "" && c.CAFile == "" {
		add(at, "%v", err)
	}
}

// rules returns rules as notify has them.
func rules(list []NotificationRule, exclude bool) []notify.Rule {
	var out []notify.Rule
	for _, r := range list {
		rule := notify.Rule{Severity: api.EventType(r.Severity), Reasons: r.Reasons, Applications: r.Applications, Sources: r.Sources}
		if rule.Severity == "" && len(r.Reasons) == 0 && !exclude {
			rule.Severity = api.Warning
		}
		rule, _ = notify.NewRule(rule, r.Labels) // it was checked
		out = append(out, rule)
	}
	return out
}

// secret returns what reads a secret; nil when neither is named.
func secret(file, env string) notify.Secret {
	if file == "" && env == "" {
		return nil
	}
	return func() (string, error) { return fileOrEnv(file, env) }
}

// sender returns what sends to the channel.
func (c NotificationChannel) sender(agent string) (notify.Sender, error) {
	h := notify.HTTP{UserAgent: agent}
	if c.CAFile != "" {
		var err error
		if h.CA, err = os.ReadFile(c.CAFile); err != nil {
			return nil, fmt.Errorf("read the CA certificates: %w", err)
		}
	}
	target, token := secret(c.URLFile, c.URLEnv), secret(c.TokenFile, c.TokenEnv)
	if c.URL != "" {
		target = func() (string, error) { return c.URL, nil }
	}
	switch c.Kind {
	case "slack":
		return notify.NewSlack(notify.Slack{URL: target, Token: token, Channel: c.Room}, h)
	case "discord":
		return notify.NewDiscord(notify.Discord{URL: target}, h)
	case "teams":
		return notify.NewTeams(notify.Teams{URL: target}, h)
	case "matrix":
		return notify.NewMatrix(notify.Matrix{Homeserver: c.URL, Room: c.Room, Token: token}, h)
	case "email":
		return notify.NewEmail(notify.Email{Server: c.Server, TLS: notify.TLSMode(c.TLS), From: c.From, To: c.To, Username: c.Username, Password: token}, h)
	case "webhook":
		template := c.Template
		if c.TemplateFile != "" {
			b, err := os.ReadFile(c.TemplateFile)
			if err != nil {
				return nil, fmt.Errorf("read the template: %w", err)
			}
			template = string(b)
		}
		return notify.NewWebhook(notify.Webhook{URL: target, Token: token, Method: c.Method, Headers: c.Headers, Template: template, Key: secret(c.KeyFile, c.KeyEnv)}, h)
	case "shoutrrr":
		return &notify.Shoutrrr{URL: target}, nil
	}
	return nil, fmt.Errorf("%q is no kind of channel", c.Kind)
}

// Open returns the channels that can be used, and what is wrong with the others: that is no reason not to run. agent names
// this program to services. Nothing is sent yet.
func (n Notifications) Open(agent string) ([]notify.Channel, error) {
	var out []notify.Channel
	var errs []error
	for i, c := range n.Channels {
		s, err := c.sender(agent)
		if err != nil {
			errs = append(errs, fmt.Errorf("notifications.channels[%d]: %w", i, err))
			continue
		}
		out = append(out, notify.Channel{
			Name: c.Name, Kind: c.Kind, Sender: s, Events: rules(c.Events, false), Exclude: rules(c.Exclude, true),
			Group: time.Duration(c.Group), Repeat: time.Duration(c.Repeat), Limit: c.Limit,
		})
	}
	return out, errors.Join(errs...)
}

// HostName returns Host, or the machine's name.
func (n Notifications) HostName() string {
	name, err := os.Hostname()
	if err != nil {
		name = "this host"
	}
	return cmp.Or(n.Host, name)
}
