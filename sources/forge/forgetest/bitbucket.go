package forgetest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// bitbucket speaks as Bitbucket Cloud does.
type bitbucket struct{}

func (bitbucket) repo() string                    { return "team/config" }
func (bitbucket) clone() string                   { return "/team/config.git" }
func (bitbucket) authorized(r *http.Request) bool { return bearer(r) }

// uuid is the name of an account.
func uuid(account string) string { return "{" + account + "-uuid}" }

func (bitbucket) repository(f *Fake, name string) object {
	return object{"full_name": name, "links": object{"html": object{"href": f.server.URL + "/" + name}}}
}

func (d bitbucket) pull(f *Fake, p *pull) object {
	source := d.repository(f, "team/config")
	if p.fork {
		source = d.repository(f, "mallory/config")
	}
	o := object{
		"id": p.number, "title": p.title, "author": object{"uuid": uuid(them), "nickname": them}, "state": "OPEN", "draft": false, "updated_on": "2026-11-20T10:00:00.000000+00:00",
		"links":        object{"html": object{"href": f.server.URL + "/team/config/pull-requests/" + strconv.Itoa(p.number)}},
		"source":       object{"branch": object{"name": p.branch}, "commit": object{"hash": p.head[:12]}, "repository": source}, // abbreviated
		"destination":  object{"branch": object{"name": "main"}, "commit": object{"hash": p.base[:12]}, "repository": d.repository(f, "team/config")},
		"merge_commit": nil,
	}
	switch p.state {
	case forge.Merged:
		o["state"], o["merge_commit"] = "MERGED", object{"hash": p.mergeCommit[:12]}
	case forge.Closed:
		o["state"] = "DECLINED"
	}
	return o
}

func (bitbucket) comment(c *comment) object {
	return object{"id": c.id, "content": object{"raw": c.body}, "user": object{"uuid": uuid(c.author)}, "deleted": false}
}

// values answers with a page of a list, and the URL of the next.
func values[T any](f *Fake, w http.ResponseWriter, r *http.Request, all []T, of func(T) object) {
	q := r.URL.Query()
	if q.Get("page") == "" {
		q.Set("page", "1")
	}
	some, last := page(all, q, "page", "pagelen", 50)
	out := []object{}
	for _, v := range some {
		out = append(out, of(v))
	}
	o := object{"values": out, "pagelen": len(out)}
	if !last {
		n, _ := strconv.Atoi(q.Get("page"))
		q.Set("page", strconv.Itoa(n+1))
		o["next"] = f.server.URL + r.URL.Path + "?" + q.Encode()
	}
	answer(w, 200, o)
}

func (d bitbucket) routes(f *Fake, mux *http.ServeMux) {
	const at = "/2.0/repositories/team/config"
	mux.HandleFunc("GET /2.0/user", func(w http.ResponseWriter, _ *http.Request) { answer(w, 200, object{"uuid": uuid(us)}) })
	mux.HandleFunc("GET /2.0/repositories/{owner}/config/commit/{sha}", func(w http.ResponseWriter, r *http.Request) {
		for i := range f.commits {
			short := &Fake{commits: i}
			if full := short.commit(); strings.HasPrefix(full, r.PathValue("sha")) {
				answer(w, 200, object{"hash": full})
				return
			}
		}
		refuse(w, 404, "Commit not found")
	})
	mux.HandleFunc("GET "+at+"/pullrequests/{n}", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 200, d.pull(f, p))
		}
	})
	mux.HandleFunc("GET "+at+"/pullrequests", func(w http.ResponseWriter, r *http.Request) {
		values(f, w, r, f.open(), func(p *pull) object { return d.pull(f, p) })
	})
	mux.HandleFunc("GET "+at+"/pullrequests/{n}/comments", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			values(f, w, r, f.commentsOf(p.number), d.comment)
		}
	})
	mux.HandleFunc("POST "+at+"/pullrequests/{n}/comments", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 201, d.comment(f.comment(p.number, us, text(body(r), "content", "raw"))))
		}
	})
	mux.HandleFunc("PUT "+at+"/pullrequests/{n}/comments/{id}", func(w http.ResponseWriter, r *http.Request) {
		if c := f.ownComment(w, r.PathValue("id")); c != nil {
			c.body = text(body(r), "content", "raw")
			answer(w, 200, d.comment(c))
		}
	})
	mux.HandleFunc("GET "+at+"/commit/{sha}/statuses/build/{key}", func(w http.ResponseWriter, r *http.Request) {
		key, _ := url.PathUnescape(r.PathValue("key"))
		f.answerBuild(w, r.PathValue("sha"), key)
	})
	mux.HandleFunc("POST "+at+"/commit/{sha}/statuses/build", func(w http.ResponseWriter, r *http.Request) { f.takeBuild(w, r, 40) })
}

// answerBuild answers with the status of a key.
func (f *Fake) answerBuild(w http.ResponseWriter, sha, key string) {
	for _, s := range f.newest(sha) {
		if s.key == key {
			answer(w, 200, object{"key": s.key, "name": s.name, "state": s.state, "description": s.description, "url": s.url})
			return
		}
	}
	refuse(w, 404, "There is no build status with this key")
}

// takeBuild sets a status.
func (f *Fake) takeBuild(w http.ResponseWriter, r *http.Request, longestKey int) {
	o := body(r)
	s := status{text(o, "key"), text(o, "name"), text(o, "state"), text(o, "description"), text(o, "url")}
	switch {
	case s.key == "" || len(s.key) > longestKey:
		refuse(w, 400, "key: Ensure this value has at most "+strconv.Itoa(longestKey)+" characters")
	case s.url == "":
		refuse(w, 400, "url: required key not provided")
	case s.state != "INPROGRESS" && s.state != "SUCCESSFUL" && s.state != "FAILED" && s.state != "STOPPED":
		refuse(w, 400, "state: not one of the choices")
	default:
		f.statuses[r.PathValue("sha")] = append(f.statuses[r.PathValue("sha")], s)
		answer(w, 201, o)
	}
}

func (d bitbucket) delivery(f *Fake, e event) (map[string]string, any) {
	o := object{"actor": object{"uuid": uuid(them)}, "repository": d.repository(f, "team/config")}
	key := map[forge.EventKind]string{
		forge.Pushed: "repo:push", forge.Opened: "pullrequest:created", forge.Updated: "pullrequest:updated", forge.PullMerged: "pullrequest:fulfilled",
		forge.PullClosed: "pullrequest:rejected", forge.Commanded: "pullrequest:comment_created",
	}[e.kind]
	h := map[string]string{"X-Event-Key": key, "X-Hook-UUID": "1", "X-Request-UUID": f.deliveryID(), "X-Attempt-Number": "1"}
	if e.pull != nil {
		o["pullrequest"] = d.pull(f, e.pull)
	} else {
		o["push"] = object{"changes": []object{{"new": object{"type": "branch", "name": "main", "target": object{"hash": f.main}}, "old": nil}}}
	}
	if e.comment != nil {
		o["comment"] = d.comment(e.comment)
	}
	return h, o
}
