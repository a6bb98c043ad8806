// A node and a client of Go Micro v2.9.1, for goms's tests.
//
//	greeter -mode server   a node of the service: Say.Hello, Say.Stream, Say.Chat over gRPC
//	greeter -mode api      a node of the API tier: Say.Hello takes go.api.Request and calls the service
//	greeter -mode gateway  a gateway as `micro api --handler=api` is, on -address, which it prints
//	greeter -mode web      a node that serves HTTP
//	greeter -mode hearer   a node that prints what is published to -topic
//	greeter -mode publish  publishes to -topic, -calls times
//	greeter -mode client   calls Say.Hello (or -method) -calls times and prints what came as JSON
package main

import (
	"flag"
	"log"
	"strings"
	"time"

	"github.com/micro/go-micro/v2"
	"github.com/micro/go-micro/v2/registry"
	"github.com/micro/go-micro/v2/registry/etcd"
)

var (
	mode     = flag.String("mode", "server", "server, api, gateway, web, hearer, publish or client")
	name     = flag.String("name", "go.micro.srv.greeter", "the service to be or, as a client, to call")
	target   = flag.String("target", "go.micro.srv.greeter", "the service that the API tier calls")
	label    = flag.String("label", "", "what answers are marked with, as `srv one`")
	addrs    = flag.String("registry", "127.0.0.1:2379", "etcd's addresses, by commas")
	address  = flag.String("address", "127.0.0.1:0", "where to listen")
	ttl      = flag.Duration("ttl", 30*time.Second, "how long a dead node stays")
	interval = flag.Duration("interval", 10*time.Second, "how often a node renews itself")
	calls    = flag.Int("calls", 1, "how often a client calls")
	method   = flag.String("method", "hello", "hello, stream or chat")
	length   = flag.String("length", "", "what a client sends as content-length, as nodes do that pass on what they got")
	topic    = flag.String("topic", "", "what to hear or to publish to")
	queue    = flag.String("queue", "", "the queue of a subscriber")
	events   = flag.Bool("events", false, "a subscriber takes messages of type go.api.Event")
	who      = flag.String("who", "John", "the name to greet")
)

func main() {
	flag.Parse()
	etcd := etcd.NewRegistry(registry.Addrs(strings.Split(*addrs, ",")...))
	if *mode == "web" {
		serveWeb(etcd)
		return
	}
	service := micro.NewService(
		micro.Name(*name),
		micro.Version("latest"),
		micro.Address(*address),
		micro.Registry(etcd),
		micro.RegisterTTL(*ttl),
		micro.RegisterInterval(*interval),
	)
	switch *mode {
	case "server":
		check(service.Server().Handle(service.Server().NewHandler(&Say{})))
	case "api":
		check(service.Server().Handle(service.Server().NewHandler(apiTier(service.Client()))))
	case "gateway":
		serveGateway(etcd, service.Client())
		return
	case "hearer":
		check(hear(service))
	case "publish":
		publish(service.Client())
		return
	case "client":
		call(service.Client())
		return
	default:
		log.Fatalf("no mode %q", *mode)
	}
	check(service.Run())
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
