package main

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// network are the commands that serve and ask.
func network() map[string]func([]string) error {
	return map[string]func([]string) error{
		"http":  func(args []string) error { return serveHTTP(arg(args, 0), (*http.Server).ListenAndServe) },
		"drain": func(args []string) error { return serveHTTP(arg(args, 0), drain) },
		"https": func(args []string) error { return serveHTTP(arg(args, 0), listenAndServeTLS) },
		"tcp":   func(args []string) error { return serveTCP(arg(args, 0)) },
		"udp":   func(args []string) error { return serveUDP(arg(args, 0)) },
		"get": func(args []string) error {
			c := http.Client{Timeout: 10 * time.Second}
			resp, err := c.Get(arg(args, 0))
			if err != nil {
				return err
			}
			defer resp.Body.Close()
			if _, err := io.Copy(os.Stdout, resp.Body); err != nil {
				return err
			}
			if resp.StatusCode != http.StatusOK {
				os.Exit(1)
			}
			return nil
		},
		"dial": func(args []string) error { return talk("tcp", args) },
		"ask":  func(args []string) error { return talk("udp", args) },
		"until-dial": func(args []string) error {
			for {
				c, err := net.DialTimeout("tcp", arg(args, 0), time.Second)
				if err == nil {
					return c.Close()
				}
				time.Sleep(20 * time.Millisecond)
			}
		},
		"lookup": func(args []string) error {
			addrs, err := net.LookupHost(arg(args, 0))
			if err != nil {
				return err
			}
			sorted(addrs)
			return nil
		},
		"srv": func(args []string) error {
			_, records, err := net.LookupSRV("", "", arg(args, 0))
			if err != nil {
				return err
			}
			var lines []string
			for _, r := range records {
				lines = append(lines, fmt.Sprintf("%s:%d", r.Target, r.Port))
			}
			sorted(lines)
			return nil
		},
	}
}

func talk(network string, args []string) error {
	c, err := net.DialTimeout(network, arg(args, 0), 5*time.Second)
	if err != nil {
		return err
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(5 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(c, arg(args, 1)); err != nil {
		return err
	}
	line, err := bufio.NewReader(c).ReadString('\n')
	fmt.Print(line)
	return err
}

func hostname() string {
	name, err := os.Hostname()
	if err != nil {
		return err.Error()
	}
	return name
}

func serveTCP(addr string) error {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	for {
		c, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				fmt.Fprintln(c, hostname(), s.Text())
			}
		}()
	}
}

func serveUDP(addr string) error {
	c, err := net.ListenPacket("udp", addr)
	if err != nil {
		return err
	}
	for b := make([]byte, 64<<10); ; {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if _, err := c.WriteTo([]byte(hostname()+" "+strings.TrimSpace(string(b[:n]))+"\n"), from); err != nil {
			return err
		}
	}
}

// server is the HTTP server; off holds the switches that are off.
type server struct {
	mu  sync.Mutex
	off map[string]bool
}

func serveHTTP(addr string, serve func(*http.Server) error) error {
	s := &server{off: map[string]bool{}}
	mux := http.NewServeMux()
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, hostname()) })
	mux.HandleFunc("/peer", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintln(w, r.RemoteAddr) })
	mux.HandleFunc("/headers", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "Host: %s\n", r.Host)
		if err := r.Header.Write(w); err != nil {
			fmt.Fprintln(os.Stderr, "program:", err)
		}
	})
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil || code < 200 || code > 599 {
			code = http.StatusBadRequest
		}
		w.WriteHeader(code)
	})
	mux.HandleFunc("/env/{name}", func(w http.ResponseWriter, r *http.Request) {
		v, ok := os.LookupEnv(r.PathValue("name"))
		if !ok {
			w.WriteHeader(http.StatusNotFound)
		}
		fmt.Fprintln(w, v)
	})
	mux.HandleFunc("/file/{path...}", func(w http.ResponseWriter, r *http.Request) {
		data, err := os.ReadFile("/" + r.PathValue("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		_, _ = w.Write(data)
	})
	mux.HandleFunc("/sleep/{duration}", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.PathValue("duration"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(d)
		fmt.Fprintln(w, hostname())
	})
	mux.HandleFunc("/exit/{code}", func(_ http.ResponseWriter, r *http.Request) {
		code, err := strconv.Atoi(r.PathValue("code"))
		if err != nil {
			code = 99
		}
		os.Exit(code)
	})
	mux.HandleFunc("/on/{name}", func(_ http.ResponseWriter, r *http.Request) { s.set(r.PathValue("name"), true) })
	mux.HandleFunc("/off/{name}", func(_ http.ResponseWriter, r *http.Request) { s.set(r.PathValue("name"), false) })
	mux.HandleFunc("/switch/{name}", func(w http.ResponseWriter, r *http.Request) {
		if !s.on(r.PathValue("name")) {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	mux.HandleFunc("/grpc.health.v1.Health/Check", s.health)
	hs := &http.Server{Addr: addr, Handler: mux, Protocols: new(http.Protocols)}
	hs.Protocols.SetHTTP1(true)
	hs.Protocols.SetUnencryptedHTTP2(true)
	return serve(hs)
}

// drain serves until SIGTERM, and then for a second more, in which it tells who keeps a connection to go elsewhere.
func drain(s *http.Server) error {
	var leaving atomic.Bool
	told, handler := notify(), s.Handler
	s.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if leaving.Load() {
			w.Header().Set("Connection", "close")
		}
		handler.ServeHTTP(w, r)
	})
	served := make(chan error, 1)
	go func() { served <- s.ListenAndServe() }()
	select {
	case err := <-served:
		return err
	case <-told:
	}
	leaving.Store(true)
	time.Sleep(time.Second)
	return s.Shutdown(context.Background())
}

// listenAndServeTLS serves with a certificate that nobody knows.
func listenAndServeTLS(s *http.Server) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return err
	}
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}}
	return s.ListenAndServeTLS("", "")
}

func (s *server) set(name string, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.off[name] = !on
}

func (s *server) on(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.off[name]
}

// health answers a gRPC health check by hand, which keeps the program small: a message is a zero
// byte, four bytes of length, and the message, whose only field is number 1.
func (s *server) health(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(io.LimitReader(r.Body, 4096))
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	if err != nil || len(body) < 5 {
		w.Header().Set("Grpc-Status", "3") // INVALID_ARGUMENT
		return
	}
	name := "grpc"
	if msg := body[5:]; len(msg) > 2 && msg[0] == 0x0a && len(msg) >= 2+int(msg[1]) {
		name = string(msg[2 : 2+int(msg[1])])
	}
	status := byte(1) // SERVING
	if !s.on(name) {
		status = 2
	}
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 0x08, status})
	w.Header().Set("Grpc-Status", "0")
}
