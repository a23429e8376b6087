package main

import (
	"archive/tar"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// engine is a client of the Docker engine that DOCKER_HOST names, or of the local one.
func engine() (*http.Client, string, error) {
	host := os.Getenv("DOCKER_HOST")
	if host == "" {
		host = "unix:///var/run/docker.sock"
	}
	u, err := url.Parse(host)
	if err != nil {
		return nil, "", fmt.Errorf("DOCKER_HOST: %w", err)
	}
	switch u.Scheme {
	case "unix":
		dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", u.Path)
		}
		return &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: time.Minute}, "http://docker", nil
	case "tcp":
		return &http.Client{Timeout: time.Minute}, "http://" + u.Host, nil
	default:
		return nil, "", fmt.Errorf("DOCKER_HOST=%s: the demo understands unix and tcp only", host)
	}
}

// importImage makes an image that holds one static program and nothing else.
func importImage(ctx context.Context, name, program string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	var root bytes.Buffer
	tw := tar.NewWriter(&root)
	if err := tw.WriteHeader(&tar.Header{Name: "app", Mode: 0o755, Size: int64(len(content))}); err != nil {
		return err
	}
	if _, err := tw.Write(content); err != nil {
		return err
	}
	if err := tw.Close(); err != nil {
		return err
	}
	repo, tag, _ := strings.Cut(name, ":")
	q := url.Values{"fromSrc": {"-"}, "repo": {repo}, "tag": {tag}, "changes": {`ENTRYPOINT ["/app"]`}}
	return call(ctx, http.MethodPost, "/images/create?"+q.Encode(), &root)
}

func (d *demo) removeImages() {
	for _, v := range []string{"1", "2"} {
		if err := call(context.Background(), http.MethodDelete, "/images/"+image(v), nil); err != nil {
			fmt.Fprintln(os.Stderr, "demo: remove image:", err)
		}
	}
}

func call(ctx context.Context, method, path string, body io.Reader) error {
	c, base, err := engine()
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, method, base+path, body)
	if err != nil {
		return err
	}
	resp, err := c.Do(req)
	if err != nil {
		return fmt.Errorf("ask the Docker engine: %w (is it running, and may you use it?)", err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode >= 300 {
		err = fmt.Errorf("the Docker engine answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	return err
}
