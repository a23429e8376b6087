package notify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"text/template"
)

// Webhook sends a request to anything.
type Webhook struct {
	URL Secret
	// Method is POST by default.
	Method string
	// Headers are sent with it; Content-Type is JSON by default.
	Headers map[string]string
	// Template makes the body, and optionally the values of Headers, from the Message. Default: the Message as JSON.
	Template string
	// Key signs the body: the header X-Signature is sha256= and the HMAC in hexadecimal digits.
	Key Secret
	// Token is sent as the header Authorization: Bearer.
	Token Secret

	body *template.Template
	post *poster
}

// templateFunctions are those of templates, besides those of text/template.
var templateFunctions = template.FuncMap{
	// json is its argument as JSON, for values in a JSON body.
	"json":    func(v any) string { return string(encode(v)) },
	"upper":   strings.ToUpper,
	"lower":   strings.ToLower,
	"join":    func(sep string, list []string) string { return strings.Join(list, sep) },
	"replace": func(old, with, s string) string { return strings.ReplaceAll(s, old, with) },
	"cut":     func(size int, s string) string { return cut(s, size) },
	"quote":   strconv.Quote,
}

// maxBody is the size of the largest body that a template may make, in bytes.
const maxBody = 1 << 20

// NewWebhook completes w, or says what is wrong with its template.
func NewWebhook(w Webhook, h HTTP) (*Webhook, error) {
	if w.Template != "" {
		var err error
		if w.body, err = template.New("body").Funcs(templateFunctions).Option("missingkey=error").Parse(w.Template); err != nil {
			return nil, fmt.Errorf("the template is not one: %w", err)
		}
		if _, err := w.render(example); err != nil {
			return nil, err
		}
	}
	var err error
	w.post, err = newPoster("the webhook", h)
	return &w, err
}

// example is what templates are tried with.
var example = Message{ID: "0", Title: "example", Text: "example\n", Severity: "Warning", Items: []Item{{Subject: "application example", Severity: "Warning", Reason: "Example", Message: "example", Count: 1}}}

func (w *Webhook) render(m Message) ([]byte, error) {
	if w.body == nil {
		return json.Marshal(m)
	}
	out := &bounded{left: maxBody}
	if err := w.body.Execute(out, m); err != nil {
		return nil, fmt.Errorf("the template cannot be filled in: %w", err)
	}
	return out.Bytes(), nil
}

// bounded takes so many bytes.
type bounded struct {
	bytes.Buffer
	left int
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= len(p); b.left < 0 {
		return 0, errors.New("it makes too much")
	}
	return b.Buffer.Write(p)
}

// Send implements Sender.
func (w *Webhook) Send(ctx context.Context, m Message) error {
	target, err := w.URL.get("URL")
	if err != nil {
		return err
	}
	body, err := w.render(m)
	if err != nil {
		return err
	}
	header := http.Header{}
	header.Set("X-Fairlead-Message", m.ID)
	for k, v := range w.Headers {
		header.Set(k, v)
	}
	key, err := w.Key.get("key")
	if err != nil {
		return err
	}
	if key != "" {
		mac := hmac.New(sha256.New, []byte(key))
		mac.Write(body)
		header.Set("X-Signature", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	}
	token, err := w.Token.get("token")
	if err != nil {
		return err
	}
	if token != "" {
		header.Set("Authorization", "Bearer "+token)
	}
	_, err = w.post.do(ctx, cmp.Or(w.Method, http.MethodPost), target, header, body, key, token)
	return err
}
