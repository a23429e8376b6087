package daemon

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/fairlead-dev/fairlead/sources/git/gittest"
)

// with makes a repository of the good application and other entries of its root, in exactly that order.
func with(entries func(r *gittest.Repository) []gittest.Entry) func(*gittest.Repository) {
	return func(r *gittest.Repository) {
		all := append(entries(r), gittest.Entry{Mode: gittest.ModeDir, Name: "good", ID: r.Files(map[string]string{"cm.yaml": goodMap("same")})})
		r.Commit(r.List(all...))
	}
}

// app makes a repository whose application has exactly these entries.
func app(entries func(r *gittest.Repository) []gittest.Entry) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: gittest.ModeDir, Name: "app", ID: r.List(entries(r)...)}}
	})
}

// hidden makes an application of a ConfigMap and an entry that must not be seen: of that name, with a file that
// would be found to be wrong.
func hidden(name string) func(*gittest.Repository) {
	return app(func(r *gittest.Repository) []gittest.Entry {
		hooks := r.Files(map[string]string{"hooks/post-checkout": "#!/bin/sh\n", "config": "[core]\n\tfsmonitor = touch ran\n", "evil.yaml": "kind: Evil\n"})
		return []gittest.Entry{{Mode: gittest.ModeDir, Name: name, ID: hooks}, {Mode: gittest.ModeFile, Name: "cm.yaml", ID: r.File(goodMap("seen"))}}
	})
}

// plain makes an application of files with these names.
func plain(names ...string) func(*gittest.Repository) {
	return app(func(r *gittest.Repository) []gittest.Entry {
		var list []gittest.Entry
		for i, name := range names {
			list = append(list, gittest.Entry{Mode: gittest.ModeFile, Name: name, ID: r.File(goodMap(fmt.Sprintf("m%d", i)))})
		}
		return list
	})
}

// mode makes an application of a ConfigMap with a mode.
func mode(mode string) func(*gittest.Repository) {
	return app(func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: mode, Name: "cm.yaml", ID: r.File(goodMap("m"))}}
	})
}

// link makes an application of a symbolic link.
func symbolic(target string) func(*gittest.Repository) {
	return app(func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: gittest.ModeFile, Name: "kustomization.yaml", ID: r.File("resources: [a.yaml]\n")}, {Mode: gittest.ModeLink, Name: "a.yaml", ID: r.File(target)}}
	})
}

// broken makes an application with an entry whose object is not what the mode says, or is not there.
func brokenEntry(mode string, object func(r *gittest.Repository) gittest.ID) func(*gittest.Repository) {
	return app(func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: mode, Name: "x.yaml", ID: object(r)}}
	})
}

func missingObject(kind int, data string) func(r *gittest.Repository) gittest.ID {
	return func(r *gittest.Repository) gittest.ID {
		id := r.Add(kind, []byte(data))
		r.Remove(id)
		return id
	}
}

// rawTree makes an application whose tree is these bytes.
func rawTree(data string) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: gittest.ModeDir, Name: "app", ID: r.Add(gittest.Tree, []byte(data))}}
	})
}

// commitOf makes a repository whose branch is this object.
func commitOf(kind int, data func(r *gittest.Repository, tree gittest.ID) string) func(*gittest.Repository) {
	return func(r *gittest.Repository) {
		tree := r.Files(map[string]string{"app/cm.yaml": goodMap("m"), "good/cm.yaml": goodMap("same")})
		r.Follow(r.Add(kind, []byte(data(r, tree))))
	}
}

const who = "Ada <ada@example.com> 1700000000 +0000"

// nested makes an application of so many directories in each other.
func nested(depth int) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		id := r.Files(map[string]string{"cm.yaml": goodMap("deep")})
		for range depth {
			id = r.List(gittest.Entry{Mode: gittest.ModeDir, Name: "d", ID: id})
		}
		return []gittest.Entry{{Mode: gittest.ModeDir, Name: "app", ID: id}}
	})
}

// fanOut makes a tree that has the same tree ten times, in so many levels.
func fanOut(r *gittest.Repository, levels int, last gittest.ID) gittest.ID {
	id := last
	for range levels {
		var list []gittest.Entry
		for i := range 10 {
			list = append(list, gittest.Entry{Mode: gittest.ModeDir, Name: fmt.Sprintf("d%d", i), ID: id})
		}
		id = r.List(list...)
	}
	return id
}

func fanned(levels int, last map[string]string, root map[string]string) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		var list []gittest.Entry
		for name, text := range root {
			list = append(list, gittest.Entry{Mode: gittest.ModeFile, Name: name, ID: r.File(text)})
		}
		return append(list, gittest.Entry{Mode: gittest.ModeDir, Name: "app", ID: fanOut(r, levels, r.Files(last))})
	})
}

// wide makes an application of one directory with so many files.
func wide(files int) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		one := r.File("# nothing\n")
		list := make([]gittest.Entry, files)
		for i := range list {
			list[i] = gittest.Entry{Mode: gittest.ModeFile, Name: fmt.Sprintf("f%08d.yaml", i), ID: one}
		}
		return []gittest.Entry{{Mode: gittest.ModeDir, Name: "app", ID: r.List(list...)}}
	})
}

// module makes a repository with a submodule, which a declaration in it asks for.
func module(config string, entries func(r *gittest.Repository) []gittest.Entry) func(*gittest.Repository) {
	return with(func(r *gittest.Repository) []gittest.Entry {
		list := []gittest.Entry{{Mode: gittest.ModeFile, Name: ".gitmodules", ID: r.File(config)}}
		list = append(list, entries(r)...)
		return append(list, gittest.Entry{Mode: gittest.ModeDir, Name: "app", ID: r.Files(map[string]string{"cm.yaml": goodMap("m")})})
	})
}

func manyModules(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "[submodule \"m%d\"]\n\tpath = m%d\n\turl = ../m%d\n", i, i, i)
	}
	return b.String()
}

func vendored(path string) func(r *gittest.Repository) []gittest.Entry {
	return func(r *gittest.Repository) []gittest.Entry {
		return []gittest.Entry{{Mode: gittest.ModeModule, Name: path, ID: "1111111111111111111111111111111111111111"}}
	}
}

// refs makes a repository that lists more references than there are.
func refs(add map[string]string) func(*gittest.Repository) {
	return func(r *gittest.Repository) {
		id := r.Commit(r.Files(map[string]string{"app/cm.yaml": goodMap("m"), "good/cm.yaml": goodMap("same")}))
		for name, value := range add {
			if value == "" {
				value = string(id)
			}
			r.Refs[name] = gittest.ID(value)
		}
	}
}

// craftedTrees are repositories that git itself would not make.
func craftedTrees() []hostileCase {
	const seen = "create ConfigMap default/seen"
	list := []hostileCase{
		{name: "T-P4 .git with hooks and a config (go-git CVE-2023-49569, CVE-2026-45571)", craft: hidden(".git"), want: seen},
		{name: "T-P4 .GIT", craft: hidden(".GIT"), want: seen},
		{name: "T-P4 .gIt", craft: hidden(".gIt"), want: seen},
		{name: "T-P4 directory ..", craft: hidden(".."), want: seen},
		{name: "T-P4 directory .", craft: hidden("."), want: seen},
		{name: "T-P4 directory without a name", craft: hidden(""), want: seen},
		{name: "T-P4 directory with a path as name", craft: hidden("a/../../b"), want: seen},
		{name: "T-P4 directory with an absolute path as name", craft: hidden("/etc"), want: seen},
		{name: "T-P4 directory with backslashes", craft: hidden(`..\..\b`), want: seen},
		{name: "T-P4 short name of .git", craft: hidden("git~1"), want: "app/git~1/evil.yaml:1: error: "},
		{name: "T-P4 .git with a character that some file systems drop", craft: hidden(".g\u200cit"), want: "evil.yaml:1: error: "},
		{name: "T-P4 .git in the root", craft: with(func(r *gittest.Repository) []gittest.Entry {
			return []gittest.Entry{
				{Mode: gittest.ModeDir, Name: ".git", ID: r.Files(map[string]string{"hooks/post-checkout": "#!/bin/sh\ntouch ran\n", "config": "[core]\n\tsshCommand = touch ran\n"})},
				{Mode: gittest.ModeDir, Name: "app", ID: r.Files(map[string]string{"kustomization.yaml": "resources: [../.git/config]\n"})},
			}
		}), want: `"../.git/config" does not exist`},
		{name: "T-P4 two files of one name", craft: plain("a.yaml", "a.yaml"), want: "error"},
		{name: "T-P4 a file and a directory of one name", craft: app(func(r *gittest.Repository) []gittest.Entry {
			return []gittest.Entry{{Mode: gittest.ModeFile, Name: "a", ID: r.File("x")}, {Mode: gittest.ModeDir, Name: "a", ID: r.Files(map[string]string{"cm.yaml": goodMap("m")})}}
		}), want: "error"},
		{name: "T-P4 names that differ in case only", craft: plain("A.yaml", "a.yaml"), want: "create ConfigMap default/m1"},
		{name: "T-P4 names that differ in composition only", craft: plain("e\u0301.yaml", "\u00e9.yaml"), want: "create ConfigMap default/m1"},
		{name: "T-P4 name that steers terminals", craft: app(func(r *gittest.Repository) []gittest.Entry {
			return []gittest.Entry{{Mode: gittest.ModeFile, Name: "\x1b[2J\n\revil.yaml", ID: r.File("kind: Evil\n")}}
		}), want: "error"},
		{name: "T-P4 name that is not text", craft: plain("\xff\xfe.yaml"), want: "error"},
		{name: "T-P4 name of 5000 characters", craft: plain(strings.Repeat("n", 5000) + ".yaml"), want: "create ConfigMap default/m0"},
		{name: "T-P4 name that is an option", craft: plain("-rf.yaml", "--upload-pack=x.yaml"), want: "create ConfigMap default/m1"},
		{name: "T-P4 mode 0", craft: mode("0"), want: "create ConfigMap default/m"},
		{name: "T-P4 mode of a device", craft: mode("20666"), want: "create ConfigMap default/m"},
		{name: "T-P4 mode with all bits", craft: mode("7777777"), want: "create ConfigMap default/m"},
		{name: "T-P4 mode is no number", craft: mode("-1"), want: "malformed mode"},
		{name: "T-P4 mode with leading zeros and set-uid", craft: mode("0104755"), want: "create ConfigMap default/m"},
		{name: "T-P4 file as directory", craft: brokenEntry(gittest.ModeDir, func(r *gittest.Repository) gittest.ID { return r.File("x") }), want: "error: "},
		{name: "T-P4 directory as file", craft: brokenEntry(gittest.ModeFile, func(r *gittest.Repository) gittest.ID { return r.Files(map[string]string{"a": "b"}) }), want: "error: "},
		{name: "T-P4 commit as file", craft: brokenEntry(gittest.ModeFile, func(r *gittest.Repository) gittest.ID { return r.Add(gittest.Commit, []byte("tree x\n")) }), want: "error: "},
		{name: "T-P4 file that is missing", craft: brokenEntry(gittest.ModeFile, missingObject(gittest.Blob, "gone")), want: "error: "},
		{name: "T-P4 directory that is missing", craft: brokenEntry(gittest.ModeDir, missingObject(gittest.Tree, "")), want: "error: "},
		{name: "T-P4 link to nothing at all", craft: symbolic(""), want: "symbolic link"},
		{name: "T-P4 link with a null byte", craft: symbolic("x\x00/etc/passwd"), want: "symbolic link"},
		{name: "T-P4 link of 100,000 characters", craft: symbolic(strings.Repeat("../", 33_000)), want: "symbolic link"},
		{name: "T-P4 link through itself a thousand times", craft: symbolic("a.yaml/" + strings.Repeat("a.yaml/", 500)), want: "symbolic link"},
		{name: "T-P4 tree that ends early", craft: rawTree("100644 a.yaml\x00abc"), want: "malformed"},
		{name: "T-P4 tree without a name", craft: rawTree("100644"), want: "malformed"},
		{name: "T-P4 tree that is text", craft: rawTree("tree? which tree?"), want: "malformed"},
		{name: "T-P4 tree out of order", craft: plain("z.yaml", "m.yaml", "a.yaml"), want: "create ConfigMap default/m2"},
		{name: "T-P4 reference that goes up (go-git CVE-2026-71557)", craft: refs(map[string]string{"refs/heads/../../../x": "", "refs/heads/a..b": "", "refs/tags/../v1": ""}), want: "create ConfigMap default/m"},
		{name: "T-P4 reference that steers terminals", craft: refs(map[string]string{"refs/heads/\x1b[2J": "", "HEAD.lock": "", "refs/heads/-x": ""}), want: "create ConfigMap default/m"},
		{name: "T-P4 reference with a space", craft: refs(map[string]string{"refs/heads/a b": ""}), unfetched: true, want: "more than one space found"},
		{name: "T-P4 application is a submodule", craft: with(func(*gittest.Repository) []gittest.Entry {
			return []gittest.Entry{{Mode: gittest.ModeModule, Name: "app", ID: "1111111111111111111111111111111111111111"}}
		}), want: ""},

		{name: "T-S5 submodule that nobody asked for", craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = http://127.0.0.1:1/x\n", vendored("vendor")), want: "create ConfigMap default/m"},
		{name: "T-S5 submodule path with a carriage return (git CVE-2025-48384)", craft: module("[submodule \"a\"]\n\tpath = \"vendor\r\"\n\turl = ../x\n", vendored("vendor\r")), want: "create ConfigMap default/m"},
		{name: "T-S5 submodule path that goes up", craft: module("[submodule \"../../x\"]\n\tpath = ../../x\n\turl = ../x\n", vendored("x")), want: "create ConfigMap default/m"},
		{name: "T-S5 submodule file of options", craft: module("[submodule \"-x\"]\n\tpath = -x\n\turl = --upload-pack=touch\n\tupdate = !touch ran\n", vendored("-x")), want: "create ConfigMap default/m"},

		{name: "T-S5 submodule asked for, of this machine", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = file:///etc\n", vendored("vendor")), unfetched: true, want: "names a path of this machine, which a remote repository may not"},
		{name: "T-S5 submodule asked for, by a path", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = /etc\n", vendored("vendor")), unfetched: true, want: "names a path of this machine, which a remote repository may not"},
		{name: "T-S5 submodule asked for, by a command", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = ext::sh -c touch% ran\n", vendored("vendor")), unfetched: true, want: "submodule vendor: "},
		{name: "T-S5 submodule asked for, by an option", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = -oProxyCommand=touch:x\n", vendored("vendor")), unfetched: true, want: "submodule vendor: "},
		{name: "T-S5 submodule asked for, over ssh with quotes (go-git CVE-2026-45570)", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = \"ssh://git@127.0.0.1:1/x';touch ran;'\"\n", vendored("vendor")), unfetched: true, want: "submodule vendor: "},
		{name: "T-S5 submodule asked for, above the server", submodules: true, craft: module("[submodule \"a\"]\n\tpath = vendor\n\turl = ../../../x\n", vendored("vendor")), unfetched: true, want: "leads above the root"},
		{name: "T-S5 submodule asked for, mounted above", submodules: true, craft: module("[submodule \"a\"]\n\tpath = ../../vendor\n\turl = ../x\n[submodule \"b\"]\n\tpath = .git/hooks\n\turl = ../x\n", vendored("vendor")), want: "create ConfigMap default/m"},
		{name: "T-S5 200 submodules", submodules: true, craft: module(manyModules(200), vendored("vendor")), unfetched: true, want: "the repository has 200 submodules, more than 100"},
		{name: "T-S5 .gitmodules that is no configuration", submodules: true, craft: module("[submodule \"\x00\"\n\"]]]\n\\", vendored("vendor")), unfetched: true, want: "read .gitmodules"},

		{name: "T-D2 commit without a tree", craft: commitOf(gittest.Commit, func(_ *gittest.Repository, _ gittest.ID) string {
			return "author " + who + "\ncommitter " + who + "\n\nx\n"
		}), unfetched: true, want: "commit is malformed: it has no tree"},
		{name: "T-D2 commit of a tree that is missing", craft: commitOf(gittest.Commit, func(_ *gittest.Repository, _ gittest.ID) string {
			return "tree 1111111111111111111111111111111111111111\nauthor " + who + "\ncommitter " + who + "\n\nx\n"
		}), unfetched: true, want: "objects of the repository are missing or damaged"},
		{name: "T-D2 commit of a file", craft: commitOf(gittest.Commit, func(r *gittest.Repository, _ gittest.ID) string {
			return "tree " + string(r.File("x")) + "\nauthor " + who + "\ncommitter " + who + "\n\nx\n"
		}), unfetched: true, want: "is a blob, not a tree"},
		{name: "T-D2 branch that is a file", craft: commitOf(gittest.Blob, func(*gittest.Repository, gittest.ID) string { return "x" }), unfetched: true, want: "is a blob, not a commit"},
		{name: "T-D2 branch that is a tag of a file", craft: commitOf(gittest.Tag, func(r *gittest.Repository, _ gittest.ID) string {
			return "object " + string(r.File("x")) + "\ntype commit\ntag x\n\nx\n"
		}), unfetched: true, want: "is a blob, not a commit"},
		{name: "T-D2 tags of tags", craft: commitOf(gittest.Tag, func(r *gittest.Repository, tree gittest.ID) string {
			id := r.Commit(tree)
			for i := range 50 {
				id = r.Add(gittest.Tag, fmt.Appendf(nil, "object %s\ntype tag\ntag t%d\n\nx\n", id, i))
			}
			return "object " + string(id) + "\ntype tag\ntag x\n\nx\n"
		}), unfetched: true, want: "points to tags only"},
		{name: "T-D2 tag without an object", craft: commitOf(gittest.Tag, func(*gittest.Repository, gittest.ID) string { return "object x" }), unfetched: true, want: "is malformed"},
		{name: "T-D2 commit with a message of 30 MiB", craft: commitOf(gittest.Commit, func(_ *gittest.Repository, tree gittest.ID) string {
			return "tree " + string(tree) + "\nauthor " + who + "\ncommitter " + who + "\n\n" + strings.Repeat("m", 30<<20)
		}), unfetched: true, want: "the commit has 30720 KiB, more than 1024", long: true},
		{name: "T-D2 commit with a message and names of 900 KiB", craft: commitOf(gittest.Commit, func(_ *gittest.Repository, tree gittest.ID) string {
			return "tree " + string(tree) + "\nauthor " + strings.Repeat("a", 400<<10) + " <a@b> 99999999999999999999 +9999\ncommitter " + who + "\n\n" + strings.Repeat("m", 500<<10)
		}), want: "create ConfigMap default/m"},
		{name: "T-D2 commit with 20,000 parents", craft: commitOf(gittest.Commit, func(_ *gittest.Repository, tree gittest.ID) string {
			return "tree " + string(tree) + "\n" + strings.Repeat("parent 1111111111111111111111111111111111111111\n", 20_000) + "author " + who + "\ncommitter " + who + "\n\nx\n"
		}), want: "create ConfigMap default/m"},

		{name: "T-D2 5000 directories in each other", craft: nested(5000), want: "directories are nested more than 100 deep"},
		{name: "T-D2 directories that are in each other 10^10 times", craft: fanned(10, map[string]string{"README": "x"}, nil), want: "app: error: more than 20000 directories (split the path into several applications)"},
		{name: "T-D2 files that are there 10^10 times", craft: fanned(10, map[string]string{"cm.yaml": goodMap("m")}, nil), want: "app: error: more than 20000 directories", long: true},
		{name: "T-D2 the same behind patterns that hide and show", craft: fanned(10, map[string]string{"cm.yaml": goodMap("m")}, map[string]string{".sourceignore": "*.yaml\napp\n!never.yaml\n!/good/**\n"}), want: "app: error: more than 20000 directories"},
		{name: "T-D2 200,000 files in one directory", craft: wide(200_000), want: "more than 100000 files and kustomizations", long: true},
		{name: "T-D2 500,000 files in one directory", craft: wide(500_000), want: "the list of one directory has", long: true},
		{name: "T-D2 20,000 patterns to ignore", craft: fanned(1, map[string]string{"cm.yaml": goodMap("m")}, map[string]string{".sourceignore": strings.Repeat("**/a*b*c*d*e*\n", 20_000)}), unfetched: true,
			want: ".sourceignore has 20000 patterns, more than 1000"},
		{name: "T-D2 patterns that match slowly", craft: fanned(2, map[string]string{strings.Repeat("a", 200) + ".yaml": goodMap("m")}, map[string]string{".sourceignore": strings.Repeat("**/**/**/*a*a*a*a*a*a*a*a*a*b\n", 500)}), want: "error"},
	}
	return list
}

// lists answers with references.
func lists(write func(w io.Writer)) gittest.Answer {
	return gittest.Answer{List: func(w http.ResponseWriter) {
		io.WriteString(w, gittest.Line("# service=git-upload-pack\n")+"0000")
		write(w)
	}}
}
