package forgetest

import (
	"net/http"
	"slices"
	"strconv"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// bitbucketServer speaks as Bitbucket Data Center does.
type bitbucketServer struct{}

func (bitbucketServer) repo() string                    { return "TEAM/config" }
func (bitbucketServer) clone() string                   { return "/scm/team/config.git" }
func (bitbucketServer) authorized(r *http.Request) bool { return bearer(r) }

func (bitbucketServer) repository(f *Fake, key string) object {
	return object{"slug": "config", "project": object{"key": key}, "links": object{
		"clone": []object{{"href": f.server.URL + "/scm/" + key + "/config.git", "name": "http"}},
		"self":  []object{{"href": f.server.URL + "/projects/" + key + "/repos/config/browse"}},
	}}
}

func (d bitbucketServer) pull(f *Fake, p *pull) object {
	from := d.repository(f, "TEAM")
	if p.fork {
		from = d.repository(f, "~mallory")
	}
	o := object{
		"id": p.number, "version": 1, "title": p.title, "author": object{"user": object{"name": them, "slug": them}}, "state": "OPEN", "updatedDate": 1763632800000,
		"links":   object{"self": []object{{"href": f.server.URL + "/projects/TEAM/repos/config/pull-requests/" + strconv.Itoa(p.number)}}},
		"fromRef": object{"id": "refs/heads/" + p.branch, "displayId": p.branch, "latestCommit": p.head, "repository": from},
		"toRef":   object{"id": "refs/heads/main", "displayId": "main", "latestCommit": p.base, "repository": d.repository(f, "TEAM")},
	}
	switch p.state {
	case forge.Merged:
		o["state"], o["properties"] = "MERGED", object{"mergeCommit": object{"id": p.mergeCommit}}
	case forge.Closed:
		o["state"] = "DECLINED"
	}
	return o
}

func (bitbucketServer) comment(c *comment) object {
	return object{"id": c.id, "version": c.version, "text": c.body, "author": object{"name": c.author}}
}

// list answers with a page of a list.
func list[T any](w http.ResponseWriter, r *http.Request, all []T, of func(T) object) {
	start, _ := strconv.Atoi(r.URL.Query().Get("start"))
	limit, _ := strconv.Atoi(r.URL.Query().Get("limit"))
	if limit == 0 {
		limit = 25
	}
	start = min(start, len(all))
	end := min(start+min(limit, 100), len(all))
	out := []object{}
	for _, v := range all[start:end] {
		out = append(out, of(v))
	}
	o := object{"values": out, "size": len(out), "isLastPage": end == len(all), "start": start, "nextPageStart": nil}
	if end < len(all) {
		o["nextPageStart"] = end
	}
	answer(w, 200, o)
}

func (d bitbucketServer) routes(f *Fake, mux *http.ServeMux) {
	const at = "/rest/api/1.0/projects/TEAM/repos/config"
	mux.HandleFunc("GET /rest/api/1.0/application-properties", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("X-AUSERNAME", us)
		answer(w, 200, object{"version": "8.9.0"})
	})
	mux.HandleFunc("GET "+at+"/pull-requests/{n}", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 200, d.pull(f, p))
		}
	})
	mux.HandleFunc("GET "+at+"/pull-requests", func(w http.ResponseWriter, r *http.Request) {
		list(w, r, f.open(), func(p *pull) object { return d.pull(f, p) })
	})
	mux.HandleFunc("GET "+at+"/pull-requests/{n}/activities", func(w http.ResponseWriter, r *http.Request) {
		p := f.pullOf(w, r)
		if p == nil {
			return
		}
		activities := []object{{"id": 1, "action": "OPENED"}}
		for _, c := range f.commentsOf(p.number) {
			activities = append(activities, object{"id": c.id + 5000, "action": "COMMENTED", "commentAction": "ADDED", "comment": d.comment(c)})
		}
		slices.Reverse(activities)
		list(w, r, activities, func(o object) object { return o })
	})
	mux.HandleFunc("POST "+at+"/pull-requests/{n}/comments", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 201, d.comment(f.comment(p.number, us, text(body(r), "text"))))
		}
	})
	mux.HandleFunc("GET "+at+"/pull-requests/{n}/comments/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := f.ownComment(w, r.PathValue("id")); c != nil {
			answer(w, 200, d.comment(c))
		}
	})
	edits := 0
	mux.HandleFunc("PUT "+at+"/pull-requests/{n}/comments/{id}", func(w http.ResponseWriter, r *http.Request) {
		c, o := f.ownComment(w, r.PathValue("id")), body(r)
		if c == nil {
			return
		}
		if edits++; edits == 1 {
			c.version++ // somebody was faster, once
		}
		if version, ok := o["version"].(float64); !ok || int(version) != c.version {
			answer(w, 409, object{"errors": []object{{"message": "You are attempting to modify a comment based on out-of-date information."}}})
			return
		}
		c.body, c.version = text(o, "text"), c.version+1
		answer(w, 200, d.comment(c))
	})
	mux.HandleFunc("GET "+at+"/commits/{sha}/builds", func(w http.ResponseWriter, r *http.Request) {
		f.answerBuild(w, r.PathValue("sha"), r.URL.Query().Get("key"))
	})
	mux.HandleFunc("POST "+at+"/commits/{sha}/builds", func(w http.ResponseWriter, r *http.Request) { f.takeBuild(w, r, 255) })
}

func (d bitbucketServer) delivery(f *Fake, e event) (map[string]string, any) {
	key := map[forge.EventKind]string{
		forge.Pushed: "repo:refs_changed", forge.Opened: "pr:opened", forge.Updated: "pr:from_ref_updated", forge.PullMerged: "pr:merged",
		forge.PullClosed: "pr:declined", forge.Commanded: "pr:comment:added",
	}[e.kind]
	h := map[string]string{"X-Event-Key": key, "X-Request-Id": f.deliveryID()}
	o := object{"eventKey": key, "actor": object{"name": them}}
	if e.pull != nil {
		o["pullRequest"] = d.pull(f, e.pull)
	} else {
		o["repository"] = d.repository(f, "TEAM")
		o["changes"] = []object{{"refId": "refs/heads/main", "toHash": f.main, "type": "UPDATE"}}
	}
	if e.comment != nil {
		o["comment"] = d.comment(e.comment)
	}
	return h, o
}
