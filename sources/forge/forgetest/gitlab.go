package forgetest

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// gitLab speaks as GitLab does. Its repository is in a group in a group.
type gitLab struct{}

func (gitLab) repo() string                    { return "group/team/config" }
func (gitLab) clone() string                   { return "/group/team/config.git" }
func (gitLab) authorized(r *http.Request) bool { return bearer(r) }

const ownProject, forkProject = 14, 15

func (gitLab) merge(f *Fake, p *pull) object {
	o := object{
		"iid": p.number, "id": 9000 + p.number, "title": p.title, "author": object{"username": them}, "web_url": f.server.URL + "/group/team/config/-/merge_requests/" + strconv.Itoa(p.number),
		"state": "opened", "draft": false, "source_branch": p.branch, "target_branch": "main", "sha": p.head, "diff_refs": object{"start_sha": p.base, "head_sha": p.head, "base_sha": p.base},
		"source_project_id": ownProject, "target_project_id": ownProject, "merge_commit_sha": nil, "squash_commit_sha": nil, "updated_at": "2026-11-20T10:00:00.000Z",
	}
	if p.fork {
		o["source_project_id"] = forkProject
	}
	switch p.state {
	case forge.Merged:
		o["state"], o["merge_commit_sha"] = "merged", p.mergeCommit
	case forge.Closed:
		o["state"] = "closed"
	}
	return o
}

func (gitLab) note(c *comment) object {
	return object{"id": c.id, "body": c.body, "system": false, "author": object{"username": c.author}}
}

func (d gitLab) routes(f *Fake, mux *http.ServeMux) {
	const at = "/api/v4/projects/{project}"
	// The project is one part of the path, with escaped slashes.
	handle := func(pattern string, h http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("project") != "group/team/config" {
				refuse(w, 404, "404 Project Not Found")
				return
			}
			h(w, r)
		})
	}
	mux.HandleFunc("GET /api/v4/user", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, object{"username": us}) })
	mux.HandleFunc("GET /api/v4/projects/15", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, object{"id": forkProject, "path_with_namespace": "mallory/config", "http_url_to_repo": f.server.URL + "/mallory/config.git"})
	})
	handle("GET "+at+"/merge_requests/{n}", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 200, d.merge(f, p))
		}
	})
	handle("GET "+at+"/merge_requests", func(w http.ResponseWriter, r *http.Request) {
		out := []object{}
		all, _ := page(f.open(), r.URL.Query(), "page", "per_page", 100)
		for _, p := range all {
			m := d.merge(f, p)
			delete(m, "diff_refs") // lists have none
			out = append(out, m)
		}
		answer(w, 200, out)
	})
	handle("GET "+at+"/merge_requests/{n}/notes", func(w http.ResponseWriter, r *http.Request) {
		p := f.pullOf(w, r)
		if p == nil {
			return
		}
		notes := f.commentsOf(p.number)
		if r.URL.Query().Get("sort") != "asc" { // newest first unless asked
			slices.Reverse(notes)
		}
		all, _ := page(notes, r.URL.Query(), "page", "per_page", 100)
		out := []object{{"id": 1, "body": "changed the description", "system": true, "author": object{"username": them}}}
		if r.URL.Query().Get("page") != "1" || len(all) == 100 {
			out = out[:0]
		}
		for _, c := range all {
			out = append(out, d.note(c))
		}
		answer(w, 200, out)
	})
	handle("POST "+at+"/merge_requests/{n}/notes", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 201, d.note(f.comment(p.number, us, text(body(r), "body"))))
		}
	})
	handle("PUT "+at+"/merge_requests/{n}/notes/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := f.ownComment(w, r.PathValue("id")); c != nil {
			c.body = text(body(r), "body")
			answer(w, 200, d.note(c))
		}
	})
	awarded := map[string]bool{}
	handle("POST "+at+"/merge_requests/{n}/notes/{id}/award_emoji", func(w http.ResponseWriter, r *http.Request) {
		award := r.PathValue("id") + " " + text(body(r), "name")
		if awarded[award] {
			refuse(w, 404, "404 Award Emoji Name has already been taken Not Found")
			return
		}
		awarded[award] = true
		answer(w, 201, object{"id": 1})
	})
	d.statusRoutes(f, handle, at)
}

func (gitLab) statusRoutes(f *Fake, handle func(string, http.HandlerFunc), at string) {
	handle("GET "+at+"/repository/commits/{sha}/statuses", func(w http.ResponseWriter, r *http.Request) {
		var named []status
		for _, s := range f.newest(r.PathValue("sha")) {
			if name := r.URL.Query().Get("name"); name == "" || name == s.key {
				named = append(named, s)
			}
		}
		all, _ := page(named, r.URL.Query(), "page", "per_page", 100)
		out := []object{}
		for _, s := range all {
			out = append(out, object{"name": s.key, "status": s.state, "description": s.description, "target_url": s.url})
		}
		answer(w, 200, out)
	})
	handle("POST "+at+"/statuses/{sha}", func(w http.ResponseWriter, r *http.Request) {
		o, sha := body(r), r.PathValue("sha")
		s := status{text(o, "name"), "", text(o, "state"), text(o, "description"), text(o, "target_url")}
		for _, have := range f.newest(sha) {
			if have.key == s.key && have.state == s.state && s.state == "pending" {
				refuse(w, 400, "Cannot transition status via :enqueue from :pending")
				return
			}
		}
		if len([]rune(s.description)) > 255 {
			refuse(w, 400, "description is too long (maximum is 255 characters)")
			return
		}
		f.statuses[sha] = append(f.statuses[sha], s)
		answer(w, 201, o)
	})
}

func (d gitLab) delivery(f *Fake, e event) (map[string]string, any) {
	o := object{
		"object_kind": "merge_request", "user": object{"username": them},
		"project": object{"path_with_namespace": "group/team/config", "git_http_url": f.server.URL + "/group/team/config.git", "git_ssh_url": "git@example.org:group/team/config.git", "web_url": f.server.URL + "/group/team/config"},
	}
	h := map[string]string{"X-Gitlab-Event": "Merge Request Hook", "Idempotency-Key": f.deliveryID(), "X-Gitlab-Event-UUID": f.deliveryID()}
	if e.pull != nil {
		m := d.merge(f, e.pull)
		m["oldrev"] = nil
		o["object_attributes"], o["changes"] = m, object{}
		m["action"] = map[forge.EventKind]string{forge.Opened: "open", forge.Updated: "update", forge.PullMerged: "merge", forge.PullClosed: "close"}[e.kind]
		if e.kind == forge.Updated {
			m["oldrev"] = e.pull.base
		}
	}
	switch e.kind {
	case forge.Pushed:
		h["X-Gitlab-Event"] = "Push Hook"
		o["object_kind"], o["event_name"], o["ref"], o["after"], o["user_username"] = "push", "push", "refs/heads/main", f.main, them
		delete(o, "user")
	case forge.Commanded:
		h["X-Gitlab-Event"] = "Note Hook"
		o["object_kind"], o["merge_request"] = "note", object{"iid": e.pull.number}
		o["object_attributes"] = object{"id": e.comment.id, "note": e.comment.body, "noteable_type": "MergeRequest", "action": "create", "system": false}
		o["user"] = object{"username": e.comment.author}
	}
	return h, o
}
