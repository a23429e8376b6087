package gittest

import (
	"bufio"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
)

// Answer is what a server says instead of what the repository holds. The zero value changes nothing.
type Answer struct {
	// List writes the answer to the request for the references.
	List func(w http.ResponseWriter)
	// Pack writes the pack.
	Pack func(w io.Writer) error
}

// Server serves repositories by name, over HTTP on the loopback interface.
type Server struct {
	URL string

	http  *httptest.Server
	mu    sync.Mutex
	repos map[string]served
}

type served struct {
	repo   *Repository
	answer Answer
}

// NewServer returns a server without repositories. Close ends it.
func NewServer() *Server {
	s := &Server{repos: map[string]served{}}
	s.http = httptest.NewServer(s)
	s.URL = s.http.URL
	return s
}

// Close ends the server.
func (s *Server) Close() {
	s.http.CloseClientConnections()
	s.http.Close()
}

// Put serves a repository and returns its URL.
func (s *Server) Put(name string, r *Repository, a Answer) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.repos[name] = served{r, a}
	return s.URL + "/" + name
}

// ServeHTTP speaks as much of the smart protocol as a fetch without a depth needs.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	name, rest, _ := strings.Cut(strings.TrimPrefix(req.URL.Path, "/"), "/")
	s.mu.Lock()
	repo, ok := s.repos[name]
	s.mu.Unlock()
	switch {
	case ok && rest == "info/refs":
		w.Header().Set("Content-Type", "application/x-git-upload-pack-advertisement")
		if repo.answer.List != nil {
			repo.answer.List(w)
			return
		}
		repo.repo.Advertise(w)
	case ok && rest == "git-upload-pack":
		_, _ = io.Copy(io.Discard, req.Body) // everything is sent, whatever is asked for
		w.Header().Set("Content-Type", "application/x-git-upload-pack-result")
		out := bufio.NewWriterSize(w, 256<<10)
		io.WriteString(out, Line("NAK\n"))
		pack := repo.answer.Pack
		if pack == nil {
			pack = repo.repo.Pack
		}
		if err := pack(out); err == nil {
			out.Flush()
		}
	default:
		http.NotFound(w, req)
	}
}

// Advertise writes the references.
func (r *Repository) Advertise(w io.Writer) {
	io.WriteString(w, Line("# service=git-upload-pack\n")+"0000")
	caps := "\x00ofs-delta symref=HEAD:" + r.Head + " agent=gittest\n"
	if head, ok := r.Refs[r.Head]; ok {
		io.WriteString(w, Line(string(head)+" HEAD"+caps))
		caps = "\n"
	}
	for _, name := range slices.Sorted(maps.Keys(r.Refs)) {
		io.WriteString(w, Line(string(r.Refs[name])+" "+name+caps))
		caps = "\n"
	}
	io.WriteString(w, "0000")
}

// Line is a packet line.
func Line(s string) string { return fmt.Sprintf("%04x%s", len(s)+4, s) }
