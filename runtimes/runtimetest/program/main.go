// Command program is what containers run in tests: one static program with many subcommands, the
// only file of an image made from scratch.
//
// Its arguments are commands that run one after the other, separated by "--"; it ends with exit code
// 0 after the last. So "print one -- warn two -- exit 3" writes a line to each stream and ends with 3.
// A command that goes wrong writes why to stderr and ends the program with exit code 99. SIGTERM ends the
// program with exit code 143 at any time, unless a command says otherwise.
//
//	print LINE...         write lines to stdout
//	warn LINE...          write lines to stderr
//	flood COUNT           write COUNT numbered lines of 100 bytes to stdout
//	tick DURATION         write a numbered line to stdout at once and after every DURATION, for ever
//	copy                  copy stdin to stdout until it ends
//	exit CODE             end now
//	abort                 end by SIGABRT
//	sleep DURATION        wait
//	wait [CODE]           wait until SIGTERM or SIGINT, then end with CODE, or 0
//	linger DURATION       wait until SIGTERM, then DURATION longer, then end with 0
//	ignore-term           ignore SIGTERM from now on
//	on-term FILE TEXT     from now on, write TEXT to FILE when SIGTERM comes, and end with 0
//	forever               wait for ever
//	env [NAME...]         print the environment, sorted, or the values of some variables
//	args WORD...          print every word on a line of its own, quoted
//	id                    print uid=, gid= and groups= of the process
//	status [FIELD...]     print lines of /proc/self/status, for example CapEff, NoNewPrivs, Seccomp
//	pwd, hostname         print the working directory or the host name
//	cat FILE...           print files
//	write FILE TEXT...    write a file; append FILE TEXT... adds to it
//	fill FILE BYTES       write a file of so many zeros
//	mkdir DIR, rm PATH    make or remove
//	ls DIR                print mode, uid:gid, size and name of what is in a directory, sorted by name
//	stat PATH...          the same of some paths, links followed
//	readlink PATH...      print where links lead
//	exists PATH           end with exit code 1 unless the path exists
//	mounts [PREFIX]       print target, type and options of the mounts whose target begins with PREFIX
//	df PATH               print the size in bytes of the file system at PATH
//	ps                    print PID and arguments of the processes that are seen
//	zombies               print how many processes are zombies
//	orphan DURATION       start a process that leaves an orphan behind, which lives for DURATION
//	kill PID SIGNAL       send a signal, by number
//	ns NAME...            print the identities of namespaces: net, ipc, pid, uts, mnt, user
//	addr                  print the addresses of the network interfaces but the loopback
//	lookup NAME           print the addresses of a host name, sorted; srv NAME the targets of an SRV record
//	alloc BYTES           take memory and hold it
//	burn DURATION         keep one processor busy
//	http ADDR             serve HTTP at ADDR, for example :8080, for ever; see below
//	drain ADDR            the same, and on SIGTERM every answer says for a second that the connection ends, then it ends
//	https ADDR            the same with TLS and a certificate of its own
//	tcp ADDR              answer every line that comes over TCP with "HOSTNAME LINE", for ever
//	udp ADDR              the same for every UDP packet
//	get URL               print the body of a page; exit code 1 unless its status is 200
//	dial ADDR TEXT        send a line over TCP and print the answer; ask ADDR TEXT does it over UDP
//	until-dial ADDR       try until ADDR accepts a TCP connection
//	background WORD...    run the one following command in the background, for example background http :80
//
// The HTTP server answers "/" with its host name; /status/CODE with that status; /headers and /peer with
// what it saw; /env/NAME and /file/PATH with a value or a file (404 when missing); /sleep/DURATION after a
// while; /exit/CODE by ending; /off/NAME and /on/NAME change a switch that /switch/NAME answers with 503 or
// 200 (all are on at first); a gRPC health check with the switch that is named as the service, "" meaning
// "grpc".
package main

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

func main() {
	mortal()
	for i, cmd := range split(os.Args[1:]) {
		if err := run(cmd); err != nil {
			fmt.Fprintf(os.Stderr, "program: command %d, %q: %v\n", i+1, cmd, err)
			os.Exit(99)
		}
	}
}

// split cuts arguments into commands.
func split(args []string) [][]string {
	var cmds [][]string
	var cmd []string
	for _, a := range args {
		if a == "--" {
			cmds, cmd = append(cmds, cmd), nil
			continue
		}
		cmd = append(cmd, a)
	}
	if len(cmd) > 0 {
		cmds = append(cmds, cmd)
	}
	return cmds
}

func run(cmd []string) error {
	if len(cmd) == 0 {
		return nil
	}
	name, args := cmd[0], cmd[1:]
	if name == "background" {
		go func() {
			if err := run(args); err != nil {
				fmt.Fprintf(os.Stderr, "program: in the background: %q: %v\n", args, err)
				os.Exit(99)
			}
		}()
		return nil
	}
	for _, table := range []map[string]func([]string) error{streams(), lives(), views(), files(), network()} {
		if f := table[name]; f != nil {
			return f(args)
		}
	}
	return fmt.Errorf("unknown command %q", name)
}

// arg returns an argument, or "" when it is not there.
func arg(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

func streams() map[string]func([]string) error {
	lines := func(w io.Writer, args []string) error {
		for _, a := range args {
			if _, err := fmt.Fprintln(w, a); err != nil {
				return err
			}
		}
		return nil
	}
	return map[string]func([]string) error{
		"print": func(args []string) error { return lines(os.Stdout, args) },
		"warn":  func(args []string) error { return lines(os.Stderr, args) },
		"args": func(args []string) error {
			for _, a := range args {
				fmt.Printf("%q\n", a)
			}
			return nil
		},
		"flood": func(args []string) error {
			n, err := strconv.Atoi(arg(args, 0))
			if err != nil {
				return err
			}
			w := bufio.NewWriter(os.Stdout)
			for i := range n {
				fmt.Fprintf(w, "%099d\n", i)
			}
			return w.Flush()
		},
		"tick": func(args []string) error {
			d, err := time.ParseDuration(arg(args, 0))
			if err != nil {
				return err
			}
			for i := 0; ; i++ {
				fmt.Println(i)
				time.Sleep(d)
			}
		},
		"copy": func([]string) error {
			_, err := io.Copy(os.Stdout, os.Stdin)
			return err
		},
	}
}

func lives() map[string]func([]string) error {
	return map[string]func([]string) error{
		"exit": func(args []string) error {
			code, err := strconv.Atoi(arg(args, 0))
			if err != nil {
				return err
			}
			os.Exit(code)
			return nil
		},
		"abort": func([]string) error {
			signal.Reset(syscall.SIGABRT)
			return syscall.Kill(os.Getpid(), syscall.SIGABRT)
		},
		"sleep": func(args []string) error {
			d, err := time.ParseDuration(arg(args, 0))
			if err != nil {
				return err
			}
			time.Sleep(d)
			return nil
		},
		"forever": func([]string) error { select {} },
		"wait": func(args []string) error {
			code := 0
			if len(args) > 0 {
				var err error
				if code, err = strconv.Atoi(args[0]); err != nil {
					return err
				}
			}
			<-notify()
			os.Exit(code)
			return nil
		},
		"linger": func(args []string) error {
			d, err := time.ParseDuration(arg(args, 0))
			if err != nil {
				return err
			}
			<-notify()
			time.Sleep(d)
			os.Exit(0)
			return nil
		},
		"ignore-term": func([]string) error { signal.Ignore(syscall.SIGTERM); return nil },
		"on-term": func(args []string) error {
			if len(args) != 2 {
				return fmt.Errorf("give a file and a text")
			}
			c := notify()
			go func() {
				<-c
				if err := os.WriteFile(args[0], []byte(args[1]+"\n"), 0o644); err != nil {
					fmt.Fprintln(os.Stderr, "program:", err)
					os.Exit(99)
				}
				os.Exit(0)
			}()
			return nil
		},
		"kill": func(args []string) error {
			pid, err := strconv.Atoi(arg(args, 0))
			if err != nil {
				return err
			}
			sig, err := strconv.Atoi(arg(args, 1))
			if err != nil {
				return err
			}
			return syscall.Kill(pid, syscall.Signal(sig))
		},
		"alloc": func(args []string) error {
			n, err := strconv.Atoi(arg(args, 0))
			if err != nil {
				return err
			}
			held = slices.Grow(held, n)[:n]
			for i := 0; i < n; i += 4096 {
				held[i] = 1
			}
			return nil
		},
		"burn": func(args []string) error {
			d, err := time.ParseDuration(arg(args, 0))
			if err != nil {
				return err
			}
			for end := time.Now().Add(d); time.Now().Before(end); {
			}
			return nil
		},
		"orphan": orphan,
	}
}

// held is memory that alloc took; it lives as long as the program.
var held []byte

// notify is told of SIGTERM and SIGINT; nobody else is any more.
func notify() <-chan os.Signal {
	c := make(chan os.Signal, 1)
	signal.Reset(syscall.SIGTERM, syscall.SIGINT)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT)
	return c
}

// mortal makes SIGTERM end the program even as PID 1, where the kernel would ignore it.
func mortal() {
	c := make(chan os.Signal, 1)
	signal.Notify(c, syscall.SIGTERM)
	go func() {
		<-c
		os.Exit(128 + int(syscall.SIGTERM))
	}()
}

// orphan starts this program in the middle, which starts it again at the end and exits.
func orphan(args []string) error {
	middle := arg(args, 1) == "middle"
	next := []string{"/proc/self/exe", "orphan", arg(args, 0), "middle"}
	if middle {
		next = []string{"/proc/self/exe", "sleep", arg(args, 0)}
	}
	p, err := os.StartProcess(next[0], next, &os.ProcAttr{Env: os.Environ(), Files: []*os.File{nil, os.Stdout, os.Stderr}})
	if err != nil {
		return err
	}
	if middle {
		os.Exit(0)
	}
	_, err = p.Wait()
	return err
}

// sorted prints lines in order.
func sorted(lines []string) {
	slices.Sort(lines)
	if len(lines) > 0 {
		fmt.Println(strings.Join(lines, "\n"))
	}
}
