package cli

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli/planview"
)

// logOptions are the flags of logs.
type logOptions struct {
	container             string
	all, follow, previous bool
	timestamps, prefix    bool
	tail                  int
	since                 time.Duration
	sinceTime             string
	prefixGiven           bool
}

func (a *app) logsCmd() *cobra.Command {
	var o logOptions
	c := &cobra.Command{
		Use:   "logs POD | KIND/NAME",
		Short: "Show the logs of a pod, or of all pods of a workload",
		Long: `Show the logs of a pod, of all pods of a deployment, replicaset or job, or of those that a label selector
picks. Lines of several pods or containers begin with where they come from. With --follow, pods and
containers of a workload or selector that come later are followed too.`,
		Example: `  fairlead logs web-5d9f-x2x4k -c web --tail 100
  fairlead logs deploy/web -f --since 10m
  fairlead logs -l app=web -n shop --timestamps
  fairlead logs web-5d9f-x2x4k --previous`,
		Args: func(c *cobra.Command, got []string) error {
			switch {
			case len(got) > 1:
				return fmt.Errorf("logs does not take %q; usage: %s", got[1], c.UseLine())
			case len(got) == 0 && a.selector == "":
				return errors.New("logs needs a pod, KIND/NAME or --selector")
			case len(got) == 1 && a.selector != "":
				return errors.New("--selector cannot be used together with a name")
			}
			return nil
		},
		ValidArgsFunction: a.completePod,
		RunE: func(c *cobra.Command, args []string) error {
			o.prefixGiven = c.Flags().Changed("prefix")
			since, err := o.from(a.Now())
			if err != nil {
				return err
			}
			if o.all && o.container != "" {
				return errors.New("--all-containers cannot be used together with --container")
			}
			if o.follow && o.previous {
				return errors.New("--previous cannot be used together with --follow: what has ended has no more lines")
			}
			return a.with(c.Context(), Look, func(b api.Backend) error {
				l := &logReader{app: a, b: b, o: o, since: since}
				err := l.read(c.Context(), args)
				if o.follow && contextDone(c.Context(), err) {
					return nil
				}
				return err
			})
		},
	}
	a.namespaced(c)
	f := c.Flags()
	f.StringVarP(&a.selector, "selector", "l", "", "label selector, for example app=web,tier!=test")
	f.StringVarP(&o.container, "container", "c", "", "container (default: the first that is not an init container)")
	f.BoolVar(&o.all, "all-containers", false, "all containers of the pods")
	f.BoolVarP(&o.follow, "follow", "f", false, "go on showing what is written")
	f.BoolVarP(&o.previous, "previous", "p", false, "the instance of the container before its last restart")
	f.IntVar(&o.tail, "tail", -1, "only the last so many lines (-1: all)")
	f.DurationVar(&o.since, "since", 0, "only lines of the last time, for example 10m")
	f.StringVar(&o.sinceTime, "since-time", "", "only lines from a time on (RFC 3339)")
	f.BoolVar(&o.timestamps, "timestamps", false, "begin every line with its time")
	f.BoolVar(&o.prefix, "prefix", false, "begin every line with its pod and container (default: when there are several)")
	completes(c, "container", a.completeContainer)
	return c
}

// from is the time of the first line that is wanted; zero for all.
func (o logOptions) from(now time.Time) (time.Time, error) {
	switch {
	case o.since != 0 && o.sinceTime != "":
		return time.Time{}, errors.New("give --since or --since-time, not both")
	case o.since < 0:
		return time.Time{}, fmt.Errorf("--since %s is in the future", -o.since)
	case o.since > 0:
		return now.Add(-o.since), nil
	case o.sinceTime != "":
		t, err := time.Parse(time.RFC3339, o.sinceTime)
		if err != nil {
			return t, fmt.Errorf("--since-time %q is no time in RFC 3339, for example 2026-03-01T12:00:00Z", o.sinceTime)
		}
		return t, nil
	}
	return time.Time{}, nil
}

// logReader copies logs to the output.
type logReader struct {
	app   *app
	b     api.Backend
	o     logOptions
	since time.Time

	out lineOutput
}

// stream is one container whose log is read.
type stream struct {
	pod       api.Pod
	container string
	id        string // of the instance
}

func (s stream) prefix() string {
	return "[" + planview.Clean(s.pod.PodKey.String()+"/"+s.container) + "] "
}

func (l *logReader) read(ctx context.Context, args []string) error {
	l.out.w = l.app.Stdout
	pods, err := l.pods(ctx, args)
	if err != nil {
		return err
	}
	streams, err := l.streams(pods)
	if err != nil {
		return err
	}
	single := len(args) == 1 && len(pods) == 1 && isPodArg(args[0])
	if !l.o.prefixGiven {
		l.o.prefix = len(streams) > 1 || l.o.follow && !single
	}
	if l.o.follow && !single {
		return l.followAll(ctx, args)
	}
	if l.o.follow && len(streams) > 1 {
		return l.together(ctx, streams)
	}
	for _, s := range streams {
		if err := l.copy(ctx, s, l.o.tail, l.since); err != nil {
			return err
		}
	}
	return nil
}

// isPodArg reports whether an argument names a pod and not a workload.
func isPodArg(arg string) bool {
	r, _, err := parseKindName(arg)
	return err != nil || r.kind == "Pod"
}

func (l *logReader) pods(ctx context.Context, args []string) ([]api.Pod, error) {
	if len(args) == 1 {
		return l.app.podsOf(ctx, l.b, args[0])
	}
	pods, err := l.b.Pods(ctx, api.Query{Namespace: l.app.inNamespace(), Selector: l.app.selector})
	if err == nil && len(pods) == 0 && !l.o.follow {
		err = notFoundError(fmt.Sprintf("no pod matches %q", l.app.selector))
	}
	return pods, err
}

func (l *logReader) streams(pods []api.Pod) ([]stream, error) {
	var out []stream
	for _, p := range pods {
		wanted := []string{}
		if l.o.all {
			for _, c := range p.Containers {
				wanted = append(wanted, c.Name)
			}
		} else {
			name, err := containerOf(p, l.o.container)
			if err != nil {
				return nil, err
			}
			wanted = append(wanted, name)
		}
		for _, name := range wanted {
			for _, c := range p.Containers {
				if c.Name == name {
					out = append(out, stream{p, name, c.ID})
				}
			}
		}
	}
	return out, nil
}

func (l *logReader) copy(ctx context.Context, s stream, tail int, since time.Time) error {
	w := l.out.stream("")
	if l.o.prefix {
		w = l.out.stream(s.prefix())
	}
	defer w.flush()
	// Both go to stdout, as with kubectl: `fairlead logs > FILE` holds everything, in order.
	return l.b.Logs(ctx, api.LogRequest{
		Pod: s.pod.PodKey, Container: s.container, Previous: l.o.previous, Follow: l.o.follow, Tail: tail,
		Since: since, Timestamps: l.o.timestamps,
	}, w, w)
}

// together follows some containers until all have ended.
func (l *logReader) together(ctx context.Context, streams []stream) error {
	var all sync.WaitGroup
	errs := make([]error, len(streams))
	for i, s := range streams {
		all.Go(func() { errs[i] = l.copy(ctx, s, l.o.tail, l.since) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// followAll follows what is there and what comes, until ctx ends. A container that was restarted is
// followed anew, from its beginning.
func (l *logReader) followAll(ctx context.Context, args []string) error {
	var all sync.WaitGroup
	defer all.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := map[string]bool{}
	tail, since := l.o.tail, l.since
	return follow(ctx, l.b, func(ctx context.Context) error {
		pods, err := l.pods(ctx, args)
		if errors.Is(err, api.ErrUnavailable) {
			return err
		}
		if err != nil {
			return nil // between two pods there may be none
		}
		for _, p := range pods {
			streams, err := l.streams([]api.Pod{p})
			if err != nil {
				continue // this pod has no such container, or none yet
			}
			for _, s := range streams {
				if s.id == "" || started[s.id] {
					continue
				}
				started[s.id] = true
				tail, since := tail, since
				all.Go(func() {
					if err := l.copy(ctx, s, tail, since); err != nil && ctx.Err() == nil {
						l.out.note(fmt.Sprintf("%s%s", s.prefix(), planview.Clean(err.Error())), l.app.Stderr)
					}
				})
			}
		}
		// What comes later is shown from its beginning.
		tail, since = -1, time.Time{}
		return nil
	})
}

// lineOutput writes whole lines of several streams to one writer.
type lineOutput struct {
	mu sync.Mutex
	w  io.Writer
}

// stream returns a writer for one stream. Without a prefix it writes through.
func (o *lineOutput) stream(prefix string) *lineWriter { return &lineWriter{out: o, prefix: prefix} }

// note writes a line about the logs, not of them.
func (o *lineOutput) note(s string, w io.Writer) {
	o.mu.Lock()
	defer o.mu.Unlock()
	fmt.Fprintln(w, s)
}

// lineWriter holds back the last, unfinished line.
type lineWriter struct {
	out    *lineOutput
	prefix string
	mu     sync.Mutex
	rest   []byte
}

// maxHeld is how long a line may become before it is written in pieces.
const maxHeld = 64 << 10

// Write implements io.Writer.
func (w *lineWriter) Write(p []byte) (int, error) {
	if w.prefix == "" {
		w.out.mu.Lock()
		defer w.out.mu.Unlock()
		return w.out.w.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rest = append(w.rest, p...)
	var buf bytes.Buffer
	for {
		line, after, ok := bytes.Cut(w.rest, []byte("\n"))
		if !ok && len(w.rest) < maxHeld {
			break
		}
		buf.WriteString(w.prefix)
		buf.Write(line)
		buf.WriteByte('\n')
		w.rest = after
	}
	w.rest = append([]byte(nil), w.rest...)
	return len(p), w.write(buf.Bytes())
}

func (w *lineWriter) write(p []byte) error {
	if len(p) == 0 {
		return nil
	}
	w.out.mu.Lock()
	defer w.out.mu.Unlock()
	_, err := w.out.w.Write(p)
	return err
}

// flush writes a last line that has no end.
func (w *lineWriter) flush() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.rest) > 0 {
		_ = w.write([]byte(w.prefix + string(w.rest) + "\n")) // the log's end; an error was returned before
		w.rest = nil
	}
}
