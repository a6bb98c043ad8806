// Package quic stands in for quic-go v0.14.1, which panics at start-up with newer versions of Go. It has the names that
// go-micro's QUIC transport is compiled against, and refuses to be used.
package quic

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"time"
)

var errAbsent = errors.New("quic is left out of this build: choose another transport")

// Config is never read.
type Config struct {
	IdleTimeout time.Duration
	KeepAlive   bool
}

// Stream is never made.
type Stream interface {
	io.ReadWriteCloser
}

// Session is never made.
type Session interface {
	AcceptStream(context.Context) (Stream, error)
	OpenStreamSync(context.Context) (Stream, error)
	LocalAddr() net.Addr
	RemoteAddr() net.Addr
}

// Listener is never made.
type Listener interface {
	Accept(context.Context) (Session, error)
	Addr() net.Addr
	Close() error
}

// DialAddr refuses.
func DialAddr(string, *tls.Config, *Config) (Session, error) {
	return nil, errAbsent
}

// ListenAddr refuses.
func ListenAddr(string, *tls.Config, *Config) (Listener, error) {
	return nil, errAbsent
}
