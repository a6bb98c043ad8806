use super::*;
use crate::balance::Breaker;

fn guarded(ports: &[u16]) -> Cluster {
    let breaker = Breaker { failures: 6, open: Duration::from_secs(3) };
    Cluster::with(Settings { ejection: None, breaker: Some(breaker), ..Settings::default() }, ports)
}

fn refused(retry_after_ms: u64) -> Option<PickError> {
    Some(PickError::Open { service: "user".into(), retry_after: Duration::from_millis(retry_after_ms) })
}

impl Cluster {
    fn fail(&self, times: usize) {
        (0..times).for_each(|_| self.pick(&[]).unwrap().failed());
    }

    fn open_ms(&self) -> Option<u128> {
        self.balancer.view()[0].breaker_open_for.map(|left| left.as_millis())
    }
}

#[test]
fn it_opens_when_every_node_fails_and_says_for_how_long() {
    let cluster = guarded(&[1, 2, 3]);
    cluster.fail(5);
    cluster.pick(&[]).unwrap().answered(200);
    cluster.fail(5);
    assert_eq!(cluster.open_ms(), None, "a success between");
    cluster.fail(1);
    assert_eq!((cluster.open_ms(), cluster.pick(&[]).err()), (Some(3_000), refused(3_000)));
    cluster.wait_ms(2_500);
    assert_eq!(cluster.pick(&[]).err(), refused(1_000), "never less than a second");
    assert_eq!(cluster.balancer.view()[0].request_finish, 12, "what was refused was not handed on");
    assert!(cluster.metrics.render().contains("goms_breaker_opened_total{service=\"user\"} 1\n"));
}

#[test]
fn one_node_that_fails_does_not_open_it() {
    let cluster = guarded(&[1, 2]);
    cluster.pick(&[2]).unwrap().answered(200);
    cluster.pick(&[1]).unwrap().answered(200);
    for _ in 0..20 {
        cluster.pick(&[2]).unwrap().failed(); // a frozen node's deadlines pass all at once
    }
    assert_eq!(cluster.open_ms(), None);
    cluster.pick(&[1]).unwrap().failed();
    assert_eq!(cluster.open_ms(), Some(3_000));
}

#[test]
fn half_open_one_request_at_a_time_finds_out() {
    let cluster = guarded(&[1]);
    cluster.fail(6);
    cluster.wait_ms(3_000);
    let probe = cluster.pick(&[]).unwrap();
    assert_eq!((cluster.open_ms(), cluster.pick(&[]).err()), (Some(0), refused(1_000)));
    drop(probe); // the client went away
    cluster.pick(&[]).unwrap().failed();
    assert_eq!(cluster.pick(&[]).err(), refused(3_000));
    cluster.wait_ms(3_000);
    let probe = cluster.pick(&[]).unwrap();
    probe.answered(200); // its body is still to come
    assert_eq!(cluster.open_ms(), None);
    cluster.fail(5);
    assert_eq!(cluster.open_ms(), None, "it counts from nothing");
    cluster.fail(1);
    cluster.wait_ms(3_000);
    assert!(cluster.pick(&[]).is_ok(), "another may find out while that body still comes");
    drop(probe);
}

#[test]
fn answers_to_older_requests_neither_close_nor_prolong_it() {
    let cluster = guarded(&[1]);
    let (good, bad) = (cluster.pick(&[]).unwrap(), cluster.pick(&[]).unwrap());
    cluster.fail(6);
    cluster.wait_ms(1_000);
    good.answered(200);
    bad.failed();
    assert_eq!(cluster.open_ms(), Some(2_000));
    cluster.set(vec![]);
    cluster.wait_ms(2_000);
    assert_eq!(cluster.pick(&[]).err(), Some(PickError::NoNode("user".into())));
    cluster.set(vec![node(2)]);
    cluster.pick(&[]).unwrap().answered(200);
    assert_eq!(cluster.open_ms(), None, "who found no node left the way free");
}
