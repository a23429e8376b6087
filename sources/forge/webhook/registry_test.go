package webhook

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/fairlead-dev/fairlead/sources/forge"
)

// deliveries are what registries send, in the fields that their documentation shows.
var registryDeliveries = map[forge.Kind]struct {
	body string
	want []string
}{
	DockerHub: {
		`{"callback_url":"https://registry.hub.docker.com/u/team/web/hook/x/","push_data":{"pushed_at":1417566161,"pusher":"ada","tag":"1.2.3"},"repository":{"name":"web","namespace":"team","owner":"team","repo_name":"team/web","repo_url":"https://registry.hub.docker.com/u/team/web/","status":"Active"}}`,
		[]string{"team/web"},
	},
	GHCR: {
		`{"action":"published","package":{"id":1,"name":"web","namespace":"team","ecosystem":"CONTAINER","package_type":"CONTAINER","package_version":{"package_url":"ghcr.io/team/web:1.2.3","container_metadata":{"tag":{"name":"1.2.3"}}}},"repository":{"full_name":"team/web"}}`,
		[]string{"ghcr.io/team/web"},
	},
	Harbor: {
		`{"type":"PUSH_ARTIFACT","occur_at":1586922308,"operator":"admin","event_data":{"resources":[{"digest":"sha256:8a9e9863dbb6","tag":"latest","resource_url":"harbor.example.org:8443/team/web:latest"}],"repository":{"name":"web","namespace":"team","repo_full_name":"team/web","repo_type":"private"}}}`,
		[]string{"harbor.example.org:8443/team/web"},
	},
	Quay: {
		`{"name":"web","repository":"team/web","namespace":"team","docker_url":"quay.io/team/web","homepage":"https://quay.io/repository/team/web","updated_tags":["latest"]}`,
		[]string{"quay.io/team/web"},
	},
	Distribution: {
		`{"events":[{"id":"1","action":"push","target":{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"sha256:fea8","repository":"team/web","url":"http://registry.internal:5000/v2/team/web/manifests/sha256:fea8","tag":"1.2.3"},"request":{"host":"registry.internal:5000","method":"PUT"}},{"action":"pull","target":{"repository":"team/other"},"request":{"host":"registry.internal:5000"}},{"action":"push","target":{"repository":"team/web"},"request":{"host":"registry.internal:5000"}}]}`,
		[]string{"registry.internal:5000/team/web"},
	},
}

// prove returns the headers that a registry sends with a secret.
func prove(kind forge.Kind, secret, body string) http.Header {
	h := http.Header{}
	switch kind {
	case GHCR:
		mac := hmac.New(sha256.New, []byte(secret))
		mac.Write([]byte(body))
		h.Set("X-Github-Event", "package")
		h.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	case Harbor:
		h.Set("Authorization", secret)
	case Distribution:
		h.Set("Authorization", "Bearer "+secret)
	default:
		h.Set(TokenHeader, secret)
	}
	return h
}

func TestRegistries(t *testing.T) {
	for _, kind := range Registries {
		t.Run(string(kind), func(t *testing.T) {
			d := registryDeliveries[kind]
			e := Endpoint{Forge: kind, Secrets: []string{"old", "new"}}
			take := func(h http.Header, body string) (forge.Event, *Rejection) {
				if r := e.Before(h); r != nil {
					return forge.Event{}, r
				}
				if r := e.Verify(h, []byte(body), time.Now()); r != nil {
					return forge.Event{}, r
				}
				ev, err := e.Parse(h, []byte(body))
				if err != nil {
					t.Fatal(err)
				}
				return ev, nil
			}
			for _, secret := range e.Secrets {
				ev, r := take(prove(kind, secret, d.body), d.body)
				if r != nil || ev.Kind != forge.ImagePushed || ev.Forge != kind || !slices.Equal(ev.Images, d.want) {
					t.Errorf("%+v, %v", ev, r)
				}
			}
			if _, r := take(prove(kind, "guess", d.body), d.body); r == nil || r.Code != BadSignature {
				t.Errorf("another secret: %v", r)
			}
			if _, r := take(http.Header{}, d.body); r == nil || r.Code != Unsigned {
				t.Errorf("no secret: %v", r)
			}
			if ev, r := take(prove(kind, "new", `{}`), `{}`); r != nil || ev.Kind != forge.Ignored {
				t.Errorf("something else: %+v, %v", ev, r)
			}
			for _, body := range []string{`[]`, `{"events": 1, "repository": [], "docker_url": {}, "package": 3, "event_data": ""}`, `<html>`} {
				if _, err := e.Parse(prove(kind, "new", body), []byte(body)); err == nil {
					t.Errorf("%s is understood", body)
				}
			}
		})
	}
	t.Run("a body that was changed", func(t *testing.T) {
		e := Endpoint{Forge: GHCR, Secrets: []string{"s"}}
		if r := e.Verify(prove(GHCR, "s", "{}"), []byte("{} "), time.Now()); r == nil || r.Code != BadSignature {
			t.Errorf("%v", r)
		}
	})
}
