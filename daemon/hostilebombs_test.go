package daemon

import (
	"fmt"
	"strings"
)

// only makes the files of an application of one file.
func only(name, text string) map[string]string { return map[string]string{"app/" + name: text} }

// repeated is a text with the numbers from 0 to n-1 in it.
func repeated(n int, format string) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, format, i)
	}
	return b.String()
}

// aliases nest lists of ten aliases so that they stand for 10^levels values.
func aliases(levels int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nx0: &x0 [a,a,a,a,a,a,a,a,a,a]\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "x%d: &x%d [%s]\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*x%d,", i-1), 10), ","))
	}
	return b.String()
}

// merges nest merge keys.
func merges(levels int) string {
	var b strings.Builder
	b.WriteString("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: bomb}\nm0: &m0 {" + strings.TrimSuffix(repeated(500, "k%d: v,"), ",") + "}\n")
	for i := 1; i < levels; i++ {
		fmt.Fprintf(&b, "m%d: &m%d {<<: [%s], n%d: v}\n", i, i, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*m%d,", i-1), 10), ","), i)
	}
	return b.String()
}

// doubling makes bases each of which is used twice by the one above.
func doubling(levels int, kind string) map[string]string {
	files := map[string]string{"app/kustomization.yaml": kind + ": [../d00]\n"}
	head := ""
	if kind == "components" {
		head = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
	}
	for i := range levels {
		files[fmt.Sprintf("d%02d/kustomization.yaml", i)] = fmt.Sprintf("%s%s: [../d%02d/a, ../d%02d/b]\n", head, kind, i, i)
		for _, ab := range []string{"a", "b"} {
			files[fmt.Sprintf("d%02d/%s/kustomization.yaml", i, ab)] = fmt.Sprintf("%snamePrefix: %s\n%s: [../../d%02d]\n", head, ab, kind, i+1)
		}
	}
	files[fmt.Sprintf("d%02d/kustomization.yaml", levels)] = head + "configMapGenerator: [{name: x}]\n"
	return files
}

// chain makes kustomizations that build on each other.
func chain(length int, kind, last string) map[string]string {
	files := map[string]string{"app/kustomization.yaml": kind + ": [../c0]\n"}
	head := ""
	if kind == "components" {
		head = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\n"
	}
	for i := range length {
		files[fmt.Sprintf("c%d/kustomization.yaml", i)] = fmt.Sprintf("%s%s: [../c%d]\n", head, kind, i+1)
	}
	files[fmt.Sprintf("c%d/kustomization.yaml", length)] = head + last
	return files
}

// copies is a JSON patch that doubles a value again and again.
func copies(times int) string {
	var b strings.Builder
	for i := range times {
		fmt.Fprintf(&b, "- {op: copy, from: /metadata/annotations, path: /metadata/annotations/a%d}\n", i)
	}
	return b.String()
}

func deployments(n, replicas int) string {
	return repeated(n, "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d%d}\nspec:\n"+
		fmt.Sprintf("  replicas: %d\n", replicas)+
		"  selector: {matchLabels: {app: a}}\n  template:\n    metadata: {labels: {app: a}}\n    spec: {containers: [{name: c, image: 'web:1'}]}\n")
}

func files(n int, name string, text func(i int) string) map[string]string {
	out := map[string]string{}
	for i := range n {
		out[fmt.Sprintf("app/"+name, i)] = text(i)
	}
	return out
}

func kustomized(kustomization string, more map[string]string) map[string]string {
	out := map[string]string{"app/kustomization.yaml": kustomization}
	for name, text := range more {
		out[name] = text
	}
	return out
}

// bombs are small in the repository and large when they are read.
func bombs() []hostileCase {
	const stopped = "was stopped"
	cm := "app/cm.yaml"
	one := map[string]string{cm: goodMap("m")}
	return []hostileCase{
		{name: "T-D1 aliases that stand for 10^9 values (Kubernetes CVE-2019-11253)", make: func() map[string]string { return only("a.yaml", aliases(9)) }, want: "app/a.yaml:9: error: more than 500000 values when its aliases are expanded"},
		{name: "T-D1 merge keys that stand for 10^9 (yaml.v2 CVE-2022-3064)", make: func() map[string]string { return only("a.yaml", merges(9)) }, want: "when its aliases are expanded"},
		{name: "T-D1 aliases in a kustomization", make: func() map[string]string {
			return only("kustomization.yaml", strings.Replace(aliases(9), "ConfigMap", "Kustomization", 1))
		}, want: "when its aliases are expanded"},
		{name: "T-D1 aliases in an inline patch", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\npatches:\n- patch: |-\n    "+strings.ReplaceAll(aliases(9), "\n", "\n    ")+"\n", one)
		}, want: "when its aliases are expanded"},
		{name: "T-D1 an anchor in itself", make: func() map[string]string { return only("a.yaml", "a: &a [*a]\n") }, want: "an anchor contains its own alias"},
		{name: "T-D1 a million lists in each other (yaml.v3 CVE-2022-28948)", make: func() map[string]string { return only("a.yaml", "a: "+strings.Repeat("[", 1_000_000)) }, want: "app/a.yaml:1: error: not valid YAML: exceeded max depth"},
		{name: "T-D1 900,000 mappings in each other", make: func() map[string]string { return only("a.yaml", strings.Repeat("? ", 900_000)) }, want: "error: "},
		{name: "T-D1 5000 mappings in each other by indentation", make: func() map[string]string {
			return only("a.yaml", func() string {
				var b strings.Builder
				for i := range 5000 {
					b.WriteString(strings.Repeat(" ", i) + "a:\n")
				}
				return b.String()
			}())
		}, want: "error: "},
		{name: "T-D1 a file of 17 MiB (Argo CD CVE-2022-31016)", make: func() map[string]string { return only("a.yaml", strings.Repeat("#", 17<<20)) }, want: "the limit is 16777216"},
		{name: "T-D1 one text of 15 MiB", make: func() map[string]string {
			return only("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\ndata: {a: "+strings.Repeat("x", 15<<20)+"}\n")
		}, want: "error: ConfigMap default/m: data: too long: may not be more than 1048576 bytes"},
		{name: "T-D1 one line of 15 MiB that is no YAML", make: func() map[string]string { return only("a.yaml", "a: {"+strings.Repeat("x", 15<<20)) }, want: "app/a.yaml:", long: true},
		{name: "T-D1 a key of 1 MiB", make: func() map[string]string {
			return only("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"+strings.Repeat("k", 1<<20)+": v\n")
		}, want: "not valid YAML"},
		{name: "T-D1 a name of 1 MiB", make: func() map[string]string {
			return only("a.yaml", strings.Replace(goodMap("m"), "name: m", "name: "+strings.Repeat("n", 1<<20), 1))
		}, want: "error: "},
		{name: "T-D1 100,000 documents", make: func() map[string]string { return only("a.yaml", strings.Repeat("---\na: b\n", 100_000)) }, want: "the file has 100000 documents, the limit is 10000"},
		{name: "T-D1 10,000 documents all of which are wrong", make: func() map[string]string { return only("a.yaml", strings.Repeat("---\nkind: Evil\n", 10_000)) }, want: "more findings"},
		{name: "T-D1 60 files of 500 wrong documents", make: func() map[string]string {
			return files(60, "f%d.yaml", func(int) string { return strings.Repeat("---\nkind: Evil\n", 500) })
		}, want: "the path has more than 10000 findings"},
		{name: "T-D1 a million unknown fields", make: func() map[string]string {
			return only("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: m}\n"+repeated(499_000, "f%d: 0\n"))
		}, want: "error", long: true},
		{name: "T-D1 a million values", make: func() map[string]string { return only("a.yaml", "a: ["+strings.Repeat("0,", 1_100_000)+"0]") }, want: "the file has about"},
		{name: "T-D1 a million literals of a generator", make: func() map[string]string {
			return kustomized("configMapGenerator:\n- name: g\n  literals:\n"+repeated(1_000_000, "  - k%d=v\n"), nil)
		}, want: "error: "},
		{name: "T-D1 20,000 literals of a generator", make: func() map[string]string {
			return kustomized("configMapGenerator:\n- name: g\n  literals:\n"+repeated(19_000, "  - k%d=v\n"), nil)
		}, want: "", long: true},
		{name: "T-D1 30,000 generators", make: func() map[string]string {
			return kustomized("configMapGenerator:\n"+repeated(30_000, "- {name: g%d}\n"), nil)
		}, want: "error: "},
		{name: "T-D1 an env file of a million lines", make: func() map[string]string {
			return kustomized("configMapGenerator: [{name: g, envs: [e.env]}]\n", only("e.env", repeated(1_000_000, "K%d=v\n")))
		}, want: "it has 1000000 lines, more than the 20000"},
		{name: "T-D1 a generated file of 15 MiB", make: func() map[string]string {
			return kustomized("configMapGenerator: [{name: g, files: [e.bin]}]\n", only("e.bin", strings.Repeat("\x00\xff", 7<<20)))
		}, want: "error: ", long: true},
		{name: "T-D1 bases that double 30 times (Flux CVE-2022-24878)", make: func() map[string]string { return doubling(30, "resources") }, want: "it builds more than 2000 kustomizations"},
		{name: "T-D1 components that double 30 times", make: func() map[string]string { return doubling(30, "components") }, want: "error: "},
		{name: "T-D1 components in a circle", make: func() map[string]string { return chain(3, "components", "components: [../c0]\n") }, want: "go round in a circle"},
		{name: "T-D1 kustomizations in a circle", make: func() map[string]string { return chain(3, "resources", "resources: [../app]\n") }, want: "go round in a circle"},
		{name: "T-D1 1000 kustomizations on each other", make: func() map[string]string { return chain(1000, "resources", "resources: []\n") }, want: "more than 50 kustomizations build on each other"},
		{name: "T-D1 a JSON patch that doubles 40 times", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\npatches:\n- target: {kind: ConfigMap}\n  patch: |-\n    "+strings.ReplaceAll(copies(40), "\n", "\n    ")+"\n",
				map[string]string{cm: strings.Replace(goodMap("m"), "name: m", "name: m, annotations: {a: b}", 1)})
		}, want: "error: "},
		{name: "T-D1 replacements that double 40 times", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\nreplacements:\n"+
				strings.Repeat("- {source: {kind: ConfigMap, fieldPath: data.a}, targets: [{select: {kind: ConfigMap}, fieldPaths: [data.a], options: {delimiter: x, index: 1, create: true}}]}\n", 40),
				map[string]string{cm: strings.Replace(goodMap("m"), "a: b", "a: bxb", 1)})
		}, want: "needed more than 448 MiB of memory and was stopped", long: true},
		{name: "T-D1 a schema that refers to itself", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\nopenapi: {path: s.json}\npatches: [{patch: '{apiVersion: v1, kind: ConfigMap, metadata: {name: m}, data: {x: y}}'}]\n",
				map[string]string{cm: goodMap("m"), "app/s.json": `{"definitions":{"v1.ConfigMap":{"$ref":"#/definitions/v1.Loop"},"v1.Loop":{"properties":{"data":{"$ref":"#/definitions/v1.ConfigMap"}},"allOf":[{"$ref":"#/definitions/v1.Loop"}],"x-kubernetes-group-version-kind":[{"group":"","kind":"ConfigMap","version":"v1"}]}}}`})
		}, want: ""},
		{name: "T-D1 a schema that is none", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\nopenapi: {path: s.json}\n", map[string]string{cm: goodMap("m"), "app/s.json": "[[[["})
		}, want: "create ConfigMap default/m"},
		{name: "T-D1 name references that look everywhere", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\nnamePrefix: p-\nconfigurations: [c.yaml]\n", map[string]string{
				cm: repeated(2000, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: m%d}\ndata: {ref: m0}\n"), "app/c.yaml": "nameReference:\n- kind: ConfigMap\n  fieldSpecs:\n" + strings.Repeat("  - {path: data/ref, kind: ConfigMap}\n", 50)})
		}, want: "", long: true},
		{name: "T-D1 20,000 objects renamed together", make: func() map[string]string {
			return kustomized("namePrefix: p-\nresources: [a.yaml, b.yaml]\n", map[string]string{
				"app/a.yaml": repeated(9_999, "---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a%d}\n"), "app/b.yaml": repeated(9_999, "---\napiVersion: v1\nkind: Secret\nmetadata: {name: b%d}\n")})
		}, want: "", long: true},
		{name: "T-D1 a regular expression as a target", make: func() map[string]string {
			return kustomized("resources: [cm.yaml]\npatches: [{target: {kind: '(((((a*)*)*)*)*b', name: '("+strings.Repeat("(x{1,1000}){1,1000}", 20)+"'}, patch: '[{op: add, path: /data/x, value: y}]'}]\n", one)
		}, want: "error: "},
		{name: "T-D1 an image that is a regular expression", make: func() map[string]string {
			return kustomized("resources: [d.yaml]\nimages: [{name: '((((', newTag: x}, {name: '(a*)*(a*)*(a*)*b', newTag: 'y'}]\n", only("d.yaml", deployments(1, 1)))
		}, want: ""},
		{name: "T-D1 a replica count of 2^31-1", make: func() map[string]string { return only("d.yaml", deployments(1, 1<<31-1)) }, want: "spec.replicas: is not supported: 2147483647 pods are more than one application may have (the limit is 10000)"},
		{name: "T-D1 a replica count of 2^31-1 by kustomize", make: func() map[string]string {
			return kustomized("resources: [d.yaml]\nreplicas: [{name: d0, count: 2147483647}]\n", only("d.yaml", deployments(1, 1)))
		}, want: "pods are more than one application may have"},
		{name: "T-D1 a thousand Deployments of 9000 pods", make: func() map[string]string { return only("d.yaml", deployments(1000, 9000)) }, want: "with its pods the application has more than 10000"},
		{name: "T-D1 a Deployment of 10,000 pods", make: func() map[string]string { return only("d.yaml", deployments(1, 10_000)) }, want: "create Deployment default/d0"},
		{name: "T-D1 a Job of 2^31-1 pods", make: func() map[string]string {
			return only("j.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  parallelism: 2147483647\n  completions: 2147483647\n  template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'job:1'}]}}\n")
		}, want: "create Job default/j"},
		{name: "T-D1 a Job of 2^31-1 indexes", make: func() map[string]string {
			return only("j.yaml", "apiVersion: batch/v1\nkind: Job\nmetadata: {name: j}\nspec:\n  parallelism: 100000\n  completions: 100000\n  completionMode: Indexed\n  template: {spec: {restartPolicy: Never, containers: [{name: c, image: 'job:1'}]}}\n")
		}, want: "create Job default/j"},
		{name: "T-D1 a pod with 10,000 variables", make: func() map[string]string {
			return only("p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: web:1\n    env:\n"+repeated(10_000, "    - {name: V%d, value: $(V0)$(V0)}\n"))
		}, want: "create Pod default/p"},
		{name: "T-D1 variables that double", make: func() map[string]string {
			return only("p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n    image: web:1\n    env:\n    - {name: V0, value: xxxxxxxxxx}\n"+
				func() string {
					var b strings.Builder
					for i := range 40 {
						fmt.Fprintf(&b, "    - {name: V%d, value: $(V%d)$(V%d)}\n", i+1, i, i)
					}
					return b.String()
				}())
		}, want: "create Pod default/p"},
		{name: "T-D1 a Service of 10,000 ports", make: func() map[string]string {
			return only("s.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec:\n  selector: {app: a}\n  ports:\n"+repeated(10_000, "  - {name: p%[1]d, port: %[1]d}\n"))
		}, want: "error", long: true},
		{name: "T-D1 2000 Services that select everything", make: func() map[string]string {
			return only("s.yaml", deployments(1, 1)+repeated(2000, "---\napiVersion: v1\nkind: Service\nmetadata: {name: s%d}\nspec: {selector: {app: a}, ports: [{port: 80}]}\n"))
		}, want: "there is no range of cluster addresses"},
		{name: "T-D1 a ConfigMap of 100,000 keys", make: func() map[string]string {
			return only("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c}\ndata:\n"+repeated(100_000, "  k%d: ''\n"))
		}, want: ""},
		{name: "T-D1 90 ConfigMaps of 60,000 keys", make: func() map[string]string {
			return files(90, "f%d.yaml", func(i int) string {
				return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata:\n", i) + repeated(60_000, "  k%d: ''\n")
			})
		}, want: "", long: true},
		{name: "T-D1 50 ConfigMaps of 1 MiB", make: func() map[string]string {
			return files(50, "f%d.yaml", func(i int) string {
				return fmt.Sprintf("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: c%d}\ndata: {a: %s}\n", i, strings.Repeat("x", 1<<20-16))
			})
		}, want: "with it the path makes more than 24 MiB of objects"},
		{name: "T-D1 annotations of 1 MiB", make: func() map[string]string {
			return only("c.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  annotations:\n"+repeated(20_000, "    example.com/a%d: "+strings.Repeat("x", 50)+"\n"))
		}, want: "error: "},
		{name: "T-D1 lists of lists of objects", make: func() map[string]string {
			return only("l.yaml", strings.Repeat("{apiVersion: v1, kind: List, items: [", 90)+goodInline("m")+strings.Repeat("]}", 90))
		}, want: "error: "},
		{name: "T-D1 a List of 100,000 objects", make: func() map[string]string {
			return only("l.yaml", "apiVersion: v1\nkind: List\nitems:\n"+repeated(60_000, "- {apiVersion: v1, kind: ConfigMap, metadata: {name: c%d}}\n"))
		}, want: "error"},
		{name: "T-D1 a quantity of a million digits", make: func() map[string]string {
			return only("p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {containers: [{name: c, image: 'web:1', resources: {limits: {cpu: '"+strings.Repeat("9", 1_000_000)+"', memory: 1e999999999}}}]}\n")
		}, want: "is not a quantity"},
		{name: "T-D1 numbers that are none", make: func() map[string]string {
			return only("p.yaml", "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec: {priority: .nan, terminationGracePeriodSeconds: 1e309, activeDeadlineSeconds: -.inf, containers: [{name: c, image: 'web:1', ports: [{containerPort: 0x1ffffffff}]}]}\n")
		}, want: "error: "},
	}
}

func goodInline(name string) string {
	return "{apiVersion: v1, kind: ConfigMap, metadata: {name: " + name + "}}"
}
