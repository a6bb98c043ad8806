//! The real servers that `scripts/test` starts: one of each for all tests, which keep apart by names of their own
//! (namespace, queue, index).

/// `host:port` of a running etcd; `None` is a loud skip, and a failure in CI.
pub fn etcd() -> Option<String> {
    address("GOMS_TEST_ETCD", "etcd")
}

/// The URL of a running RabbitMQ.
pub fn amqp() -> Option<String> {
    address("GOMS_TEST_AMQP", "RabbitMQ")
}

/// The URL of a running Elasticsearch.
pub fn elasticsearch() -> Option<String> {
    address("GOMS_TEST_ES", "Elasticsearch")
}

/// The path of a built h2spec.
pub fn h2spec() -> Option<String> {
    address("GOMS_TEST_H2SPEC", "h2spec")
}

/// The path of the built node and client of Go Micro v2 (`tests/interop/v2`).
pub fn go_micro_v2() -> Option<String> {
    address("GOMS_TEST_GO_MICRO_V2", "Go Micro v2")
}

/// The path of the built node and client of Go Micro v5 (`tests/interop/v5`).
pub fn go_micro_v5() -> Option<String> {
    address("GOMS_TEST_GO_MICRO_V5", "Go Micro v5")
}

/// The folder of gRPC's built interoperability client and server (`tests/interop/grpc`).
pub fn grpc_interop() -> Option<String> {
    address("GOMS_TEST_GRPC_INTEROP", "interoperability client of gRPC")
}

/// The address of a running Consul agent.
pub fn consul() -> Option<String> {
    address("GOMS_TEST_CONSUL", "Consul")
}

/// The path of a built Consul.
pub fn consul_binary() -> Option<String> {
    address("GOMS_TEST_CONSUL_BIN", "Consul")
}

/// The path of a built API server of Kubernetes.
pub fn kube_apiserver() -> Option<String> {
    address("GOMS_TEST_KUBE_APISERVER", "API server of Kubernetes")
}

/// The path of a Chromium.
pub fn chromium() -> Option<String> {
    address("GOMS_TEST_CHROMIUM", "Chromium")
}

/// The URL of a running Mosquitto.
pub fn mqtt() -> Option<String> {
    address("GOMS_TEST_MQTT", "Mosquitto")
}

/// The URL of a running NATS.
pub fn nats() -> Option<String> {
    address("GOMS_TEST_NATS", "NATS")
}

fn address(variable: &str, server: &str) -> Option<String> {
    let address = std::env::var(variable).ok().filter(|address| !address.is_empty());
    if address.is_none() {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "no {server}: {variable} is not set (run scripts/test)");
        eprintln!("SKIPPED: no {server}: {variable} is not set (run scripts/test)");
    }
    address
}

/// A name that no other test uses.
pub fn unique(prefix: &str) -> String {
    format!("{prefix}{}", uuid::Uuid::new_v4().simple())
}
