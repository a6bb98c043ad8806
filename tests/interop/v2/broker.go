package main

import (
	"context"
	"fmt"
	"time"

	"github.com/micro/go-micro/v2"
	api "github.com/micro/go-micro/v2/api/proto"
	"github.com/micro/go-micro/v2/client"
	"github.com/micro/go-micro/v2/metadata"
	"github.com/micro/go-micro/v2/server"
)

// hear handles a topic's messages: it prints them.
func hear(service micro.Service) error {
	var options []server.SubscriberOption
	if *queue != "" {
		options = append(options, server.SubscriberQueue(*queue))
	}
	if *events {
		return micro.RegisterSubscriber(*topic, service.Server(), func(_ context.Context, event *api.Event) error {
			fmt.Printf("heard event %s %s %s\n", event.Name, event.Data, event.Header["X-User"].GetValues())
			return nil
		}, options...)
	}
	return micro.RegisterSubscriber(*topic, service.Server(), func(ctx context.Context, message *Request) error {
		id, _ := metadata.Get(ctx, "X-Request-Id")
		fmt.Printf("heard %s %s\n", message.Name, id)
		return nil
	}, options...)
}

// publish sends so many messages.
func publish(with client.Client) {
	for i := 0; i < *calls; i++ {
		ctx := metadata.NewContext(context.Background(), metadata.Metadata{"X-Request-Id": fmt.Sprint(i)})
		message := &Request{Name: fmt.Sprintf("%s%d", *who, i)}
		check(with.Publish(ctx, with.NewMessage(*topic, message, client.WithMessageContentType("application/json"))))
	}
	// it sends behind our back
	time.Sleep(time.Second)
	fmt.Println("published")
}
