//go:build linux

package main

import (
	"bufio"
	"crypto/tls"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
)

// question is one connection whose names need not agree.
type question struct {
	connect, dial, gate, sni, host, path, then, method, upgrade string
	plain                                                       bool
	fields                                                      []string
}

// each asks every question of standard input, a JSON array of arguments a line.
func each() error {
	for dec := json.NewDecoder(os.Stdin); ; {
		var args []string
		if err := dec.Decode(&args); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if err := ask(args); err != nil {
			return err
		}
	}
}

// ask makes a connection, sends one or two requests on it and prints what came,
// under the name that follows the flags.
func ask(args []string) error {
	var q question
	f := flag.NewFlagSet("ask", flag.ContinueOnError)
	f.StringVar(&q.connect, "connect", "", "HOST:PORT to ask the proxy for")
	f.StringVar(&q.dial, "dial", "", "name or address, with a port, to connect to past the proxy")
	f.StringVar(&q.gate, "gate", "", "what to tell the gate's socket, past init: HOST PORT")
	f.StringVar(&q.sni, "sni", "", "server name in the TLS hello")
	f.StringVar(&q.host, "header", "", "Host header")
	f.StringVar(&q.path, "path", "/", "request target")
	f.StringVar(&q.then, "then", "", "Host header of a second request on the same connection")
	f.StringVar(&q.method, "method", "GET", "request method")
	f.StringVar(&q.upgrade, "upgrade", "", "protocol to upgrade to")
	f.Func("field", "header field of every request, as NAME: VALUE with variables; may be given again", func(s string) error {
		q.fields = append(q.fields, os.ExpandEnv(s)+"\r\n")
		return nil
	})
	f.BoolVar(&q.plain, "plain", false, "without TLS")
	if err := f.Parse(args); err != nil {
		return err
	}
	try := "first"
	if f.NArg() > 0 {
		try = f.Arg(0)
	}
	c, err := q.open()
	if err != nil {
		say(try, false, err.Error())
		return nil
	}
	defer func() { _ = c.Close() }()
	r := bufio.NewReader(c)
	q.send(c, r, try, q.host)
	if q.then != "" {
		q.send(c, r, "second", q.then)
	}
	return nil
}

func (q *question) open() (net.Conn, error) {
	network, addr := "tcp", q.dial
	switch {
	case q.gate != "":
		network, addr = "unix", "/ambit/gate/gate.sock"
	case addr == "":
		addr = "127.0.0.1:3128"
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return nil, err
	}
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	if q.gate != "" {
		if _, err := fmt.Fprintf(c, "AMBIT/1 tcp %s\n", q.gate); err != nil {
			return nil, err
		}
	}
	if q.connect != "" {
		if _, err := fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", q.connect, q.connect); err != nil {
			return nil, err
		}
		res, err := http.ReadResponse(bufio.NewReaderSize(c, 16), &http.Request{Method: http.MethodConnect})
		if err != nil {
			return nil, err
		}
		if res.StatusCode != http.StatusOK {
			b, _ := io.ReadAll(io.LimitReader(res.Body, 4096))
			return nil, fmt.Errorf("%d %s", res.StatusCode, b)
		}
	}
	if q.plain {
		return c, nil
	}
	// The attacker does not care whom it talks to.
	t := tls.Client(c, &tls.Config{ServerName: q.sni, InsecureSkipVerify: true, MinVersion: tls.VersionTLS12})
	return t, t.Handshake()
}

func (q *question) send(c net.Conn, r *bufio.Reader, name, host string) {
	more := strings.Join(q.fields, "")
	if q.upgrade != "" {
		more += "Connection: Upgrade\r\nUpgrade: " + q.upgrade + "\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
	}
	if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: %s\r\n%s\r\n", q.method, q.path, host, more); err != nil {
		say(name, false, err.Error())
		return
	}
	res, err := http.ReadResponse(r, &http.Request{Method: q.method})
	if err != nil {
		say(name, false, err.Error())
		return
	}
	var b []byte
	if res.StatusCode != http.StatusSwitchingProtocols {
		b, _ = io.ReadAll(io.LimitReader(res.Body, 64<<10))
	}
	say(name, res.StatusCode < 400, strconv.Itoa(res.StatusCode)+" "+string(b))
}

// raw carries standard input to an address ("unix:PATH" for a Unix socket) and
// what comes back to standard output.
func raw(args []string) error {
	if len(args) != 1 {
		return errors.New("raw needs an address")
	}
	network, addr := "tcp", args[0]
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.DialTimeout(network, addr, patience)
	if err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(3 * patience))
	if _, err := io.Copy(c, os.Stdin); err != nil {
		return err
	}
	if w, ok := c.(interface{ CloseWrite() error }); ok {
		_ = w.CloseWrite()
	}
	_, err = io.Copy(os.Stdout, c)
	return err
}

// files says of each path whether anything can be read there.
func files(paths []string) {
	for _, p := range paths {
		st, err := os.Stat(p)
		if err != nil {
			report(p, err)
			continue
		}
		if st.IsDir() {
			list, err := os.ReadDir(p)
			names := make([]string, 0, len(list))
			for _, e := range list {
				names = append(names, e.Name())
			}
			say(p, err == nil && len(list) > 0, strings.Join(names, " "))
			continue
		}
		f, err := os.Open(p)
		if err != nil {
			report(p, err)
			continue
		}
		b := make([]byte, 4096)
		n, err := f.Read(b)
		_ = f.Close()
		say(p, n > 0, fmt.Sprintf("%q %v", b[:n], err))
	}
}

// get makes N requests through the proxy, each with a number of its own in the
// query, and says of each whether it was answered; with N of 0 it goes on for
// ever. It sends what is in a variable, if one is named, as Authorization: Bearer.
func get(args []string) error {
	if len(args) != 2 && len(args) != 3 {
		return errors.New("get needs a number and a URL, and may have the name of a variable")
	}
	token := ""
	if len(args) == 3 {
		token = os.Getenv(args[2])
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	client := &http.Client{Timeout: 3 * patience, Transport: &http.Transport{
		Proxy:           http.ProxyURL(&url.URL{Scheme: "http", Host: "127.0.0.1:3128"}),
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true},
	}}
	run := strconv.FormatInt(time.Now().UnixNano(), 36)
	for i := 0; n == 0 || i < n; i++ {
		id := run + "-" + strconv.Itoa(i)
		report(id, getOne(client, args[1]+"?n="+id, token))
		time.Sleep(5 * time.Millisecond)
	}
	return nil
}

func getOne(client *http.Client, to, token string) error {
	r, err := http.NewRequest(http.MethodPost, to, nil) // unlike a GET it is never sent again by the client
	if err != nil {
		return err
	}
	if token != "" {
		r.Header.Set("Authorization", "Bearer "+token)
	}
	res, err := client.Do(r)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, res.Body)
	_ = res.Body.Close()
	if err == nil && res.StatusCode != http.StatusOK {
		err = errors.New(res.Status)
	}
	return err
}
