// A node and a client of Go Micro v5.30.0, for goms's tests.
//
//	greeter -mode server   a node of the service: Say.Hello, Say.Stream, Say.Chat over mucp
//	greeter -mode hearer   a node that prints what is published to -topic
//	greeter -mode publish  publishes to -topic, -calls times
//	greeter -mode client   calls Say.Hello (or -method) -calls times and prints what came as JSON
package main

import (
	"flag"
	"log"
	"strings"
	"time"

	"go-micro.dev/v5"
	"go-micro.dev/v5/registry"
	"go-micro.dev/v5/registry/etcd"
)

var (
	mode     = flag.String("mode", "server", "server, hearer, publish or client")
	name     = flag.String("name", "go.micro.srv.greeter", "the service to be or, as a client, to call")
	label    = flag.String("label", "", "what answers are marked with, as `srv one`")
	addrs    = flag.String("registry", "127.0.0.1:2379", "etcd's addresses, by commas")
	address  = flag.String("address", "127.0.0.1:0", "where to listen")
	ttl      = flag.Duration("ttl", 30*time.Second, "how long a dead node stays")
	interval = flag.Duration("interval", 10*time.Second, "how often a node renews itself")
	calls    = flag.Int("calls", 1, "how often a client calls")
	method   = flag.String("method", "hello", "hello, stream or chat")
	topic    = flag.String("topic", "", "what to hear or to publish to")
	queue    = flag.String("queue", "", "the queue of a subscriber")
	who      = flag.String("who", "John", "the name to greet")
)

// Request asks for a greeting.
type Request struct {
	Name string `json:"name,omitempty"`
}

// Response is the greeting.
type Response struct {
	Msg string `json:"msg,omitempty"`
}

func main() {
	flag.Parse()
	service := micro.NewService(
		micro.Name(*name),
		micro.Version("latest"),
		micro.Address(*address),
		micro.Registry(etcd.NewEtcdRegistry(registry.Addrs(strings.Split(*addrs, ",")...))),
		micro.RegisterTTL(*ttl),
		micro.RegisterInterval(*interval),
	)
	switch *mode {
	case "server":
		check(service.Server().Handle(service.Server().NewHandler(&Say{})))
		check(service.Run())
	case "hearer":
		check(hear(service))
		check(service.Run())
	case "publish":
		publish(service.Client())
	case "client":
		call(service.Client())
	default:
		log.Fatalf("no mode %q", *mode)
	}
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
