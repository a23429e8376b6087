package notify

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"html"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/fairlead-dev/fairlead/daemon/api"
)

func encode(v any) []byte {
	var b strings.Builder
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		panic(fmt.Sprintf("a body of strings and numbers cannot be encoded: %v", err))
	}
	return []byte(strings.TrimSuffix(b.String(), "\n"))
}

// fields are a JSON object.
type fields map[string]any

// Slack sends to a Slack channel: by an incoming webhook, or with a bot's token by chat.postMessage.
type Slack struct {
	// URL is that of an incoming webhook. With Token it is where the API is; by default https://slack.com/api.
	URL Secret
	// Token is a bot's, Channel the ID of the channel for it.
	Token   Secret
	Channel string
	post    *poster
}

// NewSlack completes s.
func NewSlack(s Slack, h HTTP) (*Slack, error) {
	var err error
	s.post, err = newPoster("Slack", h)
	return &s, err
}

// Send implements Sender. See docs.slack.dev: Sending messages using incoming webhooks, chat.postMessage, Rich text block.
func (s *Slack) Send(ctx context.Context, m Message) error {
	// Text elements are shown as they are: nothing in them is a mention, a link or formatting.
	text := func(t string, bold bool) fields {
		o := fields{"type": "text", "text": t}
		if bold {
			o["style"] = fields{"bold": true}
		}
		return o
	}
	section := func(elements ...fields) fields {
		return fields{"type": "rich_text", "elements": []fields{{"type": "rich_text_section", "elements": elements}}}
	}
	parts, rest := m.parts(12_000, 2800, 40)
	blocks := []fields{section(text(icon(m)+" "+m.Title, true))}
	for _, p := range parts {
		blocks = append(blocks, section(text(p.heading, true), text("\n"+p.lines, false)))
	}
	if rest != "" {
		blocks = append(blocks, section(text(rest, false)))
	}
	body := fields{"text": slackText(m.Title), "blocks": blocks, "unfurl_links": false, "unfurl_media": false}
	token, err := s.Token.get("token")
	if err != nil {
		return err
	}
	target, err := s.URL.get("URL")
	if err != nil {
		return err
	}
	if token == "" {
		_, err = s.post.do(ctx, http.MethodPost, target, nil, encode(body))
		return err
	}
	body["channel"] = s.Channel
	target = strings.TrimSuffix(cmp.Or(target, "https://slack.com/api"), "/") + "/chat.postMessage"
	answer, err := s.post.do(ctx, http.MethodPost, target, http.Header{"Authorization": {"Bearer " + token}}, encode(body), token)
	if err != nil {
		return err
	}
	var said struct {
		OK    bool   `json:"ok"`
		Error string `json:"error"`
	}
	if err := json.Unmarshal(answer, &said); err != nil || !said.OK {
		failure := fmt.Errorf("Slack did not take the message: %s", cmp.Or(scrub(plain(said.Error, 200), []string{token}), "its answer is not understood"))
		switch said.Error {
		case "ratelimited", "rate_limited", "internal_error", "fatal_error", "service_unavailable", "request_timeout":
			return &Temporary{Err: failure}
		}
		return failure
	}
	return nil
}

// slackText escapes what begins mentions and links.
func slackText(s string) string {
	return strings.NewReplacer("&", "&amp;", "<", "&lt;", ">", "&gt;").Replace(s)
}

func icon(m Message) string {
	if m.Severity == api.Warning {
		return "⚠"
	}
	return "✓"
}

// Discord sends to a Discord channel by a webhook.
type Discord struct {
	URL  Secret
	post *poster
}

// NewDiscord completes d.
func NewDiscord(d Discord, h HTTP) (*Discord, error) {
	var err error
	d.post, err = newPoster("Discord", h)
	return &d, err
}

// Send implements Sender. See discord.com/developers: Execute Webhook, Embed Limits.
func (d *Discord) Send(ctx context.Context, m Message) error {
	target, err := d.URL.get("URL")
	if err != nil {
		return err
	}
	const green, red = 0x2ea043, 0xd73a49
	color := green
	if m.Severity == api.Warning {
		color = red
	}
	// An escaped character counts twice, and an embed has at most 6000 characters.
	parts, rest := m.parts(1900, 1200, 20)
	var lines []string
	for _, p := range parts {
		lines = append(lines, "**"+discordText(p.heading)+"**\n"+discordText(p.lines))
	}
	if rest != "" {
		lines = append(lines, discordText(rest))
	}
	body := fields{
		"embeds": []fields{{
			"title": cut(discordText(m.Title), 256), "description": strings.Join(lines, "\n\n"), "color": color, "timestamp": m.Time.UTC().Format(time.RFC3339),
		}},
		"allowed_mentions": fields{"parse": []string{}},
	}
	u, err := url.Parse(target)
	if err != nil {
		return fmt.Errorf("the URL of Discord is not one that begins with https://")
	}
	q := u.Query()
	q.Set("wait", "true") // so that the answer says whether the message is there
	u.RawQuery = q.Encode()
	_, err = d.post.do(ctx, http.MethodPost, u.String(), nil, encode(body), target)
	return err
}

// discordText escapes what is formatting, a mention or a link in Discord's Markdown.
func discordText(s string) string {
	var b strings.Builder
	for _, r := range s {
		if strings.ContainsRune("\\*_~`|>#-[]()<@:", r) {
			b.WriteByte('\\')
		}
		b.WriteRune(r)
	}
	return b.String()
}

// Teams sends to a channel or chat of Microsoft Teams by a workflow's webhook.
type Teams struct {
	URL  Secret
	post *poster
}

// NewTeams completes t.
func NewTeams(t Teams, h HTTP) (*Teams, error) {
	var err error
	t.post, err = newPoster("Teams", h)
	return &t, err
}

// Send implements Sender. See learn.microsoft.com: Create incoming webhooks with Workflows; adaptivecards.io: RichTextBlock.
// A message may have 28 KB.
func (t *Teams) Send(ctx context.Context, m Message) error {
	target, err := t.URL.get("URL")
	if err != nil {
		return err
	}
	color := "Good"
	if m.Severity == api.Warning {
		color = "Attention"
	}
	// Text runs are shown as they are, where a TextBlock would take Markdown.
	run := func(text, weight, color string) fields {
		return fields{"type": "TextRun", "text": text, "weight": weight, "color": color}
	}
	block := func(runs ...fields) fields { return fields{"type": "RichTextBlock", "inlines": runs} }
	title := run(m.Title, "Bolder", color)
	title["size"] = "Medium"
	card := []fields{block(title)}
	parts, rest := m.parts(12_000, 3000, 40)
	for _, p := range parts {
		card = append(card, block(run(p.heading, "Bolder", "Default")), block(run(p.lines, "Default", "Default")))
	}
	if rest != "" {
		card = append(card, block(run(rest, "Default", "Default")))
	}
	_, err = t.post.do(ctx, http.MethodPost, target, nil, encode(fields{
		"type": "message",
		"attachments": []fields{{
			"contentType": "application/vnd.microsoft.card.adaptive", "contentUrl": nil,
			"content": fields{
				"$schema": "http://adaptivecards.io/schemas/adaptive-card.json", "type": "AdaptiveCard", "version": "1.4",
				"msteams": fields{"width": "Full"}, "body": card,
			},
		}},
	}))
	return err
}

// Matrix sends to a room of Matrix.
type Matrix struct {
	// Homeserver is its URL, Room an ID (!…) or an alias (#…) of a room that Token's account has joined.
	Homeserver, Room string
	Token            Secret
	post             *poster
}

// NewMatrix completes m.
func NewMatrix(m Matrix, h HTTP) (*Matrix, error) {
	var err error
	m.post, err = newPoster("Matrix", h)
	return &m, err
}

// Send implements Sender. See spec.matrix.org, Client-Server API v1.11: PUT /rooms/{roomId}/send/{eventType}/{txnId}. The
// message's ID is the transaction's, so that one that is sent again is there once. An event may have 64 KB.
func (x *Matrix) Send(ctx context.Context, m Message) error {
	token, err := x.Token.get("token")
	if err != nil {
		return err
	}
	header := http.Header{"Authorization": {"Bearer " + token}}
	base := strings.TrimSuffix(x.Homeserver, "/") + "/_matrix/client/v3"
	room := x.Room
	if strings.HasPrefix(room, "#") {
		answer, err := x.post.do(ctx, http.MethodGet, base+"/directory/room/"+url.PathEscape(room), header, nil, token)
		if err != nil {
			return x.wait(answer, err)
		}
		var found struct {
			ID string `json:"room_id"`
		}
		if err := json.Unmarshal(answer, &found); err != nil || found.ID == "" {
			return fmt.Errorf("Matrix does not say which room %s is", x.Room)
		}
		room = found.ID
	}
	parts, rest := m.parts(12_000, 6000, 100)
	formatted := "<p><strong>" + html.EscapeString(m.Title) + "</strong></p>"
	body := m.Title + "\n"
	for _, p := range parts {
		formatted += "<p><strong>" + html.EscapeString(p.heading) + "</strong><br>" + strings.ReplaceAll(html.EscapeString(p.lines), "\n", "<br>") + "</p>"
		body += "\n" + p.heading + "\n" + p.lines + "\n"
	}
	if rest != "" {
		formatted += "<p>" + html.EscapeString(rest) + "</p>"
		body += "\n" + rest + "\n"
	}
	answer, err := x.post.do(ctx, http.MethodPut, base+"/rooms/"+url.PathEscape(room)+"/send/m.room.message/"+url.PathEscape(m.ID), header, encode(fields{
		"msgtype": "m.notice", "body": body, "format": "org.matrix.custom.html", "formatted_body": formatted, "m.mentions": fields{},
	}), token)
	return x.wait(answer, err)
}

// wait adds how long a server asks to be left alone, where it says so in the body.
func (x *Matrix) wait(answer []byte, err error) error {
	t, ok := err.(*Temporary)
	var said struct {
		RetryAfter int64 `json:"retry_after_ms"`
	}
	if ok && t.After == 0 && json.Unmarshal(answer, &said) == nil && said.RetryAfter > 0 {
		t.After = min(time.Duration(said.RetryAfter)*time.Millisecond, 24*time.Hour)
	}
	return err
}
