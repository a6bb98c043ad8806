package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/micro/go-micro/v2/errors"
	"github.com/micro/go-micro/v2/metadata"
	"github.com/micro/go-micro/v2/server"
)

// streamed is how many answers Say.Stream gives.
const streamed = 3

// Say is the greeter.
type Say struct{}

func hello(to string) string {
	text := "Hello " + to
	if *label != "" {
		text += " " + *label
	}
	return text
}

// Hello greets once. The name "teapot" is an error of its own kind, "slow" takes five seconds, "key" tells the call
// key that came.
func (*Say) Hello(ctx context.Context, req *Request, rsp *Response) error {
	switch req.Name {
	case "teapot":
		return errors.New(*name, "no coffee here", 418)
	case "key":
		key, _ := metadata.Get(ctx, "Call-Service-Key")
		rsp.Msg = "key " + key
		return nil
	case "slow":
		time.Sleep(5 * time.Second)
	}
	rsp.Msg = hello(req.Name)
	return nil
}

// Stream greets several times.
func (*Say) Stream(_ context.Context, stream server.Stream) error {
	req := &Request{}
	if err := stream.Recv(req); err != nil {
		return err
	}
	for i := 1; i <= streamed; i++ {
		if err := stream.Send(&Response{Msg: fmt.Sprintf("%s %d", hello(req.Name), i)}); err != nil {
			return err
		}
	}
	return nil
}

// Chat greets whoever is named, until the caller ends it.
func (*Say) Chat(_ context.Context, stream server.Stream) error {
	for {
		req := &Request{}
		if err := stream.Recv(req); err == io.EOF {
			return nil
		} else if err != nil {
			return err
		}
		if err := stream.Send(&Response{Msg: hello(req.Name)}); err != nil {
			return err
		}
	}
}
