package main

import (
	"context"
	"crypto/sha1"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"

	api "github.com/micro/go-micro/v2/api/proto"
	"github.com/micro/go-micro/v2/client"
	"github.com/micro/go-micro/v2/errors"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/web"
)

// apiTier holds what the API tier calls its service with.
func apiTier(client client.Client) any {
	// the endpoint is named after the type
	type Say struct{ tier }
	return &Say{tier{client}}
}

type tier struct {
	client client.Client
}

// Hello takes an HTTP request as a message.
func (a tier) Hello(ctx context.Context, req *api.Request, rsp *api.Response) error {
	who, ok := req.Get["name"]
	if !ok || len(who.Values) == 0 {
		return errors.BadRequest(*name, "name is missing")
	}
	answer := &Response{}
	call := a.client.NewRequest(*target, "Say.Hello", &Request{Name: strings.Join(who.Values, " ")})
	if err := a.client.Call(ctx, call, answer); err != nil {
		return err
	}
	body, err := json.Marshal(map[string]string{"api": *label, "message": answer.Msg})
	if err != nil {
		return err
	}
	rsp.StatusCode = http.StatusOK
	rsp.Body = string(body)
	return nil
}

// echo sends back what comes by WebSocket (RFC 6455), frame by frame as it is.
func echo(w http.ResponseWriter, key string) {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	conn, buffered, err := w.(http.Hijacker).Hijack()
	check(err)
	defer conn.Close()
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "
	fmt.Fprintf(conn, "%s%s\r\n\r\n", head, base64.StdEncoding.EncodeToString(sum[:]))
	io.Copy(conn, buffered)
}

// serveWeb is a node that serves HTTP and tells what it was asked.
func serveWeb(etcd registry.Registry) {
	service := web.NewService(
		web.Name(*name),
		web.Address(*address),
		web.Registry(etcd),
		web.RegisterTTL(*ttl),
		web.RegisterInterval(*interval),
	)
	service.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if key := r.Header.Get("Sec-Websocket-Key"); key != "" {
			echo(w, key)
			return
		}
		w.Header().Set("X-Got-Key", r.Header.Get("Call-Service-Key"))
		fmt.Fprintf(w, "%s %s %s", r.Method, r.URL.RequestURI(), *label)
	})
	check(service.Run())
}
