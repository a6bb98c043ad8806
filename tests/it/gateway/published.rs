//! Keys of tokens that their issuer publishes.

use serde_json::{Value, json};

use super::auth::bearer;
use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, answer, json as json_answer};
use crate::support::tls::{Identity, TlsFront};
use crate::support::token::{Signer, in_secs};

#[tokio::test]
async fn published_keys_are_read_again_when_a_token_names_another() {
    let origin = Origin::echo().await;
    let (first, second) = (Signer::es256(), Signer::Rs256);
    let published = std::sync::Arc::new(std::sync::Mutex::new(json!({"keys": [first.jwk("one")]})));
    let shown = published.clone();
    let issuer = Origin::start(move |_, _| {
        let set = shown.lock().unwrap().clone();
        if set.is_null() { Reply::Close(Vec::new()) } else { Reply::Bytes(json_answer(&set.to_string())) }
    })
    .await;
    let text = format!(
        "auth: {{ people: {{ jwt: {{ jwks: 'http://{}/keys', algorithms: [ES256, RS256], refresh: 1h }} }} }}
services: {{ user: {{ login: {{ path: /login, auth: people }} }} }}",
        issuer.address
    );
    let door = door(&text, &[("user", origin.address)]);
    let claims = json!({"sub": "ann", "exp": in_secs(60)});
    let ask = async |token: String| door.ask("GET", "/api/user/login", &bearer(&token), "").await;
    assert_eq!(ask(first.token(Some("one"), &claims)).await.status, 200);
    assert_eq!(ask(first.token(None, &claims)).await.status, 200, "only one can be meant");
    assert_eq!(issuer.seen().len(), 1, "read once");
    // a new key: the first token with it has the set read again
    *published.lock().unwrap() = json!({"keys": [first.jwk("one"), second.jwk("two")]});
    let both = tokio::join!(ask(second.token(Some("two"), &claims)), ask(second.token(Some("two"), &claims)));
    assert_eq!((both.0.status, both.1.status), (200, 200));
    assert_eq!(issuer.seen().len(), 2);
    // invented ones do not, for a while
    for number in 0..20 {
        let got = ask(first.token(Some(&format!("none{number}")), &claims)).await;
        assert_eq!(got.status, 401);
        assert_eq!(got.json()["msg"], "the token is signed with a key that its issuer does not publish");
    }
    assert_eq!(issuer.seen().len(), 2);
    // a reload of the config keeps what was read, with the issuer away
    *published.lock().unwrap() = Value::Null;
    let settings = door.live.settings();
    door.live.replace(settings);
    assert_eq!(ask(second.token(Some("two"), &claims)).await.status, 200);
    assert_eq!(ask(first.token(Some("two"), &claims)).await.status, 401, "another's key");
    assert_eq!(issuer.seen().len(), 2);
}

#[tokio::test]
async fn without_keys_nobody_is_let_in_until_they_come() {
    let origin = Origin::echo().await;
    let signer = Signer::es256();
    let set = json_answer(&json!({"keys": [signer.jwk("one")]}).to_string());
    let issuer =
        Origin::start(
            move |_, number| {
                if number == 0 { Reply::Bytes(answer("500 Broken", "", "")) } else { Reply::Bytes(set.clone()) }
            },
        )
        .await;
    let text = format!(
        "auth: {{ people: {{ jwt: {{ jwks: 'http://{}/', algorithms: [ES256] }} }} }}
services: {{ user: {{ login: {{ path: /login, auth: people }} }} }}",
        issuer.address
    );
    let door = door(&text, &[("user", origin.address)]);
    wait_for("the first read", || !issuer.seen().is_empty()).await;
    let token = signer.token(Some("one"), &json!({"sub": "ann", "exp": in_secs(60)}));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    loop {
        let got = door.ask("GET", "/api/user/login", &bearer(&token), "").await;
        if got.status == 200 {
            break;
        }
        assert_eq!((got.status, got.header("retry-after")), (503, Some("1")), "{}", got.text());
        assert!(std::time::Instant::now() < deadline);
    }
    assert_eq!(origin.seen().len(), 1);
}

#[tokio::test]
async fn keys_are_read_from_whom_one_can_trust() {
    let (origin, signer) = (Origin::echo().await, Signer::ed_dsa());
    let set = json!({"keys": [signer.jwk("one")]}).to_string();
    let issuer = Origin::answering(json_answer(&set)).await;
    let (known, folder) = (Identity::new(), tempfile::tempdir().unwrap());
    let files = known.files(folder.path());
    let (good, other) =
        (TlsFront::start(&known, issuer.address).await, TlsFront::start(&Identity::new(), issuer.address).await);
    let file = folder.path().join("keys.json");
    std::fs::write(&file, &set).unwrap();
    let way = |jwks: String| format!("{{ jwt: {{ {jwks}, algorithms: [EdDSA] }} }}");
    let over_tls = |at: SocketAddr| way(format!("jwks: 'https://{at}/keys', caFile: {}", files.ca.display()));
    let door = door(
        &format!(
            "auth: {{ good: {}, other: {}, file: {} }}
routes:
  - {{ match: {{ path: /good }}, service: user, auth: good }}
  - {{ match: {{ path: /other }}, service: user, auth: other }}
  - {{ match: {{ path: /file }}, service: user, auth: file }}",
            over_tls(good.address),
            over_tls(other.address),
            way(format!("jwks: {}", file.display()))
        ),
        &[("user", origin.address)],
    );
    let token = signer.token(Some("one"), &json!({"sub": "ann", "exp": in_secs(60)}));
    for (target, status) in [("/good", 200), ("/file", 200), ("/other", 503)] {
        let got = door.ask("GET", target, &bearer(&token), "").await;
        assert_eq!(got.status, status, "{target} {}", got.text());
    }
    // another key in the file: the first token with it has the file read again
    let next = Signer::es256();
    let both = json!({"keys": [signer.jwk("one"), next.jwk("two")]});
    std::fs::write(&file, both.to_string()).unwrap();
    let token = next.token(Some("two"), &json!({"sub": "ann", "exp": in_secs(60)}));
    let got = door.ask("GET", "/file", &bearer(&token), "").await;
    assert_eq!((got.status, got.json()["msg"].as_str()), (401, Some("the token's algorithm is not accepted")));
    let next = Signer::ed_dsa();
    std::fs::write(&file, json!({"keys": [next.jwk("three")]}).to_string()).unwrap();
    let token = next.token(Some("three"), &json!({"sub": "ann", "exp": in_secs(60)}));
    assert_eq!(door.ask("GET", "/file", &bearer(&token), "").await.status, 200);
}
