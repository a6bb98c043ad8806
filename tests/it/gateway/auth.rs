//! Who may: API keys, passwords, tokens, addresses.

use serde_json::{Value, json};

use super::rules::door;
use super::*;
use crate::support::origin::Origin;
use crate::support::token::{Signer, encoded, in_secs};

const KEY: &str = "the key of acme, long enough";
const OTHER: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"; // of `test`

pub fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}\r\n")
}

fn basic(credentials: &str) -> String {
    use base64::Engine;
    format!("Authorization: Basic {}\r\n", base64::engine::general_purpose::STANDARD.encode(credentials))
}

fn challenges(got: &Got) -> Vec<&str> {
    let fields = got.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("www-authenticate"));
    fields.map(|(_, value)| value.as_str()).collect()
}

#[tokio::test]
async fn a_key_lets_its_caller_in_and_goes_no_further() {
    let origin = Origin::echo().await;
    let text = format!(
        r#"
auth:
  partners: {{ apiKeys: {{ keys: {{ acme: ["{KEY}", "the next key of acme"], test: "{OTHER}" }} }}, callerHeader: X-Caller }}
  links: {{ apiKeys: {{ query: key, keys: {{ mailer: "{KEY}" }} }} }}
services: {{ user: {{ login: {{ path: /login, auth: partners }}, register: /register }} }}
routes:
  - {{ match: {{ path: /link }}, service: user, auth: [links, partners] }}
  - {{ match: {{ path: /acme }}, service: user, auth: partners, allow: {{ callers: [acme] }} }}
  - {{ match: {{ path: /away }}, redirect: /elsewhere, auth: links }}
"#
    );
    let mut door = door(&text, &[("user", origin.address)]);
    let key = |key: &str| format!("X-Api-Key: {key}\r\n");
    for (target, headers, status) in [
        ("/api/user/login", key(KEY), 200),
        ("/api/user/login", key("the next key of acme"), 200),
        ("/api/user/login", key("test"), 200),
        ("/api/user/login", key("test "), 200), // space around a value is none of it
        ("/api/user/login", String::new(), 401),
        ("/api/user/login", key("tes"), 401),
        ("/api/user/login", key(OTHER), 401),
        ("/api/user/login", key("test") + &key("test"), 401),
        ("/api/user/login?x-api-key=test", String::new(), 401),
        ("/acme", key(KEY), 200),
        ("/acme", key("test"), 403),
        ("/link", key("test"), 200),
        ("/away", String::new(), 401),
    ] {
        let got = door.ask("GET", target, &headers, "").await;
        assert_eq!(got.status, status, "{target} {headers} {}", got.text());
        let is_told = challenges(&got) == ["ApiKey in=\"header\", name=\"x-api-key\""];
        assert!(is_told == (status == 401 && target != "/away"), "{target} {headers} {got:?}");
    }
    assert_eq!(origin.seen().len(), 6, "no other went on");
    let got = door.ask("GET", "/api/user/login", "", "").await;
    assert_eq!(got.json()["msg"], "this route wants to know who calls; send the header `x-api-key`");

    let got = door.ask("GET", "/api/user/login?a=1", &(key(KEY) + "X-Caller: admin\r\nx_caller: root\r\n"), "").await;
    assert_eq!(got.status, 200);
    let seen = origin.seen().pop().unwrap();
    assert!(!format!("{seen:?}").contains(KEY), "{seen:?}");
    let told: Vec<_> = seen.headers.iter().filter(|(name, _)| name.contains("aller")).collect();
    assert_eq!(told, [&("x-caller".to_owned(), "acme".to_owned())]);
    // on a route without proof nobody says it either
    door.ask("GET", "/api/user/register", "X-Caller: admin\r\nX-Mine: 1\r\n", "").await;
    let seen = origin.seen().pop().unwrap();
    assert_eq!((seen.header("x-caller"), seen.header("x-mine")), (None, Some("1")));

    let query = KEY.replace(' ', "%20");
    let got = door.ask("GET", &format!("/link?a=1&k%65y={query}&b=2"), "", "").await;
    assert_eq!((got.status, origin.seen().pop().unwrap().target.as_str()), (200, "/link?a=1&b=2"));
    let got = door.ask("GET", &format!("/away?key={query}&b=2"), "", "").await;
    assert_eq!(got.header("location"), Some("/elsewhere?b=2"));

    let mut events = Vec::new();
    while let Ok(event) = door.events.try_recv() {
        events.push(format!("{:?}", event.request));
    }
    assert!(events.len() > 20 && events.iter().all(|event| !event.contains("acme,") && !event.contains("the%20key")));
    assert!(events.iter().any(|event| event.contains("k%65y=[redacted]&b=2")), "{events:?}");
}

#[tokio::test]
async fn a_password_is_checked_and_remembered_for_a_while() {
    let origin = Origin::echo().await;
    let hash = bcrypt::hash("pass:word", 4).unwrap();
    let text = format!(
        r#"
auth: {{ staff: {{ basic: {{ realm: "the staff", users: {{ ann: "{hash}", "bob b": "{hash}" }} }}, callerHeader: X-User }} }}
defaults: {{ auth: staff, deny: {{ callers: ["bob b"] }} }}
services: {{ user: {{ login: /login, open: {{ path: /open, auth: none, deny: none }} }} }}
"#
    );
    let door = door(&text, &[("user", origin.address)]);
    for (headers, status) in [
        (String::new(), 401),
        (basic("ann:pass:word"), 200),
        (basic("ann:pass:word"), 200),
        (basic("ann:pass:wor"), 401),
        (basic("ann:"), 401),
        (basic("ann"), 401),
        (basic("nobody:pass:word"), 401),
        (basic("bob b:pass:word"), 403),
        (basic(&format!("ann:{}", "x".repeat(5000))), 401),
        ("Authorization: basic not base64\r\n".into(), 401),
        (bearer("ann:pass:word"), 401),
        (basic("ann:pass:word") + &basic("ann:pass:word"), 401),
    ] {
        let got = door.ask("GET", "/api/user/login", &headers, "").await;
        assert_eq!(got.status, status, "{headers} {}", got.text());
        if status == 401 {
            assert_eq!(challenges(&got), ["Basic realm=\"the staff\", charset=\"UTF-8\""]);
        }
    }
    assert_eq!(door.ask("GET", "/api/user/open", &basic("ann:wrong"), "").await.status, 200);
    let seen = origin.seen();
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[0].header("authorization"), seen[0].header("x-user")), (None, Some("ann")));
    assert!(seen[2].header("authorization").is_some(), "not for this gateway where it asks for none");
}

/// A gateway that takes tokens of this key, with more of what the way says.
fn token_door(signer: &Signer, more: &str, origin: &Origin) -> (Door, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key.pem");
    std::fs::write(&file, signer.pem()).unwrap();
    let key = match signer {
        Signer::Hs256(secret) => format!("secret: \"{}\"", String::from_utf8(secret.clone()).unwrap()),
        _ => format!("publicKeyFile: {}, algorithms: [{}]", file.display(), signer.algorithm()),
    };
    let text = format!(
        "auth: {{ people: {{ jwt: {{ {key}, {more} headers: {{ X-User: sub, X-Roles: role, X-Org: org.id }} }} }} }}
services: {{ user: {{ login: {{ path: /login, auth: people }}, ops: {{ path: /ops, auth: people, allow: {{ claims: {{ role: [ops, admin] }} }} }} }} }}"
    );
    (door(&text, &[("user", origin.address)]), folder)
}

#[tokio::test]
async fn tokens_of_every_kind_of_key_are_verified() {
    let origin = Origin::echo().await;
    let secret = Signer::Hs256(b"a secret of thirty-two bytes or so".to_vec());
    for signer in [secret, Signer::Rs256, Signer::Ps256, Signer::es256(), Signer::ed_dsa()] {
        let (door, _folder) = token_door(&signer, "", &origin);
        let claims = json!({"sub": "ann", "role": ["dev", "ops"], "org": {"id": 7}, "exp": in_secs(60)});
        let token = signer.token(None, &claims);
        // nor does naming them as fields of one connection take them away
        let headers = bearer(&token)
            + "X-User: root\r\nX_Roles: admin\r\nConnection: keep-alive, X-User, x-roles, x-own\r\nX-Own: 1\r\n";
        let got = door.ask("GET", "/api/user/login", &headers, "").await;
        assert_eq!(got.status, 200, "{} {}", signer.algorithm(), got.text());
        let seen = origin.seen().pop().unwrap();
        let told = ["x-user", "x-roles", "x-org", "authorization"].map(|name| seen.header(name).map(str::to_owned));
        let passed = format!("Bearer {token}");
        assert_eq!(told, [Some("ann".into()), Some("dev,ops".into()), Some("7".into()), Some(passed)]);
        assert!(
            seen.headers.iter().all(|(name, _)| !["x_roles", "x-own", "connection"].contains(&name.as_str())),
            "{seen:?}"
        );
        let broken = format!("{}A{}", &token[..token.len() - 9], &token[token.len() - 8..]);
        if broken != token {
            let got = door.ask("GET", "/api/user/login", &bearer(&broken), "").await;
            assert_eq!((got.status, got.json()["msg"].as_str()), (401, Some("the token's signature is wrong")));
        }
    }
}

#[tokio::test]
async fn what_a_token_says_must_hold() {
    let origin = Origin::echo().await;
    let signer = Signer::es256();
    let (door, _folder) = token_door(&signer, "issuer: [i1, i2], audience: goms, leeway: 5s,", &origin);
    let good = json!({"sub": "ann", "iss": "i2", "aud": ["x", "goms"], "exp": in_secs(60)});
    let with = |key: &str, value: Value| {
        let mut claims = good.clone();
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(key)),
            value => claims[key] = value,
        }
        signer.token(None, &claims)
    };
    let header = |header: Value| signer.signed(&header, &good);
    let none = format!("{}.{}.", encoded(r#"{"alg":"none"}"#), encoded(good.to_string()));
    // what would pass if the public key were taken for a secret
    let confused = Signer::Hs256(signer.pem().into_bytes()).token(None, &good);
    let other = Signer::es256().token(None, &good);
    for (token, wrong) in [
        (with("x", json!(1)), ""),
        (with("nbf", json!(in_secs(2))), ""), // the clocks may differ
        (with("exp", json!(in_secs(-60))), "the token has expired"),
        (with("exp", Value::Null), "the token has no `exp`"),
        (with("exp", json!("tomorrow")), "the token has no `exp`"),
        (with("nbf", json!(in_secs(60))), "the token is not valid yet"),
        (with("nbf", json!("now")), "the token has an `exp` or `nbf` that is no number"),
        (with("iss", json!("i3")), "the token is of another issuer"),
        (with("iss", Value::Null), "the token has no `iss`"),
        (with("aud", json!("other")), "the token is for another audience"),
        (with("aud", Value::Null), "the token has no `aud`"),
        (header(json!({"alg": "ES384"})), "the token's algorithm is not accepted"),
        (header(json!({"alg": "ES256", "crit": ["x"], "x": 1})), "the token asks for an extension that is not known"),
        (none, "the token is no JWT"),
        (confused, "the token's algorithm is not accepted"),
        (other, "the token's signature is wrong"),
        ("x.y".into(), "the token is no JWT"),
        (String::new(), "the token is no JWT"),
    ] {
        let got = door.ask("GET", "/api/user/login", &bearer(&token), "").await;
        if wrong.is_empty() {
            assert_eq!(got.status, 200, "{}", got.text());
            continue;
        }
        let told = if token.is_empty() {
            "this route wants to know who calls; send `Authorization: Bearer …`"
        } else {
            wrong
        };
        assert_eq!((got.status, got.json()["msg"].as_str()), (401, Some(told)), "{token}");
        if !token.is_empty() {
            assert_eq!(challenges(&got), [format!("Bearer error=\"invalid_token\", error_description=\"{wrong}\"")]);
        }
    }
    let got = door.ask("GET", "/api/user/login", "", "").await;
    assert_eq!((got.status, challenges(&got)), (401, vec!["Bearer"]));
    for (role, status) in [(json!("admin"), 200), (json!(["x", "ops"]), 200), (json!("user"), 403), (Value::Null, 403)]
    {
        let got = door.ask("GET", "/api/user/ops", &bearer(&with("role", role)), "").await;
        assert_eq!(got.status, status);
        let told = if status == 403 { vec!["Bearer error=\"insufficient_scope\""] } else { vec![] };
        assert_eq!(challenges(&got), told);
    }
    for untellable in ["a\nb", " a", "a\t"] {
        let got = door.ask("GET", "/api/user/login", &bearer(&with("role", json!(untellable))), "").await;
        assert_eq!(got.status, 403, "no header can tell it");
    }
    let got = door.ask("GET", "/api/user/login", &bearer(&with("role", json!("Jörg"))), "").await;
    assert_eq!((got.status, origin.seen().pop().unwrap().header("x-roles")), (200, Some("Jörg")));
}

#[tokio::test]
async fn addresses_are_let_in_or_not() {
    let origin = Origin::echo().await;
    let door = door(
        r#"
upstreams: { s: { deny: { addresses: [127.0.0.0/8] } } }
routes:
  - { match: { path: /denied }, service: s }
  - { match: { path: /open }, service: s, deny: none }
  - { match: { path: /own }, service: s, deny: { addresses: [10.0.0.0/8] }, allow: { addresses: [127.0.0.1] } }
  - { match: { path: /others }, service: s, deny: none, allow: { addresses: [10.0.0.0/8, "::1"] } }
  - { match: { path: /fixed }, respond: {}, deny: { addresses: [127.0.0.1] } }
"#,
        &[("s", origin.address)],
    );
    for (target, status) in [("/denied", 403), ("/open", 200), ("/own", 200), ("/others", 403), ("/fixed", 403)] {
        let got = door.ask("GET", target, "", "").await;
        assert_eq!(got.status, status, "{target}");
        if status == 403 {
            assert_eq!(got.json()["msg"], "requests from this address are not let in");
        }
    }
    let metrics = door.metrics.render();
    assert!(metrics.contains(r#"goms_denied_total{action="/others",service="s",why="address"} 1"#), "{metrics}");
}

#[tokio::test]
async fn no_credentials_however_odd_break_anything() {
    let origin = Origin::echo().await;
    let text = format!(
        r#"
auth:
  a: {{ apiKeys: {{ keys: {{ acme: "{KEY}" }} }} }}
  b: {{ basic: {{ users: {{ ann: "{}" }} }} }}
  c: {{ jwt: {{ secret: "a secret of thirty-two bytes or so" }} }}
services: {{ user: {{ login: {{ path: /login, auth: [a, b, c] }} }} }}
"#,
        bcrypt::hash("password", 4).unwrap()
    );
    let door = door(&text, &[("user", origin.address)]);
    let mut client = door.connect().await;
    let mut noise = 7_u64;
    let mut next = |below: u64| {
        noise = noise.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (noise >> 33) % below
    };
    const PIECES: [&str; 16] = [
        "Basic ",
        "Bearer ",
        "bearer  ",
        "eyJhbGciOiJIUzI1NiJ9",
        ".",
        "..",
        "e30",
        "e30=",
        "YTpi",
        "==",
        "\t",
        "%00",
        "é",
        "none",
        ",",
        ":",
    ];
    for _ in 0..500 {
        let value: String = (0..next(6)).map(|_| PIECES[next(16) as usize]).collect();
        let name = ["Authorization", "X-Api-Key"][next(2) as usize];
        let got = client.ask("GET", "/api/user/login", &format!("{name}: {value}\r\n"), "").await;
        assert_eq!(got.status, 401, "{name}: {value}");
        assert_eq!(challenges(&got).len(), 3);
    }
    assert!(origin.seen().is_empty());
    let metrics = door.metrics.render();
    assert!(metrics.contains(r#"goms_denied_total{action="login",service="user",why="proof"} 500"#), "{metrics}");
}

#[tokio::test]
async fn a_header_with_an_underscore_is_nobody_elses_either() {
    let origin = Origin::echo().await;
    let text = format!(
        r#"
auth: {{ partners: {{ apiKeys: {{ keys: {{ acme: "{KEY}" }} }}, callerHeader: x_caller }} }}
routes: [{{ match: {{ path: /x }}, service: user, auth: partners, requestHeaders: {{ remove: [x_debug] }} }}]
"#
    );
    let door = door(&text, &[("user", origin.address)]);
    let headers = format!("X-Api-Key: {KEY}\r\nX_Caller: root\r\nX-Caller: root\r\nX_Debug: 1\r\nX-Debug: 1\r\n");
    assert_eq!(door.ask("GET", "/x", &headers, "").await.status, 200);
    let seen = origin.only();
    let told: Vec<_> =
        seen.headers.iter().filter(|(name, _)| name.contains("aller") || name.contains("ebug")).collect();
    assert_eq!(told, [&("x_caller".to_owned(), "acme".to_owned())]);
}
