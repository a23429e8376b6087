package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"

	"github.com/rs/zerolog"

	"github.com/fairlead-dev/fairlead/daemon"
	"github.com/fairlead-dev/fairlead/daemon/api"
	"github.com/fairlead-dev/fairlead/daemon/cli"
	"github.com/fairlead-dev/fairlead/daemon/settings"
	"github.com/fairlead-dev/fairlead/plan"
	"github.com/fairlead-dev/fairlead/render"
	"github.com/fairlead-dev/fairlead/render/worker"
)

// version is set by the linker in releases.
var version = "development"

// environment connects the commands with the daemon.
func environment() cli.Env {
	return cli.Env{
		Args: os.Args[1:], Stdin: os.Stdin, Stdout: os.Stdout, Stderr: os.Stderr,
		Version: version, Revision: revision(),
		New: func(_ context.Context, s cli.Settings, log zerolog.Logger) (cli.System, error) {
			system, err := open(s, daemon.Run, log)
			if err != nil {
				return nil, err
			}
			return daemon.Service{System: system}, nil
		},
		Local: local,
		Validate: func(ctx context.Context, s cli.Settings) (api.Validation, error) {
			system, err := open(s, daemon.Validate, zerolog.Nop())
			if err != nil {
				return api.Validation{}, err
			}
			stop := system.Start(ctx)
			v, err := system.Validate(ctx)
			return v, errors.Join(err, stop())
		},
		RenderWorker: func(ctx context.Context, stdin io.Reader, stdout io.Writer) error {
			return worker.Serve(ctx, stdin, stdout, &render.Engine{Check: plan.Unsupported})
		},
	}
}

// revision is the commit that the program was built from, where that is known.
func revision() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return s.Value
		}
	}
	return ""
}

// open makes a System from a settings file and what the command line says over it.
func open(c cli.Settings, mode daemon.Mode, log zerolog.Logger) (*daemon.System, error) {
	s, err := resolve(c)
	if err != nil {
		return nil, err
	}
	return daemon.New(daemon.Options{Settings: s, Mode: mode, Version: version, Log: log})
}

// resolve returns the settings that are in force.
func resolve(c cli.Settings) (settings.Settings, error) {
	var s settings.Settings
	if c.ConfigFile != "" {
		var err error
		if s, err = settings.Read(c.ConfigFile); err != nil {
			return s, err
		}
	}
	s.Installation = cmp.Or(os.Getenv("FAIRLEAD_INSTALLATION"), s.Installation)
	s.StateDir = cmp.Or(c.StateDir, s.StateDir)
	s.Socket = cmp.Or(c.Socket, s.Socket)
	s.Engine = cmp.Or(c.Engine, s.Engine)
	s.Listen = cmp.Or(c.Listen, s.Listen)
	s.AgeKeyFile = cmp.Or(s.AgeKeyFile, os.Getenv("SOPS_AGE_KEY_FILE"))
	if c.Location != "" {
		// What the command line names is meant alone.
		s.ConfigDir = ""
		s.Applications = []settings.Application{{
			Name: c.Name, Location: c.Location, Path: c.Path, Ref: c.Ref, Interval: settings.Duration(c.Interval),
			Namespace: c.Namespace, Prune: &c.Prune, AllowUnsupported: c.AllowUnsupported,
			Auth: settings.Auth{
				Username: c.Auth.Username, PasswordFile: c.Auth.PasswordFile, SSHKeyFile: c.Auth.SSHKeyFile,
				KnownHostsFile: c.Auth.KnownHostsFile, CAFile: c.Auth.CAFile, CertFile: c.Auth.CertFile, KeyFile: c.Auth.KeyFile,
			},
		}}
		if len(c.VerifyKeys) > 0 || c.VerifyMode != "" {
			s.Applications[0].Verify = &settings.Verify{Mode: c.VerifyMode, KeyFiles: c.VerifyKeys}
		}
	}
	s = s.WithDefaults()
	if found := s.Check(); len(found) > 0 {
		return s, fmt.Errorf("the settings cannot be used:\n  %s", strings.Join(found, "\n  "))
	}
	return s, nil
}

// local makes a backend that works on its own.
func local(ctx context.Context, c cli.Settings, log zerolog.Logger) (api.Backend, func() error, error) {
	mode := daemon.Read
	switch c.Access {
	case cli.Look:
	case cli.Exec:
		mode = daemon.Exec
	case cli.Change:
		mode = daemon.Once
	}
	system, err := open(c, mode, log)
	if err != nil {
		return nil, nil, err
	}
	return system, system.Start(context.WithoutCancel(ctx)), nil // it ends when it is released
}
