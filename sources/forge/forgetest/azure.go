package forgetest

import (
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// azure speaks as Azure DevOps does. Each comment is in a thread of its own.
type azure struct{}

func (azure) repo() string  { return "org/My Shop/config" }
func (azure) clone() string { return "/org/My%20Shop/_git/config" }

func (azure) authorized(r *http.Request) bool {
	return r.Header.Get("Authorization") == "Basic "+base64.StdEncoding.EncodeToString([]byte(":"+token))
}

// guid is the name of an account.
func guid(account string) string { return "00000000-" + account }

func (azure) repository(f *Fake, project string) object {
	return object{"name": "config", "project": object{"name": project}, "remoteUrl": f.server.URL + "/org/" + project + "/_git/config", "webUrl": f.server.URL + "/org/" + project + "/_git/config"}
}

func (d azure) pull(f *Fake, p *pull) object {
	o := object{
		"pullRequestId": p.number, "title": p.title, "createdBy": object{"id": guid(them)}, "status": "active", "isDraft": false, "creationDate": "2026-11-20T10:00:00.5Z",
		"sourceRefName": "refs/heads/" + p.branch, "targetRefName": "refs/heads/main",
		"lastMergeSourceCommit": object{"commitId": p.head}, "lastMergeTargetCommit": object{"commitId": p.base}, "lastMergeCommit": object{"commitId": f.main},
		"repository": d.repository(f, "My%20Shop"),
	}
	if p.fork {
		o["forkSource"] = object{"repository": d.repository(f, "Mallory")}
	}
	switch p.state {
	case forge.Merged:
		o["status"], o["closedDate"], o["lastMergeCommit"] = "completed", "2026-11-20T11:00:00Z", object{"commitId": p.mergeCommit}
	case forge.Closed:
		o["status"], o["closedDate"] = "abandoned", "2026-11-20T11:00:00Z"
	}
	return o
}

func (azure) comment(c *comment) object {
	return object{"id": 1, "parentCommentId": 0, "content": c.body, "author": object{"id": guid(c.author)}, "commentType": "text"}
}

func (d azure) thread(c *comment) object {
	return object{"id": c.id, "status": "closed", "isDeleted": false, "comments": []object{d.comment(c)}}
}

func (d azure) routes(f *Fake, mux *http.ServeMux) {
	const at = "/org/My Shop/_apis/git/repositories/config"
	handle := func(method, path string, h http.HandlerFunc) {
		mux.HandleFunc(method+" /org/{project}/_apis/git/repositories/config"+path, func(w http.ResponseWriter, r *http.Request) {
			if r.PathValue("project") != "My Shop" || r.URL.Query().Get("api-version") == "" {
				refuse(w, 400, "No api-version was supplied, or the project does not exist: "+at)
				return
			}
			h(w, r)
		})
	}
	mux.HandleFunc("GET /org/_apis/connectionData", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, 200, object{"authenticatedUser": object{"id": guid(us)}})
	})
	handle("GET", "/pullrequests/{n}", func(w http.ResponseWriter, r *http.Request) {
		if p := f.pullOf(w, r); p != nil {
			answer(w, 200, d.pull(f, p))
		}
	})
	handle("GET", "/pullrequests", func(w http.ResponseWriter, r *http.Request) {
		skip, _ := strconv.Atoi(r.URL.Query().Get("$skip"))
		top, _ := strconv.Atoi(r.URL.Query().Get("$top"))
		all, out := f.open(), []object{}
		for _, p := range all[min(skip, len(all)):min(skip+top, len(all))] {
			out = append(out, d.pull(f, p))
		}
		answer(w, 200, object{"value": out, "count": len(out)})
	})
	handle("GET", "/pullRequests/{n}/threads", func(w http.ResponseWriter, r *http.Request) {
		p := f.pullOf(w, r)
		if p == nil {
			return
		}
		out := []object{{"id": 1, "comments": []object{{"id": 1, "content": "Jane joined", "commentType": "system", "author": object{"id": guid(them)}}}}}
		for _, c := range f.commentsOf(p.number) {
			out = append(out, d.thread(c))
		}
		answer(w, 200, object{"value": out})
	})
	handle("POST", "/pullRequests/{n}/threads", func(w http.ResponseWriter, r *http.Request) {
		p, o := f.pullOf(w, r), body(r)
		comments, _ := o["comments"].([]any)
		switch {
		case p == nil:
		case len(comments) != 1 || o["status"] != "closed":
			refuse(w, 400, "A thread needs a comment")
		default:
			first, _ := comments[0].(object)
			answer(w, 200, d.thread(f.comment(p.number, us, text(first, "content"))))
		}
	})
	handle("PATCH", "/pullRequests/{n}/threads/{id}/comments/1", func(w http.ResponseWriter, r *http.Request) {
		if c := f.ownComment(w, r.PathValue("id")); c != nil {
			c.body = text(body(r), "content")
			answer(w, 200, d.comment(c))
		}
	})
	handle("GET", "/commits/{sha}/statuses", func(w http.ResponseWriter, r *http.Request) {
		out := []object{}
		for _, s := range f.newest(r.PathValue("sha")) {
			genre, name, _ := strings.Cut(s.key, " ")
			out = append(out, object{"state": s.state, "description": s.description, "context": object{"genre": genre, "name": name}, "targetUrl": s.url})
		}
		answer(w, 200, object{"value": out})
	})
	handle("POST", "/commits/{sha}/statuses", func(w http.ResponseWriter, r *http.Request) {
		o, sha := body(r), r.PathValue("sha")
		f.statuses[sha] = append(f.statuses[sha], status{text(o, "context", "genre") + " " + text(o, "context", "name"), "", text(o, "state"), text(o, "description"), text(o, "targetUrl")})
		answer(w, 201, o)
	})
}

func (d azure) delivery(f *Fake, e event) (map[string]string, any) {
	name := map[forge.EventKind]string{
		forge.Pushed: "git.push", forge.Opened: "git.pullrequest.created", forge.Updated: "git.pullrequest.updated", forge.PullClosed: "git.pullrequest.updated",
		forge.PullMerged: "git.pullrequest.merged", forge.Commanded: "ms.vss-code.git-pullrequest-comment-event",
	}[e.kind]
	o := object{"id": f.deliveryID(), "eventType": name, "publisherId": "tfs"}
	switch e.kind {
	case forge.Pushed:
		o["resource"] = object{"refUpdates": []object{{"name": "refs/heads/main", "newObjectId": f.main}}, "repository": d.repository(f, "My%20Shop"), "pushedBy": object{"id": guid(them)}}
	case forge.Commanded:
		c := d.comment(e.comment)
		c["_links"] = object{"threads": object{"href": f.server.URL + "/org/_apis/git/repositories/1/pullRequests/1/threads/" + strconv.Itoa(e.comment.id)}}
		o["resource"] = object{"comment": c, "pullRequest": d.pull(f, e.pull)}
	default:
		o["resource"] = d.pull(f, e.pull)
	}
	return nil, o
}
