package main

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// views are the commands that show what a process finds itself in.
func views() map[string]func([]string) error {
	return map[string]func([]string) error{
		"env": func(args []string) error {
			if len(args) == 0 {
				sorted(os.Environ())
			}
			for _, name := range args {
				fmt.Println(os.Getenv(name))
			}
			return nil
		},
		"id": func([]string) error {
			groups, err := os.Getgroups()
			if err != nil {
				return err
			}
			slices.Sort(groups)
			fmt.Printf("uid=%d gid=%d groups=%s\n", os.Getuid(), os.Getgid(), strings.Trim(strings.ReplaceAll(fmt.Sprint(groups), " ", ","), "[]"))
			return nil
		},
		"status": func(args []string) error {
			data, err := os.ReadFile("/proc/self/status")
			if err != nil {
				return err
			}
			for line := range strings.Lines(string(data)) {
				name, value, _ := strings.Cut(line, ":")
				if len(args) == 0 || slices.Contains(args, name) {
					fmt.Printf("%s=%s\n", name, strings.Join(strings.Fields(value), " "))
				}
			}
			return nil
		},
		"pwd": func([]string) error {
			dir, err := os.Getwd()
			if err == nil {
				fmt.Println(dir)
			}
			return err
		},
		"hostname": func([]string) error {
			name, err := os.Hostname()
			if err == nil {
				fmt.Println(name)
			}
			return err
		},
		"ns": func(args []string) error {
			for _, name := range args {
				to, err := os.Readlink("/proc/self/ns/" + name)
				if err != nil {
					return err
				}
				fmt.Println(to)
			}
			return nil
		},
		"addr": func([]string) error {
			all, err := net.InterfaceAddrs()
			if err != nil {
				return err
			}
			var lines []string
			for _, a := range all {
				if ip, ok := a.(*net.IPNet); ok && !ip.IP.IsLoopback() && !ip.IP.IsLinkLocalUnicast() {
					lines = append(lines, ip.IP.String())
				}
			}
			sorted(lines)
			return nil
		},
		"ps": func([]string) error {
			return processes(func(pid, _ string, cmdline []string) { fmt.Println(pid, strings.Join(cmdline, " ")) })
		},
		"zombies": func([]string) error {
			n := 0
			err := processes(func(_, state string, _ []string) {
				if state == "Z" {
					n++
				}
			})
			fmt.Println(n)
			return err
		},
		"mounts": func(args []string) error {
			data, err := os.ReadFile("/proc/self/mountinfo")
			if err != nil {
				return err
			}
			var lines []string
			for line := range strings.Lines(string(data)) {
				before, after, _ := strings.Cut(line, " - ")
				f, g := strings.Fields(before), strings.Fields(after)
				if strings.HasPrefix(f[4], arg(args, 0)) {
					lines = append(lines, f[4]+" "+g[0]+" "+strings.Join(append([]string{f[5]}, f[6:]...), " "))
				}
			}
			sorted(lines)
			return nil
		},
		"df": func(args []string) error {
			var s syscall.Statfs_t
			if err := syscall.Statfs(arg(args, 0), &s); err != nil {
				return err
			}
			fmt.Println(int64(s.Blocks) * s.Bsize)
			return nil
		},
	}
}

// processes calls f for every process that /proc shows, the lowest PID first.
func processes(f func(pid, state string, cmdline []string)) error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return err
	}
	var pids []int
	for _, e := range entries {
		if pid, err := strconv.Atoi(e.Name()); err == nil {
			pids = append(pids, pid)
		}
	}
	slices.Sort(pids)
	for _, pid := range pids {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			continue // it ended meanwhile
		}
		cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil {
			continue
		}
		fields := strings.Fields(string(stat[strings.LastIndexByte(string(stat), ')')+1:]))
		f(strconv.Itoa(pid), arg(fields, 0), strings.Split(strings.TrimRight(string(cmdline), "\x00"), "\x00"))
	}
	return nil
}

// files are the commands that read and change files.
func files() map[string]func([]string) error {
	put := func(flags int) func([]string) error {
		return func(args []string) error {
			f, err := os.OpenFile(arg(args, 0), flags|os.O_CREATE|os.O_WRONLY, 0o644)
			if err != nil {
				return err
			}
			for _, line := range args[1:] {
				if _, err := fmt.Fprintln(f, line); err != nil {
					return errors.Join(err, f.Close())
				}
			}
			return f.Close()
		}
	}
	return map[string]func([]string) error{
		"write":  put(os.O_TRUNC),
		"append": put(os.O_APPEND),
		"cat": func(args []string) error {
			for _, name := range args {
				data, err := os.ReadFile(name)
				if err != nil {
					return err
				}
				if _, err := os.Stdout.Write(data); err != nil {
					return err
				}
			}
			return nil
		},
		"fill": func(args []string) error {
			size, err := strconv.Atoi(arg(args, 1))
			if err != nil {
				return err
			}
			return os.WriteFile(arg(args, 0), make([]byte, size), 0o644)
		},
		"mkdir": func(args []string) error { return os.MkdirAll(arg(args, 0), 0o755) },
		"rm":    func(args []string) error { return os.Remove(arg(args, 0)) },
		"ls": func(args []string) error {
			entries, err := os.ReadDir(arg(args, 0))
			if err != nil {
				return err
			}
			for _, e := range entries {
				info, err := e.Info()
				if err != nil {
					return err
				}
				describe(e.Name(), info)
			}
			return nil
		},
		"stat": func(args []string) error {
			for _, name := range args {
				info, err := os.Stat(name)
				if err != nil {
					return err
				}
				describe(name, info)
			}
			return nil
		},
		"readlink": func(args []string) error {
			for _, name := range args {
				to, err := filepath.EvalSymlinks(name)
				if err != nil {
					return err
				}
				fmt.Println(to)
			}
			return nil
		},
		"exists": func(args []string) error {
			if _, err := os.Stat(arg(args, 0)); errors.Is(err, fs.ErrNotExist) {
				os.Exit(1)
			} else if err != nil {
				return err
			}
			return nil
		},
	}
}

func describe(name string, info fs.FileInfo) {
	var owner string
	if s, ok := info.Sys().(*syscall.Stat_t); ok {
		owner = fmt.Sprintf("%d:%d", s.Uid, s.Gid)
	}
	fmt.Println(info.Mode(), owner, info.Size(), name)
}
