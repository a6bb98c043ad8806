package main

import (
	"context"
	"fmt"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/client"
	"go-micro.dev/v5/metadata"
	"go-micro.dev/v5/server"
)

// hear handles a topic's messages: it prints them.
func hear(service micro.Service) error {
	var options []server.SubscriberOption
	if *queue != "" {
		options = append(options, server.SubscriberQueue(*queue))
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
