use goms::balance::{Breaker, Ejection, NodeLimit, Settings};

use super::*;

/// The settings of `user` with these keys of its upstream.
fn settings(keys: &str) -> Settings {
    let config = load(&text(keys), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let printed = yaml(&config);
    let again = load(&printed, &[]).unwrap_or_else(|errors| panic!("{errors}\n{printed}"));
    assert_eq!(again.gateway.services["user"].balance, config.gateway.services["user"].balance, "{printed}");
    config.gateway.services["user"].balance.clone()
}

fn text(keys: &str) -> String {
    format!("services: {{ user: {{ login: /login }} }}\nupstreams: {{ user: {{ {keys} }} }}\n")
}

fn refused(keys: &str, part: &str) {
    let said = faults(&text(keys));
    assert!(said.contains(part), "{keys}\n{said}");
    assert_eq!(said.lines().count(), 1, "{keys}\n{said}");
}

#[test]
fn ejection_is_on_unless_it_is_off() {
    assert_eq!(settings("timeout: 1s").ejection, Some(Ejection::default()));
    assert_eq!(settings("ejection: off").ejection, None);
    let all = "ejection: { failures: 3, errorRate: 25%, window: 1m, for: 500ms, max: 100%, on: [502, 5xx] }";
    let expected = Ejection {
        failures: 3,
        error_percent: Some(25),
        window: Duration::from_secs(60),
        duration: Duration::from_millis(500),
        max_percent: 100,
        statuses: vec![502..=502, 500..=599],
    };
    assert_eq!(settings(all).ejection, Some(expected));
    assert_eq!(settings("ejection: { on: 5xx }").ejection.unwrap_or_default().statuses, [500..=599]);
}

#[test]
fn a_breaker_is_there_where_it_is_named() {
    assert_eq!((settings("timeout: 1s").breaker, settings("breaker: off").breaker), (None, None));
    let expected = Breaker { failures: 5, open: Duration::from_secs(30) };
    assert_eq!(settings("breaker: { open: 30s }").breaker, Some(expected));
    refused("breaker: { failures: none }", "upstreams.user.breaker.failures: must be a number from 1 to 10000");
    refused("breaker: { open: 0 }", "upstreams.user.breaker.open: must be greater than 0");
    refused("breaker: 5", "upstreams.user.breaker: must be `off` or a mapping");
}

#[test]
fn what_ejection_may_not_be_is_told() {
    for (keys, part) in [
        ("ejection: on", "upstreams.user.ejection: must be `off` or a mapping (`failures: 5`), got `on`"),
        ("ejection: { failures: 0 }", "upstreams.user.ejection.failures: must be a number from 1 to 10000, got `0`"),
        ("ejection: { max: 0% }", "upstreams.user.ejection.max: must be a percentage from `1%` to `100%`, got `0%`"),
        ("ejection: { errorRate: 0.5 }", "ejection.errorRate: must be a percentage from `1%` to `100%`, got `0.5`"),
        ("ejection: { for: 0s }", "upstreams.user.ejection.for: must be greater than 0"),
        ("ejection: { on: [connect] }", "ejection.on[0]: `connect` is neither `5xx` nor a status from 400 to 599"),
        ("ejection: { on: 200 }", "upstreams.user.ejection.on: `200` is neither `5xx` nor a status from 400 to 599"),
        ("ejection: { failure: 3 }", "unknown key `failure`; did you mean `failures`?"),
        ("ejektion: { failures: 3 }", "unknown key `ejektion`; did you mean `ejection`?"),
    ] {
        refused(keys, part);
    }
}

#[test]
fn nodes_can_be_chosen_by_version_zone_and_age() {
    let plain = settings("selector: p2c");
    assert_eq!((plain.version, plain.zone, plain.near_zone, plain.slow_start), (None, None, None, None));
    let given = settings("filter: { version: 1.10, zone: eu }, preferZone: true, slowStart: 30s");
    assert_eq!((given.version.as_deref(), given.zone.as_deref()), (Some("1.10"), Some("eu")));
    assert_eq!((given.near_zone.as_deref(), given.slow_start), (Some(""), Some(Duration::from_secs(30))));
    assert_eq!(settings("filter: { zone: eu }, slowStart: off").slow_start, None);
    let here = load(&text("preferZone: true"), &["--zone", "a", "--weight", "5"]).expect("good");
    assert_eq!(here.gateway.services["user"].balance.near_zone.as_deref(), Some("a"));
    assert_eq!((here.node.weight, load(&text(""), &[]).expect("good").node.weight), (5, 1));
    refused("filter: { version: '' }", "upstreams.user.filter.version: must not be empty");
    refused("filter: { versions: 2 }", "unknown key `versions`; did you mean `version`?");
    refused("preferZone: a", "upstreams.user.preferZone: must be `true` or `false`");
    refused("slowStart: 0", "upstreams.user.slowStart: must be greater than 0");
}

#[test]
fn a_weight_is_from_1_to_1000() {
    for bad in ["0", "1001", "heavy"] {
        let args = ["goms", "service", "user", "--weight", bad];
        let error = cli::parse(args.iter().map(Into::into)).expect_err(bad).to_string();
        assert!(error.contains("must be a number from 1 to 1000"), "{error}");
    }
}

#[test]
fn a_limit_brings_its_queue() {
    assert_eq!((settings("timeout: 1s").limit, settings("maxInFlight: off").limit), (None, None));
    assert_eq!(settings("maxInFlight: 20").limit, Some(NodeLimit::new(20)));
    let limit = NodeLimit { in_flight: 20, queue: 0, queue_timeout: Duration::from_millis(300) };
    assert_eq!(settings("maxInFlight: 20, queue: 0, queueTimeout: 300ms").limit, Some(limit));
    refused("maxInFlight: 0", "upstreams.user.maxInFlight: must be a number from 1 to 10000000, got `0`");
    refused("queue: 5", "upstreams.user.queue: nobody waits without a `maxInFlight` beside it");
    refused("maxInFlight: 5, queue: many", "upstreams.user.queue: must be a number from 0 to 100000");
}

#[test]
fn health_is_off_a_path_or_more() {
    let check = |health: &str| {
        let text =
            format!("services: {{ user: {{ login: /login }} }}\nupstreams: {{ user: {{ health: {health} }} }}\n");
        load(&text, &[])
            .map(|config| config.gateway.services["user"].health.clone())
            .map_err(|faults| faults.to_string())
    };
    assert_eq!(check("off").unwrap(), None);
    let plain = check("/healthz").unwrap().unwrap();
    assert_eq!((plain.path.as_str(), plain.every.as_secs(), plain.failures, plain.passes), ("/healthz", 5, 2, 1));
    let more = check("{ path: /h, every: 1s, timeout: 200ms, failures: 3, passes: 2 }").unwrap().unwrap();
    assert_eq!((more.timeout.as_millis(), more.failures, more.passes), (200, 3, 2));
    for (health, fault) in [
        ("healthz", "must be a path like `/healthz`, got `healthz`"),
        ("{ every: 1s }", "has no `path`; write for example `path: /healthz`"),
        ("{ path: /a, passes: 0 }", "passes: must be a number from 1 to"),
    ] {
        let told = check(health).unwrap_err();
        assert!(told.contains(fault), "{fault} in {told}");
    }
}
