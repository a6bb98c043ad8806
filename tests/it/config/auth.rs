//! `auth`, `allow`, `deny` of a config file.

use super::{faults, load, yaml};
use goms::gateway::Rule;
use goms::gateway::access::{Algorithm, JwtKey, KeyPlace, Proof};

const HASH: &str = "$2b$10$YBkFuGsxowL.N2AC8MrqtufbxR1I9K7zGIsszSHK3NgAxH4qdq6be";

fn text() -> String {
    format!(
        r#"
auth:
  partners: {{ apiKeys: {{ keys: {{ acme: ["the first key of acme", "the second one of acme"], globex: "sha256:{digest}" }} }}, callerHeader: X-Caller }}
  links: {{ apiKeys: {{ query: k, keys: {{ a: "a key that is long enough" }} }} }}
  staff: {{ basic: {{ users: {{ ann: "{HASH}" }} }} }}
  people: {{ jwt: {{ secret: "0123456789 0123456789 0123456789", audience: goms, issuer: [a, b], headers: {{ X-Role: role }} }} }}
  issued: {{ jwt: {{ jwks: "https://i.example.com/keys?x=1", algorithms: [ES256, PS384, EdDSA], leeway: 0s, refresh: 1m }} }}
defaults: {{ auth: [people, issued], deny: {{ addresses: [10.1.0.0/16, "::1"] }} }}
services: {{ user: {{ login: {{ path: /login, auth: none, deny: none }}, own: {{ path: /own, auth: staff }}, by: /by }} }}
upstreams: {{ user: {{ auth: partners, allow: {{ callers: [acme, globex] }} }}, shop: {{ deny: {{ claims: {{ role: [x, y], n: 1 }} }} }} }}
routes:
  - {{ match: {{ path: /shop }}, service: shop }}
  - {{ match: {{ path: /fixed }}, respond: {{}}, auth: [links, partners] }}
"#,
        digest = "0".repeat(64),
    )
    .replace(", own: {", ", own: { allow: none,")
    .replace("auth: none, deny: none", "auth: none, deny: none, allow: none")
}

#[test]
fn ways_are_read_and_each_key_is_looked_up() {
    let config = load(&text(), &[]).unwrap_or_else(|errors| panic!("{errors}"));
    let ways = &config.gateway.ways;
    let Proof::ApiKeys(keys) = &ways["partners"].proof else { panic!("{ways:?}") };
    assert_eq!((keys.place.clone(), keys.keys.len()), (KeyPlace::Header("x-api-key".into()), 3));
    assert_eq!(keys.keys[2], ([0; 32], "globex".to_owned()));
    assert_eq!(ways["partners"].caller_header.as_deref(), Some("x-caller"));
    let Proof::Jwt(people) = &ways["people"].proof else { panic!("{ways:?}") };
    assert!(matches!(people.key, JwtKey::Secret(_)) && people.algorithms == [Algorithm::HS256]);
    assert_eq!((people.leeway.as_secs(), people.caller.as_str()), (30, "sub"));
    let Proof::Jwt(issued) = &ways["issued"].proof else { panic!("{ways:?}") };
    assert_eq!(issued.algorithms, [Algorithm::ES256, Algorithm::PS384, Algorithm::EdDSA]);
    let shown = format!("{config:?}");
    for secret in ["first key", "0123456789", HASH, "x=1"] {
        assert!(!shown.contains(secret), "{secret}");
    }
    let action = |name: &str| config.gateway.services["user"].actions[name].terms.access.clone();
    assert!(action("login").is_open());
    assert_eq!((action("own").ways, action("own").allow), (vec!["staff".to_owned()], None));
    assert_eq!(action("own").deny.unwrap().addresses.len(), 2);
    assert_eq!(
        (action("by").ways, action("by").allow.unwrap().callers),
        (vec!["partners".into()], vec!["acme".into(), "globex".into()])
    );
    let route = |place: usize| -> &Rule { &config.gateway.routes[place] };
    assert_eq!(route(0).terms.access.ways, ["people", "issued"]);
    assert_eq!(route(0).terms.access.deny.as_ref().unwrap().claims["role"], ["x", "y"]);
    assert_eq!(route(1).terms.access.ways, ["links", "partners"]);
}

#[test]
fn what_is_printed_shows_no_secret_and_says_the_same_again() {
    let printed = yaml(&load(&text(), &[]).expect("good"));
    for secret in ["first key", "0123456789", HASH, "x=1", &"0".repeat(64)] {
        assert!(!printed.contains(secret), "{secret} in {printed}");
    }
    assert!(faults(&printed).contains("auth.partners.apiKeys.keys.acme[0]: must have at least 16 characters"));
    let mut again = printed.replacen("- redacted", "- the first key of acme", 1);
    again = again.replacen("- redacted", "- the second one of acme", 1).replacen(
        "- redacted",
        "- another key that is long",
        1,
    );
    again = again.replace("- redacted", "- one more key that is long");
    again = again.replace("ann: redacted", &format!("ann: {HASH}"));
    again = again.replace("secret: redacted", "secret: 0123456789 0123456789 0123456789");
    let again = load(&again, &[]).unwrap_or_else(|errors| panic!("{errors}\n{again}"));
    assert_eq!(yaml(&again), printed);
}

#[test]
fn a_change_needs_no_restart() {
    let (one, two) = (
        load(&text(), &[]).expect("good"),
        load(&text().replace("callers: [acme, globex]", "callers: [acme]").replace("leeway: 0s", "leeway: 1s"), &[])
            .expect("good"),
    );
    assert_ne!(yaml(&one), yaml(&two));
    assert_eq!(one.differences_that_need_a_restart(&two), [""; 0]);
}

#[test]
fn one_fault_each() {
    let long = "the key is long enough";
    let auth = |way: &str| format!("auth: {{ a: {way} }}\nservices: {{ user: {{ login: /login }} }}");
    for (way, fault) in [
        ("{}", "auth.a: needs one of `apiKeys`, `basic`, `jwt`, has none"),
        ("{ basic: { users: {} }, jwt: {} }", "auth.a: needs one of `apiKeys`, `basic`, `jwt`, has `basic`, `jwt`"),
        ("{ apiKeys: {} }", "auth.a.apiKeys: has no `keys`"),
        ("{ apiKeys: { keys: { x: short } } }", "auth.a.apiKeys.keys.x: must have at least 16 characters"),
        ("{ apiKeys: { keys: { x: 'sha256:0' } } }", "auth.a.apiKeys.keys.x: must have 64 hexadecimal digits"),
        (
            &format!("{{ apiKeys: {{ keys: {{ x: {long}, y: {long} }} }} }}"),
            "apiKeys.keys.y: is the key of `x` already",
        ),
        ("{ apiKeys: { header: a, query: b, keys: {} } }", "auth.a.apiKeys.query: stands beside `header`"),
        (
            "{ apiKeys: { header: Connection, keys: {} } }",
            "auth.a.apiKeys.header: `Connection` has a meaning of its own",
        ),
        ("{ apiKeys: { keys: {} }, callerHeader: Authorization }", "`Authorization` has a meaning of its own"),
        ("{ apiKeys: { keys: { 'a:b': x } } }", "a caller's name must not contain `:`"),
        ("{ basic: {} }", "auth.a.basic: has no `users`"),
        ("{ basic: { users: { ann: secret password } } }", "auth.a.basic.users.ann: is no hash of a password"),
        ("{ basic: { realm: 'a\"b', users: {} } }", "auth.a.basic.realm: must be printable ASCII"),
        ("{ jwt: {} }", "auth.a.jwt: needs one of `secret`, `publicKeyFile`, `jwks`, has none"),
        ("{ jwt: { secret: short } }", "auth.a.jwt.secret: must have at least 32 bytes (RFC 7518 section 3.2)"),
        (
            "{ jwt: { secret: '0123456789 0123456789 0123456789', algorithms: [RS256] } }",
            "a secret cannot verify RS256",
        ),
        ("{ jwt: { jwks: 'https://x', algorithms: [none] } }", "auth.a.jwt.algorithms[0]: unknown algorithm `none`"),
        ("{ jwt: { jwks: 'https://x', algorithms: [RS256, HS256] } }", "auth.a.jwt.jwks: HS256 needs a `secret`"),
        ("{ jwt: { jwks: '/no/such/file' } }", "auth.a.jwt.jwks: cannot read `/no/such/file`"),
        ("{ jwt: { jwks: Cargo.toml } }", "auth.a.jwt.jwks: `Cargo.toml` is no JSON Web Key Set"),
        ("{ jwt: { jwks: 'https://' } }", "auth.a.jwt.jwks: `https://` is no address"),
        ("{ jwt: { jwks: 'http://x', caFile: a } }", "auth.a.jwt.jwks: `caFile` vouches for `https://` only"),
        ("{ jwt: { publicKeyFile: Cargo.toml } }", "auth.a.jwt.publicKeyFile: is no public RSA key in PEM"),
        (
            "{ jwt: { secret: '0123456789 0123456789 0123456789', refresh: 1s } }",
            "`refresh` is for `jwks`, here is `secret`",
        ),
        ("{ jwt: { jwks: 'https://x', leeway: 1h } }", "auth.a.jwt.leeway: must be at most `10m`"),
    ] {
        let found = faults(&auth(way));
        assert!(found.contains(fault) && found.lines().count() == 1, "{way}\n{found}\nnot: {fault}");
        assert!(
            !found.contains("0123456789") && !found.contains(long) && !found.contains("secret password"),
            "{found}"
        );
    }
    for (terms, fault) in [
        (
            "auth: peple",
            "config.yml:2: services.user.login.auth: unknown way of `auth` `peple`; did you mean `people`?",
        ),
        ("auth: [people, none]", "services.user.login.auth[1]: unknown way of `auth` `none`"),
        ("allow: {}", "services.user.login.allow: names nobody"),
        (
            "allow: { callers: [a] }",
            "services.user.login.allow: names callers, and nobody is asked who it is; set `auth` too",
        ),
        ("deny: { claims: { a: b } }", "services.user.login.deny: names callers"),
        (
            "deny: { addresses: [10.0.0.1/8] }",
            "deny.addresses[0]: `10.0.0.1/8` has bits behind its length; write `10.0.0.0/8`",
        ),
        ("deny: { addresses: [localhost] }", "`localhost` is no address or network"),
        ("deny: everybody", "services.user.login.deny: must be a mapping"),
    ] {
        let text = format!(
            "auth: {{ people: {{ jwt: {{ jwks: 'https://x' }} }} }}\nservices: {{ user: {{ login: {{ path: /login, {terms} }} }} }}"
        );
        let found = faults(&text);
        assert!(found.contains(fault) && found.lines().count() == 1, "{terms}\n{found}\nnot: {fault}");
    }
}

#[test]
fn who_is_meant_must_be_somebody() {
    let auth = "auth: { people: { jwt: { jwks: 'https://x' } }, partners: { apiKeys: { keys: { acme: 'the key of acme, long', globex: 'and the one of globex' } } }, staff: { basic: { users: { ann: '$2b$10$YBkFuGsxowL.N2AC8MrqtufbxR1I9K7zGIsszSHK3NgAxH4qdq6be' } } } }\n";
    let one = |terms: &str| format!("{auth}services: {{ user: {{ login: {{ path: /login, {terms} }} }} }}");
    for (terms, fault) in [
        (
            "auth: partners, allow: { callers: [acmee] }",
            "services.user.login.allow: names `acmee`, but there is no such caller; did you mean `acme`?",
        ),
        (
            "auth: partners, deny: { callers: [bob] }",
            "services.user.login.deny: names `bob`, but there is no such caller; known: `acme`, `globex`",
        ),
        (
            "auth: [partners, people], allow: { callers: [partners/acmee] }",
            "names `partners/acmee`, but there is no such caller; did you mean `partners/acme`?",
        ),
        (
            "auth: [partners, people], allow: { callers: [staff/ann] }",
            "names `staff/ann`, but `auth` here does not ask for `staff`",
        ),
        (
            "auth: [partners, people], allow: { callers: [parners/acme] }",
            "names `parners/acme`, and `parners` is no way of `auth`; did you mean `partners/acme`?",
        ),
        (
            "auth: [partners, staff], allow: { callers: [staf/ann] }",
            "names `staf/ann`, and no way of `auth` has this name; did you mean `staff/ann`?",
        ),
        (
            "auth: partners, allow: { callers: [ann] }",
            "names `ann`, but there is no such caller; known: `acme`, `globex`",
        ),
        (
            "auth: partners, allow: { callers: [acme], claims: { role: [x] } }",
            "allow: asks for claims, which only tokens have",
        ),
    ] {
        let found = faults(&one(terms));
        assert!(found.contains(fault) && found.lines().count() == 1, "{terms}\n{found}\nnot: {fault}");
    }
    // tokens name whom they will; and what is inherited may be for others
    for good in [
        one(
            "auth: [partners, people], allow: { callers: [anybody, people/auth0/bob, google-oauth2/7, partners/acme] }",
        ),
        one("auth: [partners, staff], allow: { callers: [acme, ann, staff/ann] }"),
        one("auth: partners") + "\ndefaults: { auth: [people, staff], allow: { callers: [ann, people/bob, bob] } }",
        one("auth: partners") + "\ndefaults: { auth: staff, deny: { callers: [ann, staff/ann] } }",
    ] {
        if let Err(found) = load(&good, &[]) {
            panic!("{good}\n{found}");
        }
    }
    let found = faults(&(one("auth: partners") + "\ndefaults: { auth: staff, deny: { callers: [anna] } }"));
    assert!(found.contains("defaults.deny: names `anna`") && found.lines().count() == 1, "{found}");
}
