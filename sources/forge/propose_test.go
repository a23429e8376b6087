package forge

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestPropose holds the requests that open and revise pull requests against the documented ones.
func TestPropose(t *testing.T) {
	const base, head = "main", "image-updates"
	for kind, tt := range map[Kind]struct {
		repo string
		// open is the answer to the list when one is open already.
		open   string
		made   string
		create string // method, path and body
		revise string
	}{
		GitHub: {
			"team/config", `[{"number":7,"html_url":"URL","state":"open","head":{"ref":"image-updates","repo":{"full_name":"team/config"}},"base":{"ref":"main","repo":{"full_name":"team/config"}}}]`,
			`{"number":7,"html_url":"URL","state":"open"}`,
			`POST /api/v3/repos/team/config/pulls {"base":"main","body":"Body","head":"image-updates","title":"Title"}`,
			`PATCH /api/v3/repos/team/config/pulls/7 {"body":"Body","title":"Title"}`,
		},
		Gitea: {
			"team/config", `[{"number":7,"html_url":"URL","state":"open","head":{"ref":"image-updates","repo":{"full_name":"team/config"}},"base":{"ref":"main","repo":{"full_name":"team/config"}}}]`,
			`{"number":7,"html_url":"URL","state":"open"}`,
			`POST /api/v1/repos/team/config/pulls {"base":"main","body":"Body","head":"image-updates","title":"Title"}`,
			`PATCH /api/v1/repos/team/config/pulls/7 {"body":"Body","title":"Title"}`,
		},
		GitLab: {
			"group/sub/config", `[{"iid":7,"web_url":"URL","state":"opened","source_branch":"image-updates","target_branch":"main","source_project_id":1,"target_project_id":1}]`,
			`{"iid":7,"web_url":"URL","state":"opened"}`,
			`POST /api/v4/projects/group%2Fsub%2Fconfig/merge_requests {"description":"Body","source_branch":"image-updates","target_branch":"main","title":"Title"}`,
			`PUT /api/v4/projects/group%2Fsub%2Fconfig/merge_requests/7 {"description":"Body","title":"Title"}`,
		},
		BitbucketServer: {
			"PRJ/config", `{"isLastPage":true,"values":[{"id":7,"version":3,"state":"OPEN","links":{"self":[{"href":"URL"}]},"fromRef":{"id":"refs/heads/image-updates","repository":{"slug":"config","project":{"key":"PRJ"}}},"toRef":{"id":"refs/heads/main","repository":{"slug":"config","project":{"key":"PRJ"}}}}]}`,
			`{"id":7,"version":3,"reviewers":[{"user":{"name":"ada"}}],"state":"OPEN","links":{"self":[{"href":"URL"}]}}`,
			`POST /rest/api/1.0/projects/PRJ/repos/config/pull-requests {"description":"Body","fromRef":{"id":"refs/heads/image-updates"},"title":"Title","toRef":{"id":"refs/heads/main"}}`,
			`PUT /rest/api/1.0/projects/PRJ/repos/config/pull-requests/7 {"description":"Body","reviewers":[{"user":{"name":"ada"}}],"title":"Title","version":3}`,
		},
		AzureDevOps: {
			"org/project/config", `{"value":[{"pullRequestId":7,"status":"active","sourceRefName":"refs/heads/image-updates","targetRefName":"refs/heads/main","repository":{"name":"config","webUrl":"URL"}}]}`,
			`{"pullRequestId":7,"status":"active","repository":{"name":"config","webUrl":"URL"}}`,
			`POST /org/project/_apis/git/repositories/config/pullrequests {"description":"Body","sourceRefName":"refs/heads/image-updates","targetRefName":"refs/heads/main","title":"Title"}`,
			`PATCH /org/project/_apis/git/repositories/config/pullrequests/7 {"description":"Body","title":"Title"}`,
		},
	} {
		for _, exists := range []bool{false, true} {
			t.Run(string(kind), func(t *testing.T) {
				var wrote []string
				srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					b, _ := io.ReadAll(r.Body)
					w.Header().Set("Content-Type", "application/json")
					switch {
					case r.Method != http.MethodGet:
						wrote = append(wrote, r.Method+" "+r.URL.EscapedPath()+" "+string(b))
						_, _ = io.WriteString(w, tt.made)
					case strings.HasSuffix(r.URL.Path, "/7"):
						_, _ = io.WriteString(w, tt.made)
					case exists:
						_, _ = io.WriteString(w, tt.open)
					case strings.HasPrefix(tt.open, "["):
						_, _ = io.WriteString(w, `[]`)
					default:
						_, _ = io.WriteString(w, `{"isLastPage":true,"values":[],"value":[]}`)
					}
				}))
				t.Cleanup(srv.Close)
				f, err := New(Config{Kind: kind, URL: srv.URL, Token: func() (string, error) { return "t", nil }})
				if err != nil {
					t.Fatal(err)
				}
				url, err := Propose(t.Context(), f, tt.repo, Proposal{Head: head, Base: base, Title: "Title", Body: "Body"})
				if err != nil || !strings.HasPrefix(url, "URL") {
					t.Errorf("%q, %v", url, err)
				}
				want := tt.create
				if exists {
					want = tt.revise
				}
				if d := cmp.Diff([]string{want}, wrote); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			})
		}
	}
}

// TestProposeOnBitbucket is apart, for its public address cannot be another.
func TestProposeOnBitbucket(t *testing.T) {
	var wrote []string
	f, err := New(Config{Kind: Bitbucket, Token: func() (string, error) { return "t", nil }, transport: roundTrip(func(r *http.Request) (*http.Response, error) {
		body := `{"values":[]}`
		if r.Method != http.MethodGet {
			b, err := io.ReadAll(r.Body)
			if err != nil {
				return nil, err
			}
			wrote = append(wrote, r.Method+" "+r.URL.Path+" "+string(b))
			body = `{"id":7,"state":"OPEN","links":{"html":{"href":"URL"}}}`
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: r}, nil
	})})
	if err != nil {
		t.Fatal(err)
	}
	url, err := Propose(t.Context(), f, "team/config", Proposal{Head: "image-updates", Base: "main", Title: "Title", Body: "Body"})
	if err != nil || url != "URL" || len(wrote) != 1 {
		t.Fatalf("%q, %v, %q", url, err, wrote)
	}
	_, body, _ := strings.Cut(wrote[0], " {")
	var got, want any
	if err := json.Unmarshal([]byte("{"+body), &got); err != nil {
		t.Fatal(err)
	}
	_ = json.Unmarshal([]byte(`{"title":"Title","description":"Body","source":{"branch":{"name":"image-updates"}},"destination":{"branch":{"name":"main"}}}`), &want) // it is JSON
	if d := cmp.Diff(want, got); d != "" || !strings.HasSuffix(strings.SplitN(wrote[0], " {", 2)[0], "/repositories/team/config/pullrequests") {
		t.Errorf("%s (-want +got)\n%s", wrote[0], d)
	}
}

// roundTrip answers requests.
type roundTrip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
