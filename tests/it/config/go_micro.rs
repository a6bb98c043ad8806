//! What concerns Go Micro.

use goms::gateway::micro::Handler;
use goms::registry::Format;

use super::{flags, load};

#[test]
fn a_gateway_of_go_micro_is_said_by_flag_or_file() {
    let gateway = |text: &str, args: &[&str]| {
        let cli = flags(args);
        let goms::cli::Command::Gateway(given) = &cli.command else { panic!("a gateway") };
        let config = load(text, args).expect("good").with_gateway(&given.gateway).expect("good");
        config.for_gateway().expect("something to serve");
        let micro = config.gateway.micro.expect("one of Go Micro's");
        (micro.handler, micro.namespace, config.registry.namespace)
    };
    let of = |handler, namespace: &str, keys: &str| (handler, namespace.to_owned(), keys.to_owned());
    assert_eq!(gateway("", &["--handler", "api"]), of(Handler::Api, "go.micro.api", "goms"));
    let args = ["--handler=rpc", "--namespace=go.micro.srv"];
    assert_eq!(gateway("registry: { namespace: n }", &args), of(Handler::Rpc, "go.micro.srv", "n"));
    assert_eq!(gateway("micro: {}", &[]), of(Handler::Api, "go.micro.api", "goms"));
    let file = "micro: { handler: web, namespace: go.micro.web }";
    assert_eq!(gateway(file, &["--namespace=m"]), of(Handler::Web, "go.micro.web", "m"));
    assert_eq!(gateway(file, &["--handler", "http"]), of(Handler::Http, "go.micro.web", "goms"));
    // paths name any service, so any may have its terms
    let of_upstream = load("micro: {}\nupstreams: { greeter: { timeout: 2s } }", &[]).expect("good").gateway;
    for name in ["greeter", "go.micro.srv.greeter"] {
        assert_eq!(of_upstream.service(name).map(|known| known.policy.timeout.as_secs()), Some(2), "{name}");
    }
    assert!(of_upstream.service("go.micro.api.greeter").is_none());
    for (text, expected) in [
        ("upstreams: { greeter: { timeout: 2s } }", "no service `greeter` stands under `services`"),
        ("micro: { handler: ap }", "did you mean `api`?"),
        ("micro: { namespace: 'a b' }", "must not contain ` `"),
        ("micro: { name: x }", "unknown key `name`"),
    ] {
        let said = load(text, &[]).expect_err(text).to_string();
        assert!(said.contains(expected), "{text}: {said}");
    }
    assert!(load("", &["--namespace", "go.micro"]).expect_err("a dot").to_string().contains("with `--handler` it may"));
}

#[test]
fn the_form_of_go_micro_has_leases_of_its_own() {
    let lease = |text: &str, args: &[&str]| {
        let registry = load(text, args).expect("good").registry;
        (registry.format, registry.register_ttl.as_secs(), registry.register_interval.as_secs())
    };
    assert_eq!(lease("", &[]), (Format::Goms, 10, 3));
    assert_eq!(lease("", &["--registry-format", "go-micro"]), (Format::GoMicro, 30, 10));
    assert_eq!(lease("registry: { format: go-micro, ttl: 20 }", &[]), (Format::GoMicro, 20, 6));
    assert_eq!(lease("registry: { format: go-micro }", &["--registry_ttl=9", "--registry_interval=2"]).1, 9);
    let said = load("registry: { format: go-micr }", &[]).expect_err("misspelt").to_string();
    assert!(said.contains("did you mean `go-micro`?"), "{said}");
}
