package forgetest

import (
	"net/http"
	"strconv"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// gitHub speaks as GitHub Enterprise Server does, whose API is below the same host.
type gitHub struct{}

func (gitHub) repo() string                    { return "team/config" }
func (gitHub) clone() string                   { return "/team/config.git" }
func (gitHub) authorized(r *http.Request) bool { return bearer(r) }

func (d gitHub) repository(f *Fake, name string) object {
	return object{"full_name": name, "clone_url": f.server.URL + "/" + name + ".git", "ssh_url": "git@example.org:" + name + ".git", "html_url": f.server.URL + "/" + name}
}

func (d gitHub) pull(f *Fake, p *pull) object {
	head, o := d.repository(f, "team/config"), object{
		"number": p.number, "title": p.title, "user": object{"login": them}, "state": "open", "draft": false, "merged": false, "merged_at": nil,
		"html_url": f.server.URL + "/team/config/pull/" + strconv.Itoa(p.number), "merge_commit_sha": f.main, "updated_at": "2026-11-20T10:00:00Z",
		"base": object{"ref": "main", "sha": p.base, "repo": d.repository(f, "team/config")},
	}
	if p.fork {
		head = d.repository(f, "mallory/config")
	}
	o["head"] = object{"ref": p.branch, "sha": p.head, "repo": head}
	if p.state != forge.Open {
		o["state"] = "closed"
	}
	if p.state == forge.Merged {
		o["merged"], o["merged_at"], o["merge_commit_sha"] = true, "2026-11-20T11:00:00Z", p.mergeCommit
	}
	return o
}

func (gitHub) comment(c *comment) object {
	return object{"id": c.id, "body": c.body, "user": object{"login": c.author}}
}

func (d gitHub) routes(f *Fake, mux *http.ServeMux) {
	const at = "/api/v3/repos/team/config"
	mux.HandleFunc("GET /api/v3/user", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, object{"login": us}) })
	mux.HandleFunc("GET "+at+"/pulls/{n}", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 200, d.pull(f, p))
		}
	})
	mux.HandleFunc("GET "+at+"/pulls", func(w http.ResponseWriter, r *http.Request) {
		out := []object{}
		all, _ := page(f.open(), r.URL.Query(), "page", "per_page", 100)
		for _, p := range all {
			out = append(out, d.pull(f, p))
		}
		answer(w, 200, out)
	})
	mux.HandleFunc("GET "+at+"/issues/{n}/comments", func(w http.ResponseWriter, r *http.Request) {
		p, out := f.pullOf(w, r), []object{}
		if p == nil {
			return
		}
		all, _ := page(f.commentsOf(p.number), r.URL.Query(), "page", "per_page", 100)
		for _, c := range all {
			out = append(out, d.comment(c))
		}
		answer(w, 200, out)
	})
	mux.HandleFunc("POST "+at+"/issues/{n}/comments", func(w http.ResponseWriter, r *http.Request) {
		text := text(body(r), "body")
		switch p := f.pullOf(w, r); {
		case p == nil:
		case len(text) > 65536:
			refuse(w, 422, "Body is too long (maximum is 65536 characters)")
		default:
			answer(w, 201, d.comment(f.comment(p.number, us, text)))
		}
	})
	mux.HandleFunc("PATCH "+at+"/issues/comments/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := f.ownComment(w, r.PathValue("id")); c != nil {
			c.body = text(body(r), "body")
			answer(w, 200, d.comment(c))
		}
	})
	mux.HandleFunc("POST "+at+"/issues/comments/{id}/reactions", func(w http.ResponseWriter, r *http.Request) {
		answer(w, 201, object{"id": 1, "content": text(body(r), "content")})
	})
	mux.HandleFunc("GET "+at+"/commits/{sha}/status", func(w http.ResponseWriter, r *http.Request) {
		out := []object{}
		all, _ := page(f.newest(r.PathValue("sha")), r.URL.Query(), "page", "per_page", 100)
		for _, s := range all {
			out = append(out, object{"context": s.key, "state": s.state, "description": s.description, "target_url": s.url})
		}
		answer(w, 200, object{"state": "pending", "statuses": out})
	})
	mux.HandleFunc("POST "+at+"/statuses/{sha}", func(w http.ResponseWriter, r *http.Request) {
		o, sha := body(r), r.PathValue("sha")
		s := status{text(o, "context"), "", text(o, "state"), text(o, "description"), text(o, "target_url")}
		same := 0
		for _, have := range f.statuses[sha] {
			if have.key == s.key {
				same++
			}
		}
		switch {
		case len([]rune(s.description)) > 140:
			refuse(w, 422, "Validation Failed: description is too long (maximum is 140 characters)")
		case same >= 1000:
			refuse(w, 422, "This SHA and context has reached the maximum number of statuses.")
		default:
			f.statuses[sha] = append(f.statuses[sha], s)
			answer(w, 201, o)
		}
	})
}

func (d gitHub) delivery(f *Fake, e event) (map[string]string, any) {
	o := object{"repository": d.repository(f, "team/config"), "sender": object{"login": them}}
	h := map[string]string{"X-GitHub-Event": "pull_request", "X-GitHub-Delivery": f.deliveryID()}
	if e.pull != nil {
		o["number"], o["pull_request"] = e.pull.number, d.pull(f, e.pull)
	}
	switch e.kind {
	case forge.Pushed:
		h["X-GitHub-Event"] = "push"
		o["ref"], o["after"], o["pusher"] = "refs/heads/main", f.main, object{"name": them}
	case forge.Opened:
		o["action"] = "opened"
	case forge.Updated:
		o["action"] = "synchronize"
	case forge.PullMerged, forge.PullClosed:
		o["action"] = "closed"
	case forge.Commanded:
		h["X-GitHub-Event"] = "issue_comment"
		delete(o, "pull_request")
		o["action"], o["comment"], o["issue"] = "created", d.comment(e.comment), object{"number": e.pull.number, "pull_request": object{"url": "x"}}
	default:
		return nil, nil
	}
	return h, o
}
