//! `faults`: what goes wrong on purpose, and for whom.

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, answer};

const TEXT: &str = r#"
upstreams: { user: { faults: { abort: 503, headers: { x-fault: down } } } }
services:
  user:
    login: /login
    register: { path: /register, faults: { delay: 1ms, share: 50%, headers: { x-fault: "*" } } }
    out: { path: /out, faults: none }
"#;

fn mark(event: &Event) -> Option<String> {
    let mut headers = event.request.head.headers();
    headers.find(|(name, _)| *name == "X-Goms-Fault").map(|(_, value)| value.to_owned())
}

#[tokio::test]
async fn who_asks_for_it_is_answered_with_an_error() {
    let origin = Origin::echo().await;
    let mut door = door(TEXT, &[("user", origin.address)]);
    for (path, headers, status) in [
        ("/api/user/login", "X-Fault: down\r\n", 503),
        ("/api/user/login", "", 200),
        ("/api/user/login", "X-Fault: slow\r\n", 200),
        ("/api/user/out", "X-Fault: down\r\n", 200),
    ] {
        let got = door.ask("GET", path, headers, "").await;
        let told = (status == 503).then_some("abort=503");
        assert_eq!((got.status, got.header("x-goms-fault")), (status, told), "{path} {headers}");
        let (start, end) = (door.event().await, door.event().await);
        assert_eq!((mark(&start).as_deref(), mark(&end).as_deref(), end.status), (told, told, Some(status)));
        if status == 503 {
            assert_eq!(got.json()["msg"], "`faults` of this route made this error on purpose");
        }
    }
    assert_eq!(origin.seen().len(), 3, "no service is asked");
    let metrics = door.metrics.render();
    let counted = r#"goms_faults_injected_total{action="login",fault="abort",service="user"} 1"#;
    assert!(metrics.contains(counted), "{metrics}");
}

#[tokio::test]
async fn a_share_is_delayed_and_goes_on() {
    let origin = Origin::echo().await;
    let door = door(TEXT, &[("user", origin.address)]);
    let mut struck = 0;
    for _ in 0..10 {
        let got = door.ask("GET", "/api/user/register", "X-Fault: any\r\n", "").await;
        assert_eq!(got.status, 200);
        struck += usize::from(got.header("x-goms-fault") == Some("delay=1ms"));
    }
    assert_eq!((struck, origin.seen().len()), (5, 10));
}

#[tokio::test]
async fn they_follow_the_config() {
    let origin = Origin::echo().await;
    let door = door(TEXT, &[("user", origin.address)]);
    let ask = async || door.ask("GET", "/api/user/login", "X-Fault: down\r\n", "").await.status;
    assert_eq!(ask().await, 503);
    let mut settings = door.live.settings();
    let faults = login(&mut settings).terms.faults.take();
    door.live.replace(settings.clone());
    assert_eq!(ask().await, 200);
    login(&mut settings).terms.faults =
        faults.map(|faults| goms::gateway::faults::Faults { abort: Some(418), ..faults });
    door.live.replace(settings);
    assert_eq!(ask().await, 418);
}

#[tokio::test]
async fn nobody_else_says_so_for_the_gateway() {
    let origin = Origin::answering(answer("200 OK", "X-Goms-Fault: abort=500\r\n", "{}")).await;
    let mut door = door(TEXT, &[("user", origin.address)]);
    let got = door.ask("GET", "/api/user/login", "X-Goms-Fault: abort=500\r\n", "").await;
    assert_eq!((got.status, got.header("x-goms-fault")), (200, None));
    let (start, end) = (door.event().await, door.event().await);
    assert_eq!((mark(&start), mark(&end)), (None, None));
    assert_eq!(origin.only().header("x-goms-fault"), None);
    let got = door.ask("GET", "/api/user/register", "X-Fault: a\r\nX-Goms-Fault: abort=500\r\n", "").await;
    assert_eq!(got.header("x-goms-fault"), Some("delay=1ms"));
    assert_eq!(mark(&door.event().await).as_deref(), Some("delay=1ms"));
}
