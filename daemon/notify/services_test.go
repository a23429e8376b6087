package notify

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/emersion/go-sasl"
	"github.com/emersion/go-smtp"
	"github.com/google/go-cmp/cmp"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

// request is what a server got.
type request struct {
	Line   string
	Header http.Header
	Body   string
}

// web is an HTTP server that keeps what it gets, and answers what it is told to.
type web struct {
	*httptest.Server
	mu     sync.Mutex
	got    []request
	answer func(w http.ResponseWriter, r *http.Request)
}

func newWeb(t *testing.T, answer func(w http.ResponseWriter, r *http.Request)) *web {
	w := &web{answer: answer}
	w.Server = httptest.NewTLSServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.mu.Lock()
		w.got = append(w.got, request{r.Method + " " + r.RequestURI, r.Header, string(b)})
		w.mu.Unlock()
		w.answer(rw, r)
	}))
	t.Cleanup(w.Close)
	return w
}

// last returns the newest request.
func (w *web) last(t *testing.T) request {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.got) == 0 {
		t.Fatal("the server got nothing")
	}
	return w.got[len(w.got)-1]
}

// http trusts the server.
func (w *web) http() HTTP {
	return HTTP{CA: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: w.Certificate().Raw}), UserAgent: "fairlead/1"}
}

func is(s string) Secret { return func() (string, error) { return s + "\n", nil } }

func ok(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok") }

// hostile is a message whose words try to be more than words.
var hostile = func() Message {
	n := New(Options{Host: "web1", Installation: "fairlead"})
	m := n.message(batch{id: "0a1b2c", more: 2, items: []Item{
		{Subject: "application shop", Severity: api.Warning, Reason: "ApplyFailed", Message: "<!channel> @everyone *b* [x](https://evil) <b>&amp;\nline 2", Revision: "0123456789abcdef", Count: 3},
		{Subject: "source config", Severity: api.Normal, Reason: "Fetched", Message: "fetched 1", Recovered: true, Count: 1},
	}})
	m.Time = time.Date(2026, 11, 27, 6, 0, 0, 0, time.UTC)
	return m
}()

// sameJSON compares two JSON texts.
func sameJSON(t *testing.T, want, got string) {
	t.Helper()
	var w, g any
	if err := json.Unmarshal([]byte(want), &w); err != nil {
		t.Fatalf("what is wanted is no JSON: %v", err)
	}
	if err := json.Unmarshal([]byte(got), &g); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, got)
	}
	if d := cmp.Diff(w, g); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

const slackBody = `{
	"text": "fairlead on web1: trouble with shop; well again: source config",
	"blocks": [
		{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
			{"type": "text", "text": "⚠ fairlead on web1: trouble with shop; well again: source config", "style": {"bold": true}}]}]},
		{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
			{"type": "text", "text": "application shop at 0123456789ab", "style": {"bold": true}},
			{"type": "text", "text": "\nApplyFailed: <!channel> @everyone *b* [x](https://evil) <b>&amp;\nline 2 (3 times)"}]}]},
		{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [
			{"type": "text", "text": "source config", "style": {"bold": true}}, {"type": "text", "text": "\nwell again: fetched 1"}]}]},
		{"type": "rich_text", "elements": [{"type": "rich_text_section", "elements": [{"type": "text", "text": "and 2 events more: see ` + "`fairlead events`" + `"}]}]}
	],
	"unfurl_links": false, "unfurl_media": false`

func TestSlack(t *testing.T) {
	w := newWeb(t, ok)
	s, err := NewSlack(Slack{URL: is(w.URL + "/services/T0/B0/hush")}, w.http())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	got := w.last(t)
	if got.Line != "POST /services/T0/B0/hush" || got.Header.Get("Content-Type") != "application/json; charset=utf-8" || got.Header.Get("User-Agent") != "fairlead/1" {
		t.Errorf("%s %v", got.Line, got.Header)
	}
	sameJSON(t, slackBody+"}", got.Body)
}

func TestSlackByToken(t *testing.T) {
	answer := `{"ok":true,"ts":"1.2"}`
	w := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) })
	s, err := NewSlack(Slack{URL: is(w.URL + "/api/"), Token: is("xoxb-hush"), Channel: "C123"}, w.http())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	got := w.last(t)
	if got.Line != "POST /api/chat.postMessage" || got.Header.Get("Authorization") != "Bearer xoxb-hush" {
		t.Errorf("%s %v", got.Line, got.Header)
	}
	sameJSON(t, slackBody+`, "channel": "C123"}`, got.Body)
	// Slack says with 200 that it does not take a message.
	for answer, temporary := range map[string]bool{`{"ok":false,"error":"channel_not_found"}`: false, `{"ok":false,"error":"ratelimited"}`: true, `<html>`: false} {
		w.answer = func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }
		err := s.Send(t.Context(), hostile)
		var again *Temporary
		if err == nil || errors.As(err, &again) != temporary {
			t.Errorf("%s: %v", answer, err)
		}
	}
}

func TestDiscord(t *testing.T) {
	w := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"id":"1"}`) })
	d, err := NewDiscord(Discord{URL: is(w.URL + "/api/webhooks/1/hush?thread_id=7")}, w.http())
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	got := w.last(t)
	if got.Line != "POST /api/webhooks/1/hush?thread_id=7&wait=true" {
		t.Error(got.Line)
	}
	sameJSON(t, `{
		"embeds": [{
			"title": "fairlead on web1\\: trouble with shop; well again\\: source config",
			"description": "**application shop at 0123456789ab**\nApplyFailed\\: \\<!channel\\> \\@everyone \\*b\\* \\[x\\]\\(https\\://evil\\) \\<b\\>&amp;\nline 2 \\(3 times\\)\n\n**source config**\nwell again\\: fetched 1\n\nand 2 events more\\: see \\`+"`fairlead events\\\\`"+`",
			"color": 14105161, "timestamp": "2026-11-27T06:00:00Z"
		}],
		"allowed_mentions": {"parse": []}
	}`, got.Body)
}

func TestTeams(t *testing.T) {
	w := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) })
	s, err := NewTeams(Teams{URL: is(w.URL + "/workflows/1/triggers/manual/paths/invoke?sig=hush")}, w.http())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	sameJSON(t, `{
		"type": "message",
		"attachments": [{
			"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": null,
			"content": {
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4", "msteams": {"width": "Full"},
				"body": [
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "fairlead on web1: trouble with shop; well again: source config", "weight": "Bolder", "color": "Attention", "size": "Medium"}]},
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "application shop at 0123456789ab", "weight": "Bolder", "color": "Default"}]},
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "ApplyFailed: <!channel> @everyone *b* [x](https://evil) <b>&amp;\nline 2 (3 times)", "weight": "Default", "color": "Default"}]},
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "source config", "weight": "Bolder", "color": "Default"}]},
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "well again: fetched 1", "weight": "Default", "color": "Default"}]},
					{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": "and 2 events more: see `+"`fairlead events`"+`", "weight": "Default", "color": "Default"}]}
				]
			}
		}]
	}`, w.last(t).Body)
}

func TestMatrix(t *testing.T) {
	w := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.URL.Path, "/directory/") {
			_, _ = io.WriteString(w, `{"room_id":"!abc:example.org","servers":["example.org"]}`)
			return
		}
		_, _ = io.WriteString(w, `{"event_id":"$1"}`)
	})
	s, err := NewMatrix(Matrix{Homeserver: w.URL, Room: "#ops:example.org", Token: is("syt_hush")}, w.http())
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	if w.got[0].Line != "GET /_matrix/client/v3/directory/room/%23ops:example.org" || w.got[0].Header.Get("Authorization") != "Bearer syt_hush" {
		t.Errorf("%+v", w.got[0])
	}
	got := w.last(t)
	if got.Line != "PUT /_matrix/client/v3/rooms/%21abc:example.org/send/m.room.message/0a1b2c" && got.Line != "PUT /_matrix/client/v3/rooms/!abc:example.org/send/m.room.message/0a1b2c" {
		t.Error(got.Line)
	}
	sameJSON(t, `{
		"msgtype": "m.notice", "format": "org.matrix.custom.html", "m.mentions": {},
		"body": "fairlead on web1: trouble with shop; well again: source config\n\napplication shop at 0123456789ab\nApplyFailed: <!channel> @everyone *b* [x](https://evil) <b>&amp;\nline 2 (3 times)\n\nsource config\nwell again: fetched 1\n\nand 2 events more: see `+"`fairlead events`"+`\n",
		"formatted_body": "<p><strong>fairlead on web1: trouble with shop; well again: source config</strong></p><p><strong>application shop at 0123456789ab</strong><br>ApplyFailed: &lt;!channel&gt; @everyone *b* [x](https://evil) &lt;b&gt;&amp;amp;<br>line 2 (3 times)</p><p><strong>source config</strong><br>well again: fetched 1</p><p>and 2 events more: see `+"`fairlead events`"+`</p>"
	}`, got.Body)
	// The server says in the body how long to wait.
	w.answer = func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTooManyRequests)
		_, _ = io.WriteString(w, `{"errcode":"M_LIMIT_EXCEEDED","error":"Too Many Requests","retry_after_ms":2500}`)
	}
	var again *Temporary
	if err := s.Send(t.Context(), hostile); !errors.As(err, &again) || again.After != 2500*time.Millisecond {
		t.Errorf("%v", err)
	}
}

func TestWebhook(t *testing.T) {
	w := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
	for name, tt := range map[string]struct {
		hook Webhook
		line string
		body string
		have map[string]string
	}{
		"as it is": {
			hook: Webhook{URL: is(w.URL + "/in"), Key: is("correct horse")}, line: "POST /in",
			body: `{"id":"0a1b2c","time":"2026-11-27T06:00:00Z","title":"fairlead on web1: trouble with shop; well again: source config","text":"application shop at 0123456789ab\n  ApplyFailed: \u003c!channel\u003e @everyone *b* [x](https://evil) \u003cb\u003e\u0026amp;\n  line 2 (3 times)\n\nsource config\n  well again: fetched 1\n\nand 2 events more: see ` + "`fairlead events`" + `\n","severity":"Warning","host":"web1","installation":"fairlead","items":[{"subject":"application shop","severity":"Warning","reason":"ApplyFailed","message":"\u003c!channel\u003e @everyone *b* [x](https://evil) \u003cb\u003e\u0026amp;\nline 2","revision":"0123456789abcdef","time":"0001-01-01T00:00:00Z","count":3},{"subject":"source config","severity":"Normal","reason":"Fetched","message":"fetched 1","time":"0001-01-01T00:00:00Z","count":1,"recovered":true}],"more":2}`,
			have: map[string]string{"Content-Type": "application/json; charset=utf-8", "X-Fairlead-Message": "0a1b2c", "X-Signature": ""},
		},
		"a template": {
			hook: Webhook{
				URL: is(w.URL + "/in"), Method: "PUT", Token: is("hush"), Headers: map[string]string{"Content-Type": "application/x-ndjson"},
				Template: `{{range .Items}}{"who":{{json .Subject}},"what":{{json .Message}},"bad":{{eq .Severity "Warning"}}}` + "\n" + `{{end}}`,
			},
			line: "PUT /in",
			body: `{"who":"application shop","what":"<!channel> @everyone *b* [x](https://evil) <b>&amp;\nline 2","bad":true}` + "\n" + `{"who":"source config","what":"fetched 1","bad":false}` + "\n",
			have: map[string]string{"Content-Type": "application/x-ndjson", "Authorization": "Bearer hush"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := NewWebhook(tt.hook, w.http())
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(t.Context(), hostile); err != nil {
				t.Fatal(err)
			}
			got := w.last(t)
			if d := cmp.Diff(tt.body, got.Body); got.Line != tt.line || d != "" {
				t.Errorf("%s (-want +got)\n%s", got.Line, d)
			}
			for k, v := range tt.have {
				if k != "X-Signature" && got.Header.Get(k) != v {
					t.Errorf("header %s: %q", k, got.Header.Get(k))
				}
			}
			if _, signed := tt.have["X-Signature"]; signed && got.Header.Get("X-Signature") != hmacOf("correct horse", got.Body) {
				t.Errorf("signature %q", got.Header.Get("X-Signature"))
			}
		})
	}
}

func TestWebhookTemplates(t *testing.T) {
	for template, want := range map[string]string{
		"{{.Titel}}":    "Titel",
		"{{if}}":        "the template is not one",
		"{{exec `id`}}": "exec",
		"{{range 99999999}}xxxxxxxxxxxxxxxx{{end}}": "too much",
	} {
		if _, err := NewWebhook(Webhook{URL: is("https://example.org"), Template: template}, HTTP{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", template, err)
		}
	}
}

// What a service answers decides whether a message is tried again, and no secret is in what is said of it.
func TestAnswers(t *testing.T) {
	for name, tt := range map[string]struct {
		status    int
		header    string
		body      string
		temporary bool
		after     time.Duration
		want      string
	}{
		"too many":          {429, "7", "", true, 7 * time.Second, "answered 429 Too Many Requests"},
		"with a fraction":   {429, "0.25", "", true, 250 * time.Millisecond, ""},
		"down":              {503, "", "", true, 0, "503"},
		"down, and a time":  {503, "Fri, 01 Jan 2100 00:00:00 GMT", "", true, 1, ""},
		"gone":              {404, "", "no_service", false, 0, "answered 404 Not Found: no_service"},
		"not allowed":       {403, "", "the path /services/T0/B0/hush?sig=hush2 is not\nvalid\x1b", false, 0, "the path [secret]"},
		"a redirect":        {302, "", "", false, 0, "answered 302"},
		"nonsense to wait":  {429, "soon", "", true, 0, ""},
		"an age to wait":    {429, "1e300", "", true, 24 * time.Hour, ""},
		"a negative number": {429, "-5", "", true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWeb(t, func(w http.ResponseWriter, r *http.Request) {
				if tt.header != "" {
					w.Header().Set("Retry-After", tt.header)
				}
				w.Header().Set("Location", "https://127.0.0.1:1/elsewhere")
				w.WriteHeader(tt.status)
				_, _ = io.WriteString(w, tt.body)
			})
			s, err := NewSlack(Slack{URL: is(w.URL + "/services/T0/B0/hush?sig=hush2")}, w.http())
			if err != nil {
				t.Fatal(err)
			}
			err = s.Send(t.Context(), hostile)
			var again *Temporary
			if errors.As(err, &again) != tt.temporary {
				t.Fatalf("%v", err)
			}
			if tt.after > 1 && again.After != tt.after || tt.after == 1 && again.After <= 0 || tt.after == 0 && tt.temporary && again.After != 0 {
				t.Errorf("asks to wait %s", again.After)
			}
			if !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") || strings.ContainsAny(err.Error(), "\n\x1b") {
				t.Errorf("%q", err)
			}
		})
	}
}

func TestNoSecretInErrors(t *testing.T) {
	closed := httptest.NewServer(http.NotFoundHandler())
	closed.Close()
	for name, u := range map[string]string{"refused": closed.URL + "/T0/hush", "no host": "https:///T0/hush", "no scheme": "T0/hush", "broken": "https://x y/hush\x01"} {
		t.Run(name, func(t *testing.T) {
			slack, _ := NewSlack(Slack{URL: is(u)}, HTTP{})
			discord, _ := NewDiscord(Discord{URL: is(u)}, HTTP{})
			teams, _ := NewTeams(Teams{URL: is(u)}, HTTP{})
			hook, _ := NewWebhook(Webhook{URL: is(u), Key: is("hush"), Token: is("hush")}, HTTP{})
			for _, s := range []Sender{slack, discord, teams, hook, &Shoutrrr{URL: is(u)}} {
				if err := s.Send(t.Context(), hostile); err == nil || strings.Contains(err.Error(), "hush") {
					t.Errorf("%T: %v", s, err)
				}
			}
		})
	}
}

// A secret that is not there, or empty, may come: the message is tried again.
func TestSecretsThatAreMissing(t *testing.T) {
	for name, secret := range map[string]Secret{"missing": func() (string, error) { return "", errors.New("no such file") }, "empty": is(" ")} {
		s, _ := NewSlack(Slack{URL: secret}, HTTP{})
		var again *Temporary
		if err := s.Send(t.Context(), hostile); !errors.As(err, &again) || !strings.Contains(err.Error(), "read the URL") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLargeMessagesFit(t *testing.T) {
	n := New(Options{Host: "web1"})
	b := batch{id: "1", more: 3}
	for i := range maxWaiting {
		b.items = append(b.items, Item{Subject: fmt.Sprintf("application app-%d", i), Severity: api.Warning, Reason: "ApplyFailed", Message: strings.Repeat("*<&\n", 1000), Count: 1})
	}
	m := n.message(b)
	w := newWeb(t, func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) })
	slack, _ := NewSlack(Slack{URL: is(w.URL)}, w.http())
	discord, _ := NewDiscord(Discord{URL: is(w.URL)}, w.http())
	teams, _ := NewTeams(Teams{URL: is(w.URL)}, w.http())
	matrix, _ := NewMatrix(Matrix{Homeserver: w.URL, Room: "!a:b", Token: is("t")}, w.http())
	for _, tt := range []struct {
		s    Sender
		most int
	}{{slack, 40_000}, {discord, 8_000}, {teams, 28_000}, {matrix, 65_000}} {
		if err := tt.s.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		got := w.last(t).Body
		if len(got) > tt.most || !strings.Contains(got, "events more") {
			t.Errorf("%T: %d bytes", tt.s, len(got))
		}
		var discordBody struct {
			Embeds []struct{ Title, Description string }
		}
		if err := json.Unmarshal([]byte(got), &discordBody); err != nil {
			t.Fatal(err)
		}
		for _, e := range discordBody.Embeds {
			if n := len([]rune(e.Description)); n > 4096 || len([]rune(e.Title)) > 256 {
				t.Errorf("a description of %d characters", n)
			}
		}
	}
}

func TestShoutrrr(t *testing.T) {
	var mu sync.Mutex
	var got []string
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		mu.Lock()
		defer mu.Unlock()
		got = append(got, r.URL.Path+" "+string(b))
		if strings.Contains(r.URL.Path, "bad") {
			w.WriteHeader(http.StatusBadRequest)
		}
	}))
	t.Cleanup(srv.Close)
	host := strings.TrimPrefix(srv.URL, "http://")
	if err := (&Shoutrrr{URL: is("generic://" + host + "/in?disabletls=yes")}).Send(t.Context(), hostile); err != nil {
		t.Fatal(err)
	}
	if want := "/in " + hostile.Title + "\n\n" + hostile.Text; len(got) != 1 || got[0] != want {
		t.Errorf("got %q", got)
	}
	err := (&Shoutrrr{URL: is("generic://" + host + "/bad/hush?disabletls=yes")}).Send(t.Context(), hostile)
	var again *Temporary
	if !errors.As(err, &again) || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
	if err := (&Shoutrrr{URL: is("nosuch://user:hush@host")}).Send(t.Context(), hostile); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("%v", err)
	}
}

// mailServer takes mails, after a login where it wants one.
type mailServer struct {
	mu    sync.Mutex
	mails []string
	users []string
	fail  error
}

func (m *mailServer) NewSession(*smtp.Conn) (smtp.Session, error) { return &mailSession{m: m}, nil }

type mailSession struct {
	m    *mailServer
	from string
	to   []string
}

func (s *mailSession) AuthMechanisms() []string { return []string{sasl.Plain} }

func (s *mailSession) Auth(string) (sasl.Server, error) {
	return sasl.NewPlainServer(func(_, user, pass string) error {
		if pass != "hush" {
			return &smtp.SMTPError{Code: 535, EnhancedCode: smtp.EnhancedCode{5, 7, 8}, Message: "wrong password"}
		}
		s.m.mu.Lock()
		defer s.m.mu.Unlock()
		s.m.users = append(s.m.users, user)
		return nil
	}), nil
}

func (s *mailSession) Mail(from string, _ *smtp.MailOptions) error { s.from = from; return nil }

func (s *mailSession) Rcpt(to string, _ *smtp.RcptOptions) error {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.m.fail != nil {
		return s.m.fail
	}
	s.to = append(s.to, to)
	return nil
}

func (s *mailSession) Data(r io.Reader) error {
	b, err := io.ReadAll(r)
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.m.mails = append(s.m.mails, s.from+" > "+strings.Join(s.to, ",")+"\n"+strings.NewReplacer("\r\n ", " ", "\r\n", "\n").Replace(string(b)))
	return err
}

func (s *mailSession) Reset()        { s.from, s.to = "", nil }
func (s *mailSession) Logout() error { return nil }

// newMail starts a mail server with the certificate of an HTTPS one, and returns its address and who trusts it.
func newMail(t *testing.T, implicit bool) (*mailServer, string, HTTP) {
	t.Helper()
	w := newWeb(t, ok)
	m := &mailServer{}
	srv := smtp.NewServer(m)
	srv.Domain, srv.TLSConfig = "localhost", &tls.Config{Certificates: w.TLS.Certificates}
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if implicit {
		l = tls.NewListener(l, srv.TLSConfig)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = srv.Serve(l) // it ends when it is closed
	}()
	t.Cleanup(func() { srv.Close(); <-done })
	return m, l.Addr().String(), w.http()
}

func TestEmail(t *testing.T) {
	for _, mode := range []TLSMode{STARTTLS, Implicit} {
		t.Run(string(mode), func(t *testing.T) {
			m, addr, h := newMail(t, mode == Implicit)
			e, err := NewEmail(Email{
				Server: addr, TLS: mode, From: "Fairlead <fairlead@example.org>", To: []string{"ops@example.org", "Ada <ada@example.org>"},
				Username: "fairlead", Password: is("hush"),
			}, h)
			if err != nil {
				t.Fatal(err)
			}
			msg := hostile
			msg.Title = "fairlead on web1: grün\r\nBcc: eve@example.org"
			msg.Text = "text\r\n.\r\nQUIT\nü\n"
			if err := e.Send(t.Context(), msg); err != nil {
				t.Fatal(err)
			}
			want := `fairlead@example.org > ops@example.org,ada@example.org
Auto-Submitted: auto-generated
Content-Transfer-Encoding: quoted-printable
Content-Type: text/plain; charset=UTF-8
Date: Fri, 27 Nov 2026 06:00:00 +0000
From: "Fairlead" <fairlead@example.org>
Message-ID: <0a1b2c@example.org>
MIME-Version: 1.0
Subject: =?UTF-8?q?fairlead_on_web1:_gr=C3=BCn=0D=0ABcc:_eve@example.org?=
To: <ops@example.org>, "Ada" <ada@example.org>

text
.
QUIT
=C3=BC
`
			if d := cmp.Diff([]string{want}, sorted(m.mails)); d != "" || strings.Join(m.users, " ") != "fairlead" {
				t.Errorf("users %q (-want +got)\n%s", m.users, d)
			}
		})
	}
}

// sorted puts the headers of mails into order.
func sorted(mails []string) []string {
	var out []string
	for _, m := range mails {
		head, body, _ := strings.Cut(m, "\n\n")
		lines := strings.Split(head, "\n")
		sortFold(lines[1:])
		out = append(out, strings.Join(lines, "\n")+"\n\n"+body)
	}
	return out
}

func TestEmailFailures(t *testing.T) {
	m, addr, h := newMail(t, false)
	good := Email{Server: addr, From: "fairlead@example.org", To: []string{"ops@example.org"}, Username: "fairlead", Password: is("hush")}
	for name, tt := range map[string]struct {
		change    func(*Email)
		fail      error
		temporary bool
		want      string
	}{
		"wrong password": {change: func(e *Email) { e.Password = is("hush-no") }, temporary: true, want: "535"},
		"no such box":    {fail: &smtp.SMTPError{Code: 550, EnhancedCode: smtp.EnhancedCode{5, 1, 1}, Message: "no such box"}, want: "550"},
		"full":           {fail: &smtp.SMTPError{Code: 452, EnhancedCode: smtp.EnhancedCode{4, 2, 2}, Message: "full"}, temporary: true, want: "452"},
		"nobody listens": {change: func(e *Email) { e.Server = "127.0.0.1:1" }, temporary: true, want: "127.0.0.1:1"},
	} {
		t.Run(name, func(t *testing.T) {
			m.mu.Lock()
			m.fail = tt.fail
			m.mu.Unlock()
			c := good
			if tt.change != nil {
				tt.change(&c)
			}
			e, err := NewEmail(c, h)
			if err != nil {
				t.Fatal(err)
			}
			err = e.Send(t.Context(), hostile)
			var again *Temporary
			if err == nil || errors.As(err, &again) != tt.temporary || !strings.Contains(err.Error(), tt.want) || strings.Contains(err.Error(), "hush") {
				t.Errorf("%v", err)
			}
		})
	}
	// A certificate that is not trusted, and a server without TLS, get neither password nor mail.
	if e, err := NewEmail(good, HTTP{}); err != nil || e.Send(t.Context(), hostile) == nil {
		t.Errorf("sent to a server that nobody trusts: %v", err)
	}
	for name, e := range map[string]Email{
		"no sender": {Server: addr, To: good.To}, "no one": {Server: addr, From: good.From}, "no address": {Server: addr, From: good.From, To: []string{"ops"}},
		"no port": {Server: "mail:x", From: good.From, To: good.To}, "two headers": {Server: addr, From: "a@b.example\r\nBcc: c@d.example", To: good.To},
	} {
		if _, err := NewEmail(e, h); err == nil {
			t.Errorf("%s is taken", name)
		}
	}
}

func TestTestMessage(t *testing.T) {
	w := newWeb(t, ok)
	s, _ := NewWebhook(Webhook{URL: is(w.URL + "/in")}, w.http())
	n := New(Options{Host: "web1", Installation: "fairlead", Channels: []Channel{{Name: "ops", Sender: s}}})
	if err := n.Test(t.Context(), "ops"); err != nil {
		t.Fatal(err)
	}
	var m Message
	if err := json.Unmarshal([]byte(w.last(t).Body), &m); err != nil || !m.Test || m.Title != "fairlead on web1: test" {
		t.Errorf("%v %+v", err, m)
	}
	if err := n.Test(t.Context(), "dev"); !errors.Is(err, ErrUnknown) {
		t.Errorf("%v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := n.Test(ctx, "ops"); err == nil || n.Stats()[0].Error == "" {
		t.Errorf("%v %+v", err, n.Stats())
	}
}
