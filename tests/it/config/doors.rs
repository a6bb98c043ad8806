use goms::listener::{ClientAuth, ToHttps};

use super::*;

const PAIR: &str = "{ cert: site.pem, key: site-key.pem }";

#[test]
fn tls_is_off_until_it_has_a_certificate() {
    let tls = |text: &str| load(text, &[]).unwrap_or_else(|errors| panic!("{errors}")).gateway.tls;
    assert_eq!(tls(""), None);
    let found = tls(&format!("tls: {{ certificates: [{PAIR}] }}")).unwrap();
    assert_eq!((found.certificates.len(), found.client_auth), (1, ClientAuth::Off));
    let found =
        tls(&format!("tls: {{ certificates: [{PAIR}, {PAIR}], clientCa: ca.pem, clientAuth: required }}")).unwrap();
    assert_eq!((found.certificates.len(), found.client_auth), (2, ClientAuth::Required));
    assert_eq!(found.client_ca, Some("ca.pem".into()));
}

#[test]
fn doors_that_cannot_be_are_told() {
    for (text, part) in [
        ("tls: {}", "tls: needs `certificates`; write for example"),
        ("tls: { certificates: [] }", "tls: needs `certificates`"),
        ("tls: { certificates: [{ cert: a }] }", "tls.certificates[0]: needs `key`, a PEM file"),
        ("tls: { certificates: [a.pem] }", "tls.certificates[0]: must be a mapping"),
        (&format!("tls: {{ certificates: [{PAIR}], clientCa: ca.pem }}"), "tls.clientCa: needs `clientAuth` beside it"),
        (&format!("tls: {{ certificates: [{PAIR}], clientAuth: required }}"), "tls.clientAuth: needs `clientCa`"),
        (&format!("tls: {{ certificates: [{PAIR}], clientAuth: requird }}"), "did you mean `required`?"),
        (
            &format!("tls: {{ certificates: [{PAIR}], redirectToHttps: 70000 }}"),
            "tls.redirectToHttps: must be `true`, `false` or the port that clients see, got `70000`",
        ),
        (&format!("serviceTls: {{ certificates: [{PAIR}], redirectToHttps: true }}"), "`redirectToHttps`"),
        (&format!("tls: {{ certificate: [{PAIR}] }}"), "did you mean `certificates`?"),
        ("trustedProxies: [10.0.0.0/33]", "trustedProxies[0]: must be an address or a range like `10.0.0.0/8`"),
        ("proxyProtocol: on", "proxyProtocol: anybody could claim to be any client; name those who may send it"),
        ("{ trustedProxies: [::1], proxyProtocol: yes }", "proxyProtocol: unknown word `yes`"),
        ("limits: { headerBytes: 1MiB }", "limits.headerBytes: must be at most `114688` bytes"),
        ("limits: { sendTimeout: 0s }", "limits.sendTimeout: must be greater than 0"),
    ] {
        let said = faults(text);
        assert!(said.contains(part), "{text}\n{said}");
    }
}

#[test]
fn an_https_port_needs_a_certificate() {
    let with = |text: &str, args: &[&str]| {
        let cli = flags(args);
        let cli::Command::Gateway(args) = &cli.command else { panic!("another command") };
        Config::parse("config.yml", text, &cli.common, &cli.node()).expect("good").with_gateway(&args.gateway)
    };
    let error = with("", &["--https-port", "1"]).expect_err("refused");
    assert!(error.only_flags() && error.to_string().starts_with("--https-port: needs certificates; write `tls:"));
    let tls = format!("tls: {{ certificates: [{PAIR}] }}");
    let config = with(&tls, &["--https-port", "0", "--http-socket", "goms.sock"]).expect("good");
    assert_eq!((config.node.https_port, config.node.http_socket.clone()), (Some(0), Some("goms.sock".into())));
    let sent_on = format!("tls: {{ certificates: [{PAIR}], redirectToHttps: true }}");
    for (args, port) in [(&[][..], 8443), (&["--https-port", "9443"], 9443)] {
        let redirect = with(&sent_on, args).expect("good").gateway.tls.and_then(|tls| tls.redirect);
        assert_eq!(redirect.map(ToHttps::port), Some(port), "{args:?}");
    }
    let error = with(&sent_on, &["--https-port", "0"]).expect_err("refused").to_string();
    assert!(
        error.starts_with("--https-port: is any free one, which `tls.redirectToHttps: true` cannot know"),
        "{error}"
    );
    let head = yaml(&config);
    assert!(head.contains("http default, https 0, http socket goms.sock, rpc default"), "{head}");
    let error = config.for_gateway().expect_err("a missing file").to_string();
    assert!(error.starts_with("config.yml: ") && error.contains("services"), "{error}");
    let error = config.check_certificates().expect_err("a missing file").to_string();
    assert!(error.starts_with("config.yml: tls: cannot read `site.pem`"), "{error}");
}

#[test]
fn what_a_running_gateway_does_not_follow_is_named() {
    let load = |text: &str| load(text, &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let restart = |one: &str, two: &str| load(one).differences_that_need_a_restart(&load(two)).join(", ");
    let tls = |more: &str| format!("tls: {{ certificates: [{PAIR}{more}] }}");
    assert_eq!(restart("", &tls("")), "tls");
    assert_eq!(restart(&tls(""), &tls(", { cert: a, key: b }")), "");
    assert_eq!(restart("trustedProxies: [10.0.0.0/8]", "trustedProxies: [10.1.0.0/16]"), "");
    let proxied = |range: &str| format!("{{ trustedProxies: ['{range}'], proxyProtocol: on }}");
    assert_eq!(restart("trustedProxies: [10.0.0.0/8]", &proxied("10.0.0.0/8")), "proxyProtocol");
    assert_eq!(restart(&proxied("::1"), &proxied("::2")), "trustedProxies (of `proxyProtocol`)");
    assert_eq!(restart("", "limits: { sendTimeout: 5s }"), "limits.sendTimeout");
}
