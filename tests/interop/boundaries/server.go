// Shows where net/http sees the messages in a byte stream: see peers.py for the protocol.
package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"time"
)

type message struct {
	Method string `json:"method"`
	Target string `json:"target"`
	Body   string `json:"body_sha256"`
}

type answer struct {
	Verdict  string    `json:"verdict"`
	Messages []message `json:"messages"`
}

// A connection whose peer has sent everything at once and then closed.
type stream struct {
	in     *bytes.Reader
	mu     sync.Mutex
	out    bytes.Buffer
	closed chan struct{}
	once   sync.Once
}

func (s *stream) Read(p []byte) (int, error) { return s.in.Read(p) }
func (s *stream) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.out.Write(p)
}
func (s *stream) Close() error                     { s.once.Do(func() { close(s.closed) }); return nil }
func (s *stream) LocalAddr() net.Addr              { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *stream) RemoteAddr() net.Addr             { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }
func (s *stream) SetDeadline(time.Time) error      { return nil }
func (s *stream) SetReadDeadline(time.Time) error  { return nil }
func (s *stream) SetWriteDeadline(time.Time) error { return nil }

// A listener that gives one connection.
type once struct{ conn chan net.Conn }

func (l *once) Accept() (net.Conn, error) {
	conn, open := <-l.conn
	if !open {
		return nil, io.EOF
	}
	return conn, nil
}
func (l *once) Close() error   { return nil }
func (l *once) Addr() net.Addr { return &net.TCPAddr{} }

func boundaries(bytesIn []byte) answer {
	result := answer{Verdict: "ok", Messages: []message{}}
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err == io.ErrUnexpectedEOF {
			result.Verdict = "incomplete"
			return
		}
		if err != nil {
			result.Verdict = "refused"
			return
		}
		sum := sha256.Sum256(body)
		result.Messages = append(result.Messages, message{r.Method, r.RequestURI, hex.EncodeToString(sum[:])})
	})
	conn := &stream{in: bytes.NewReader(bytesIn), closed: make(chan struct{})}
	listener := &once{make(chan net.Conn, 1)}
	listener.conn <- conn
	close(listener.conn)
	server := &http.Server{
		Handler:                      handler,
		ErrorLog:                     log.New(io.Discard, "", 0),
		DisableGeneralOptionsHandler: true,
	}
	_ = server.Serve(listener)
	<-conn.closed
	conn.mu.Lock()
	defer conn.mu.Unlock()
	if strings.Contains(conn.out.String(), "HTTP/1.1 4") || strings.Contains(conn.out.String(), "HTTP/1.1 5") {
		result.Verdict = "refused"
	}
	return result
}

func main() {
	in, out := bufio.NewReader(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var length uint32
		if binary.Read(in, binary.BigEndian, &length) != nil {
			return
		}
		bytesIn := make([]byte, length)
		if _, err := io.ReadFull(in, bytesIn); err != nil {
			log.Fatal(err)
		}
		if err := out.Encode(boundaries(bytesIn)); err != nil {
			log.Fatal(err)
		}
	}
}
