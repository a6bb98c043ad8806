package main

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"

	"github.com/micro/go-micro/v2/api/handler"
	handle "github.com/micro/go-micro/v2/api/handler/api"
	"github.com/micro/go-micro/v2/api/resolver"
	"github.com/micro/go-micro/v2/api/router"
	routes "github.com/micro/go-micro/v2/api/router/registry"
	"github.com/micro/go-micro/v2/client"
	"github.com/micro/go-micro/v2/registry"
)

const namespace = "go.micro.api"

// paths knows `/service/type/method`, as the resolver of `micro api` does, which is not a part of Go Micro.
type paths struct{}

func (paths) Resolve(r *http.Request) (*resolver.Endpoint, error) {
	parts := strings.Split(strings.Trim(r.URL.Path, "/"), "/")
	if len(parts) != 3 {
		return nil, errors.New("a path has a service, a type and a method")
	}
	method := strings.Title(parts[1]) + "." + strings.Title(parts[2])
	return &resolver.Endpoint{Name: namespace + "." + parts[0], Host: r.Host, Method: method, Path: r.URL.Path}, nil
}

func (paths) String() string {
	return "paths"
}

// serveGateway is what `micro api --handler=api` makes of Go Micro's parts: requests become go.api messages.
func serveGateway(etcd registry.Registry, client client.Client) {
	table := routes.NewRouter(router.WithHandler("api"), router.WithResolver(paths{}), router.WithRegistry(etcd))
	listener, err := net.Listen("tcp", *address)
	check(err)
	fmt.Printf("gateway on %s\n", listener.Addr())
	check(http.Serve(listener, handle.NewHandler(handler.WithNamespace(namespace), handler.WithRouter(table), handler.WithClient(client))))
}
