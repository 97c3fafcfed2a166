package dane_test

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/mxpipe/mxpipe/transport/dane"
)

// TestAgreesWithOpenSSL puts every case to OpenSSL's DANE as well, over a real
// handshake. Where OpenSSL decides otherwise the case must say why, and where
// it says so OpenSSL must really differ.
func TestAgreesWithOpenSSL(t *testing.T) {
	program, err := exec.LookPath("openssl")
	if err != nil {
		t.Fatalf("openssl is needed for this test; on Debian: apt-get install openssl: %v", err)
	}
	compared := 0
	for batch := range atOnce(t, serverCases(t), 4, func(ctx context.Context, c serverCase) (bool, string, error) {
		return askOpenSSL(ctx, program, c)
	}) {
		compared++
		c := batch.c
		if batch.err != nil {
			t.Errorf("%s: %v", c.name, batch.err)
			continue
		}
		agrees := batch.authenticated == (c.want == nil)
		if agrees && c.openssl != "" {
			t.Errorf("%s: OpenSSL agrees, though the case says: %s", c.name, c.openssl)
		}
		if !agrees && c.openssl == "" {
			t.Errorf("%s (%s): we want error %v, OpenSSL says\n%s", c.name, c.rfc, c.want, batch.output)
		}
	}
	if compared < 40 {
		t.Errorf("only %d cases compared", compared)
	}
}

// answer is what OpenSSL said to a case.
type answer struct {
	c             serverCase
	authenticated bool
	output        string
	err           error
}

// atOnce asks about all cases, so many at a time, and ends when all answers
// are in. Cases without a reference name or record cannot be put to s_client.
func atOnce(t *testing.T, cases []serverCase, workers int, ask func(context.Context, serverCase) (bool, string, error)) <-chan answer {
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	t.Cleanup(cancel)
	todo, answers := make(chan serverCase), make(chan answer, len(cases))
	var running sync.WaitGroup
	for range workers {
		running.Go(func() {
			for c := range todo {
				ok, output, err := ask(ctx, c)
				answers <- answer{c, ok, output, err}
			}
		})
	}
	for _, c := range cases {
		if len(c.names) > 0 && len(c.records) > 0 {
			todo <- c
		}
	}
	close(todo)
	running.Wait()
	close(answers)
	return answers
}

// askOpenSSL serves the chain on loopback and has s_client verify it, once for
// each reference identifier, as s_client knows only one.
func askOpenSSL(ctx context.Context, program string, c serverCase) (authenticated bool, output string, err error) {
	address, stop, err := serve(ctx, c)
	if err != nil {
		return false, "", err
	}
	defer stop()
	for _, name := range c.names {
		args := []string{"s_client", "-connect", address, "-brief", "-verify_return_error",
			// usages 0 and 1 must find nothing to trust
			"-no-CAfile", "-no-CApath", "-no-CAstore",
			// DANE is to decide, not the size of a key
			"-cipher", "DEFAULT:@SECLEVEL=0",
			"-dane_ee_no_namechecks", "-dane_tlsa_domain", name}
		for _, r := range c.records {
			args = append(args, "-dane_tlsa_rrdata", fmt.Sprintf("%d %d %d %s", r.Usage, r.Selector, r.Matching, hex.EncodeToString(r.Data)))
		}
		// standard input is empty
		out, err := exec.CommandContext(ctx, program, args...).CombinedOutput()
		output += string(out)
		if ctx.Err() != nil {
			return false, output, ctx.Err()
		}
		text := string(out)
		matched := strings.Contains(text, "Verification: OK") && strings.Contains(text, "DANE TLSA")
		if matched != (err == nil) {
			return false, output, fmt.Errorf("exit %v does not fit the output: %s", err, text)
		}
		if matched {
			return true, output, nil
		}
	}
	return false, output, nil
}

// serve presents the case's chain to each client, until stop, which waits
// for all that it started.
func serve(ctx context.Context, c serverCase) (address string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	presented := tls.Certificate{PrivateKey: c.signer()}
	for _, cert := range c.chain() {
		presented.Certificate = append(presented.Certificate, cert.Raw)
	}
	config := &tls.Config{Certificates: []tls.Certificate{presented}}
	ctx, cancel := context.WithCancel(ctx)
	var running sync.WaitGroup
	running.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			running.Go(func() {
				defer conn.Close()
				defer context.AfterFunc(ctx, func() { conn.Close() })()
				// The client says how the handshake went; it may well refuse.
				server := tls.Server(conn, config)
				io.Copy(io.Discard, server)
			})
		}
	})
	return listener.Addr().String(), func() {
		cancel()
		listener.Close()
		running.Wait()
	}, nil
}

// TestOpenSSLKnowsDANE guards the comparison itself: a match and a mismatch
// must come out differently, or every case would agree by accident.
func TestOpenSSLKnowsDANE(t *testing.T) {
	a := newCA(t)
	self := a.leaf(party{}, a.ec())
	right := rec(dane.DANEEE, dane.SPKI, dane.SHA256, self)
	for _, c := range []struct {
		record dane.Record
		want   bool
	}{{right, true}, {off(right), false}} {
		got, output, err := askOpenSSL(t.Context(), "openssl", serverCase{server: servers{self}, records: records{c.record}, names: []string{host}})
		if err != nil || got != c.want {
			t.Errorf("%v: authenticated %v (error %v), want %v\n%s", c.record, got, err, c.want, output)
		}
	}
}
