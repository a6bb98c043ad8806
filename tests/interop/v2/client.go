package main

import (
	"context"
	"encoding/json"
	"io"
	"os"

	"github.com/micro/go-micro/v2/client"
	"github.com/micro/go-micro/v2/metadata"
)

// outcome is what a client prints.
type outcome struct {
	OK      int            `json:"ok"`
	Failed  int            `json:"failed"`
	Replies map[string]int `json:"replies"`
	Errors  map[string]int `json:"errors"`
}

// call makes all calls, one after another.
func call(with client.Client) {
	came := outcome{Replies: map[string]int{}, Errors: map[string]int{}}
	for i := 0; i < *calls; i++ {
		replies, err := callOnce(with)
		for _, reply := range replies {
			came.Replies[reply]++
		}
		if err == nil {
			came.OK++
		} else {
			came.Failed++
			came.Errors[err.Error()]++
		}
	}
	check(json.NewEncoder(os.Stdout).Encode(came))
}

func callOnce(with client.Client) ([]string, error) {
	ctx := context.Background()
	if *length != "" {
		ctx = metadata.NewContext(ctx, metadata.Metadata{"Content-Length": *length})
	}
	ask := &Request{Name: *who}
	if *method == "hello" {
		reply := &Response{}
		err := with.Call(ctx, with.NewRequest(*name, "Say.Hello", ask), reply)
		if err != nil {
			return nil, err
		}
		return []string{reply.Msg}, nil
	}
	endpoint, rounds := "Say.Stream", 1
	if *method == "chat" {
		endpoint, rounds = "Say.Chat", streamed
	}
	stream, err := with.Stream(ctx, with.NewRequest(*name, endpoint, &Request{}))
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	var replies []string
	for i := 0; i < rounds; i++ {
		if err := stream.Send(ask); err != nil {
			return replies, err
		}
		for *method == "stream" || len(replies) <= i {
			reply := &Response{}
			if err := stream.Recv(reply); err == io.EOF && *method == "stream" {
				return replies, nil
			} else if err != nil {
				return replies, err
			}
			replies = append(replies, reply.Msg)
		}
	}
	return replies, nil
}
