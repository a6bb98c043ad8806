//! Active health checks: an unwell node gets nothing, whether or not a request found out.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use goms::upstream::HealthChecks;

use super::rules::door;
use super::*;
use crate::support::origin::{Origin, Reply, answer, echo};

const CONFIG: &str = r#"
callServiceKey: k
services: { user: { login: /login } }
upstreams: { user: { health: { path: /healthz, every: 20ms, timeout: 300ms, failures: 2 }, ejection: off } }
"#;

/// A node that is well while the switch says so, and answers other requests in any case.
async fn node_with(well: &Arc<AtomicBool>) -> Origin {
    let well = well.clone();
    Origin::start(move |seen, _| match (seen.target.as_str(), well.load(Ordering::Relaxed)) {
        ("/healthz", true) => Reply::Bytes(answer("204 No Content", "", "")),
        ("/healthz", false) => Reply::Bytes(answer("503 Service Unavailable", "", "")),
        _ => Reply::Bytes(echo(seen)),
    })
    .await
}

fn requests(origin: &Origin) -> usize {
    origin.seen().iter().filter(|seen| seen.target != "/healthz").count()
}

fn unwell(door: &Door) -> usize {
    door.balancer.view().iter().flat_map(|service| &service.nodes).filter(|node| node.is_unwell).count()
}

async fn checking(door: &Door) -> HealthChecks {
    let checks = HealthChecks::default();
    checks.configure(door.live.settings().health(), Some("k".to_owned()));
    checks.start(door.balancer.clone(), &door.background);
    checks
}

#[tokio::test]
async fn an_unwell_node_gets_nothing_until_it_is_well_again() {
    let work = async {
        let (one_well, other_well) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
        let (one, other) = (node_with(&one_well).await, node_with(&other_well).await);
        let door = door(CONFIG, &[("user", one.address), ("user", other.address)]);
        let checks = checking(&door).await;
        wait_for("both to be asked", || !one.seen().is_empty() && !other.seen().is_empty()).await;
        let asked = one.seen().into_iter().next().unwrap();
        assert_eq!((asked.method.as_str(), asked.header("call-service-key")), ("GET", Some("k")));

        one_well.store(false, Ordering::Relaxed);
        wait_for("one to be unwell", || unwell(&door) == 1).await;
        let before = requests(&one);
        for _ in 0..6 {
            assert_eq!(door.get().await.status, 200);
        }
        assert_eq!((requests(&one), requests(&other)), (before, 6));
        let page = door.ask("GET", "/cluster", "", "").await.json();
        assert_eq!(page["services"]["user"]["Unwell"].as_array().map(Vec::len), Some(1), "{page}");

        // with nobody well, better one that may not be than none
        other_well.store(false, Ordering::Relaxed);
        wait_for("both to be unwell", || unwell(&door) == 2).await;
        for _ in 0..4 {
            assert_eq!(door.get().await.status, 200);
        }
        one_well.store(true, Ordering::Relaxed);
        wait_for("one to be well", || unwell(&door) == 1).await;
        let before = requests(&other);
        for _ in 0..4 {
            assert_eq!(door.get().await.status, 200);
        }
        assert_eq!(requests(&other), before);

        // whom nobody asks any more is as well as any
        checks.configure(std::collections::HashMap::new(), None);
        wait_for("nobody to be unwell", || unwell(&door) == 0).await;
    };
    tokio::task::LocalSet::new().run_until(work).await;
}

#[tokio::test]
async fn one_that_hangs_is_unwell_and_one_bad_answer_is_not() {
    let work = async {
        let hangs = Origin::start(|_, _| Reply::Never).await;
        let count = Arc::new(AtomicUsize::new(0));
        let counted = count.clone();
        let stumbles = Origin::start(move |_, _| {
            let bad = counted.fetch_add(1, Ordering::Relaxed) % 2 == 1;
            Reply::Bytes(answer(if bad { "500 Oh" } else { "200 OK" }, "", ""))
        })
        .await;
        let door = door(CONFIG, &[("user", hangs.address), ("user", stumbles.address)]);
        let _checks = checking(&door).await;
        wait_for("the one that hangs", || unwell(&door) == 1).await;
        wait_for("many answers of the other", || count.load(Ordering::Relaxed) > 20).await;
        let view = door.balancer.view();
        let unwell: Vec<_> = view[0].nodes.iter().filter(|node| node.is_unwell).collect();
        assert_eq!(unwell.len(), 1);
        assert_eq!(unwell[0].node.id.http.socket(), Some(hangs.address));
    };
    tokio::task::LocalSet::new().run_until(work).await;
}
