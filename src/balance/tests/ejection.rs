use super::*;
use crate::balance::Ejection;

fn ejecting(change: impl FnOnce(&mut Ejection), ports: &[u16]) -> Cluster {
    let mut ejection = Ejection::default();
    change(&mut ejection);
    Cluster::with(Settings { ejection: Some(ejection), ..Settings::default() }, ports)
}

impl Cluster {
    /// Goes round until every node was tried `times` more: those of `bad` fail, the others answer.
    fn rounds(&self, times: usize, bad: &[u16]) {
        let nodes = self.balancer.view()[0].nodes.len();
        for _ in 0..times * nodes {
            let permit = self.pick(&[]).unwrap();
            if bad.contains(&port(&permit)) { permit.failed() } else { permit.answered(200) }
        }
    }

    /// The ports of ejected nodes with how many milliseconds they are still out.
    fn out(&self) -> Vec<(u16, u64)> {
        let nodes = self.balancer.view().remove(0).nodes;
        let out = nodes.iter().filter_map(|node| Some((node.node.id.http.port.unwrap(), node.ejected_for?)));
        out.map(|(port, left)| (port, left.as_millis() as u64)).collect()
    }
}

#[test]
fn five_failures_in_a_row_eject_a_node_and_a_success_between_does_not() {
    let cluster = ejecting(|_| {}, &[1, 2, 3]);
    cluster.rounds(4, &[2]);
    cluster.rounds(1, &[]);
    cluster.rounds(4, &[2]);
    assert_eq!(cluster.out(), []);
    cluster.rounds(1, &[2]);
    assert_eq!(cluster.out(), [(2, 10_000)]);
    assert_eq!(cluster.ports(4), [1, 3, 1, 3]);
    assert_eq!(cluster.poll_next(), 0);
    cluster.ports(1);
    assert_eq!(cluster.poll_next(), 2, "the page shows who is next in truth");
    let metrics = cluster.metrics.render();
    assert!(metrics.contains("goms_ejections_total{service=\"user\"} 1\n"), "{metrics}");
}

#[test]
fn every_kind_of_failure_counts_and_a_status_only_where_it_is_named() {
    let cluster = ejecting(|ejection| ejection.statuses = vec![500..=599], &[1, 2]);
    let fail: [fn(&Permit); 5] = [
        |permit| permit.refused(),
        |permit| permit.failed(),
        |permit| permit.answered(503),
        |permit| {
            permit.answered(200);
            permit.failed(); // the body broke off
        },
        |permit| {
            permit.failed();
            permit.failed(); // once a try
        },
    ];
    for (number, fail) in fail.iter().enumerate() {
        assert_eq!((number, cluster.out()), (number, vec![]));
        fail(&cluster.pick(&[2]).unwrap());
        cluster.pick(&[1]).unwrap().answered(404);
    }
    assert_eq!(cluster.out(), [(1, 10_000)]);
    let plain = ejecting(|_| {}, &[1, 2]);
    (0..20).for_each(|_| plain.pick(&[]).unwrap().answered(503));
    assert_eq!(plain.out(), []);
}

#[test]
fn a_node_returns_by_one_request_at_a_time() {
    let cluster = ejecting(|_| {}, &[1, 2]);
    cluster.rounds(5, &[1]);
    cluster.wait_ms(9_999);
    assert_eq!((cluster.out(), cluster.ports(2)), (vec![(1, 1)], vec![2, 2]));
    cluster.wait_ms(1);
    let trial = cluster.pick(&[]).unwrap();
    assert_eq!((port(&trial), cluster.ports(2)), (1, vec![2, 2]));
    drop(trial); // the client went away: nothing is known
    let trial = cluster.pick(&[]).unwrap();
    assert_eq!((port(&trial), cluster.out()), (1, vec![(1, 0)]));
    trial.answered(200); // its body is still to come
    assert_eq!(cluster.out(), []);
    assert_eq!(cluster.ports(4), [2, 1, 2, 1]);
}

#[test]
fn a_trial_ends_with_the_answers_head() {
    let cluster = ejecting(|_| {}, &[1, 2]);
    cluster.rounds(5, &[1]);
    cluster.wait_ms(10_000);
    let endless = cluster.pick(&[2]).unwrap();
    endless.answered(200);
    cluster.rounds(5, &[1]);
    assert_eq!(cluster.out(), [(1, 20_000)]);
    cluster.wait_ms(20_000);
    cluster.rounds(1, &[]);
    assert_eq!(cluster.out(), [], "tried again while the body of the first trial still comes");
    drop(endless);
}

#[test]
fn repeats_are_longer_until_the_node_did_well_as_long_as_it_was_out() {
    let cluster = ejecting(|_| {}, &[1, 2]);
    cluster.rounds(5, &[1]);
    for times in [2, 3, 4, 5, 6, 7, 8, 9, 10, 10] {
        cluster.wait_ms(cluster.out()[0].1);
        cluster.rounds(1, &[1]); // fails its trial
        assert_eq!(cluster.out(), [(1, times * 10_000)]);
    }
    cluster.wait_ms(100_000);
    cluster.rounds(1, &[]);
    cluster.wait_ms(99_999);
    cluster.rounds(5, &[1]);
    assert_eq!(cluster.out(), [(1, 100_000)], "again too soon");
    cluster.wait_ms(100_000);
    cluster.rounds(1, &[]);
    cluster.wait_ms(100_000);
    cluster.rounds(5, &[1]);
    assert_eq!(cluster.out(), [(1, 10_000)]);
}

#[test]
fn never_more_than_the_share_is_out_and_never_the_last() {
    let cluster = ejecting(|_| {}, &[1, 2, 3, 4, 5]);
    cluster.rounds(20, &[1, 2, 3, 4, 5]);
    assert_eq!(cluster.out().len(), 2, "half of five");
    let alone = ejecting(|ejection| ejection.max_percent = 100, &[1]);
    alone.rounds(20, &[1]);
    assert_eq!((alone.out(), alone.ports(1)), (vec![], vec![1]));
    let all = ejecting(|ejection| ejection.max_percent = 100, &[1, 2, 3]);
    all.rounds(20, &[1, 2, 3]);
    assert_eq!(all.out().len(), 2);
    let few = ejecting(|ejection| ejection.max_percent = 1, &[1, 2, 3]);
    few.rounds(20, &[1, 2]);
    assert_eq!(few.out().len(), 1, "one of several may always be");
}

#[test]
fn an_ejected_node_is_called_rather_than_none_and_by_a_retry_rather_than_the_one_that_failed() {
    let cluster = ejecting(|_| {}, &[1, 2]);
    cluster.rounds(5, &[1]);
    assert_eq!(port(&cluster.pick(&[2]).unwrap()), 1);
    assert_eq!(port(&cluster.pick(&[1, 2]).unwrap()), 2);
    cluster.set(vec![node(1)]);
    assert_eq!((cluster.out(), cluster.ports(1)), (vec![(1, 10_000)], vec![1]));
    let answer = cluster.pick(&[]).unwrap();
    answer.answered(200);
    assert_eq!(cluster.out().len(), 1, "its time is not over");
}

#[test]
fn another_process_at_the_same_address_starts_anew() {
    let cluster = ejecting(|_| {}, &[1, 2]);
    cluster.rounds(5, &[1]);
    let mut again = node(1);
    again.meta.zone = "moved".into();
    cluster.set(vec![again.clone(), node(2)]);
    assert_eq!(cluster.out(), [(1, 10_000)], "the same process said something else of itself");
    again.meta.started_ms = 7;
    cluster.set(vec![again, node(2)]);
    assert_eq!(cluster.out(), []);
}

#[test]
fn an_error_rate_ejects_once_the_window_has_enough_tries() {
    let rate = |ejection: &mut Ejection| (ejection.failures, ejection.error_percent) = (1000, Some(50));
    let cluster = ejecting(rate, &[1, 2]);
    for round in 0..10 {
        assert_eq!((round, cluster.out()), (round, vec![]));
        cluster.rounds(1, &[1]);
        cluster.rounds(1, &[]);
    }
    cluster.rounds(1, &[1]); // 11 of 21
    assert_eq!(cluster.out(), [(1, 10_000)]);
    let slow = ejecting(rate, &[1, 2]);
    for _ in 0..40 {
        slow.rounds(1, &[1]);
        slow.wait_ms(1_000); // never 20 tries in 10 s
    }
    assert_eq!(slow.out(), []);
}

#[test]
fn switched_off_nothing_is_ejected() {
    let cluster = Cluster::with(Settings { ejection: None, ..Settings::default() }, &[1, 2]);
    cluster.rounds(20, &[1]);
    assert_eq!((cluster.out(), cluster.ports(2)), (vec![], vec![1, 2]));
}
