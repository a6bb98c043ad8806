//! `rateLimit` of a config file.

use std::time::Duration;

use super::{faults, load, yaml};
use goms::gateway::rate::{By, RateLimit};

const TEXT: &str = r#"
auth: { keys: { apiKeys: { keys: { acme: "sha256:0000000000000000000000000000000000000000000000000000000000000000" } } } }
defaults: { rateLimit: { rate: 1000/m, by: ip, name: all } }
upstreams: { user: { rateLimit: [100/s, { rate: 5/10s, burst: 7, by: caller }], auth: keys } }
services:
  user: { login: /login, free: { path: /free, rateLimit: none } }
  order: { submit: /submit, own: { path: /own, rateLimit: { rate: 1/s } } }
"#;

#[test]
fn each_form_is_read_looked_up_and_printed() {
    let config = load(TEXT, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let rates = |service: &str, action: &str| config.gateway.services[service].actions[action].terms.rates.clone();
    let rate = |count, secs, burst, by, name: Option<&str>| RateLimit {
        count,
        per: Duration::from_secs(secs),
        burst,
        by,
        name: name.map(str::to_owned),
    };
    assert_eq!(rates("user", "login"), [rate(100, 1, 100, By::Route, None), rate(5, 10, 7, By::Caller, None)]);
    assert_eq!(rates("user", "free"), []);
    assert_eq!(rates("order", "submit"), [rate(1000, 60, 1000, By::Ip, Some("all"))]);
    assert_eq!(rates("order", "own"), [rate(1, 1, 1, By::Route, None)]);
    let printed = yaml(&config);
    let again = load(&printed.replace("- redacted", "- a key that is long enough"), &[]).expect("good");
    assert_eq!(yaml(&again), printed);
}

#[test]
fn one_fault_each() {
    for (rate, fault) in [
        ("100", "rateLimit: `100` is no rate; write for example `100/s`"),
        ("[1/s, 2]", "rateLimit[1]: `2` is no rate"),
        ("1/ms", "must be in at least `1s`"),
        ("0/s", "must be from 1 to 1000000 requests"),
        ("{ burst: 1 }", "rateLimit: has no `rate`"),
        ("{ rate: 1/s, burst: 0 }", "rateLimit.burst: must be a number from 1"),
        ("{ rate: 1/s, by: user }", "rateLimit.by: unknown word `user`"),
        ("{ rate: 1/s, by: caller }", "rateLimit: counts by caller, and nobody is asked who it is; set `auth` too"),
        ("{ rate: 1/s, name: 'a b' }", "rateLimit.name: action name `a b` must not contain ` `"),
    ] {
        let found = faults(&format!(
            "services: {{ user: {{ a: /a, b: /b }} }}\nupstreams: {{ user: {{ rateLimit: {rate} }} }}"
        ));
        assert!(found.contains(fault) && found.lines().count() == 1, "{rate}\n{found}\nnot: {fault}");
    }
}
