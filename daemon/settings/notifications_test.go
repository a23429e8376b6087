package settings

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestNotifications(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "f.yaml")
	err := os.WriteFile(file, []byte(`
notifications:
  host: web1
  channels:
    - {name: ops, kind: slack, urlFile: /etc/fairlead/slack}
    - {name: bot, kind: slack, tokenEnv: SLACK_TOKEN, room: C123}
    - {name: discord, kind: discord, urlEnv: DISCORD_URL}
    - {name: teams, kind: teams, urlFile: /etc/fairlead/teams, events: [{reasons: [Roll*], applications: ["shop-*"]}], exclude: [{reasons: [Drift]}]}
    - {name: matrix, kind: matrix, url: https://matrix.example.org, room: "#ops:example.org", tokenFile: /etc/fairlead/matrix}
    - {name: mail, kind: email, server: "mail.example.org:465", tls: implicit, from: fairlead@example.org, to: [ops@example.org], username: u, tokenFile: /p}
    - {name: hook, kind: webhook, url: https://example.org/in, template: "{{.Title}}", keyFile: /k, headers: {X-A: b}, group: 1m, repeat: 4h, limit: 6}
    - {name: phone, kind: shoutrrr, urlFile: /etc/fairlead/ntfy, events: [{severity: Normal, labels: "team=shop"}]}
`), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	s, err := Read(file)
	if err != nil {
		t.Fatal(err)
	}
	if found := s.WithDefaults().Check(); found != nil {
		t.Errorf("found %q in good settings", found)
	}
	channels, err := s.Notifications.Open("fairlead/1")
	if err != nil || len(channels) != 8 || s.Notifications.HostName() != "web1" {
		t.Errorf("%d channels, %v", len(channels), err)
	}
	if r := channels[3].Events[0]; r.Severity != "" || channels[3].Exclude[0].Severity != "" || channels[7].Events[0].Severity != "Normal" {
		t.Errorf("a rule that names reasons selects %q events", r.Severity)
	}
}

func TestNotificationsCheck(t *testing.T) {
	s := Settings{Notifications: Notifications{Channels: []NotificationChannel{
		{},
		{Name: "a", Kind: "pigeon"},
		{Name: "a", Kind: "slack"},
		{Name: "b", Kind: "slack", URL: "https://hooks.slack.com/services/hush"},
		{Name: "c", Kind: "slack", TokenFile: "/t"},
		{Name: "d", Kind: "discord", URL: "https://example.org", Room: "x"},
		{Name: "e", Kind: "matrix", URL: "https://u:p@example.org", TokenFile: "/t", TokenEnv: "T", Room: "!a:b"},
		{Name: "f", Kind: "email", Server: "mail", From: "nobody", To: []string{"ops@example.org"}, TLS: "maybe", Username: "u"},
		{Name: "g", Kind: "webhook", URL: "https://example.org", Method: "GET", Template: "{{", Limit: -1, Events: []NotificationRule{{Severity: "bad", Labels: "a in"}}},
		{Name: "h", Kind: "teams", URLFile: "/u", URLEnv: "U"},
	}}}.WithDefaults()
	var got []string
	for _, f := range s.Check() {
		if strings.Contains(f, "hush") {
			t.Errorf("the finding has the secret: %s", f)
		}
		key, _, _ := strings.Cut(f, ":")
		got = append(got, strings.TrimPrefix(key, "notifications.channels"))
	}
	want := []string{
		"[0].name", "[0].kind", "[1].kind", "[2].name", "[2]", "[3].url", "[4].room", "[5].room", "[5].url", "[5]", "[6]", "[6].url",
		"[7].username", "[7].tls", "[7]", "[8].method", "[8].limit", "[8].events[0].severity", "[8].events[0].labels", "[8]", "[9]",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}
