use super::*;

/// Node `port` with what it says of itself.
fn said(port: u16, change: impl FnOnce(&mut NodeMeta)) -> Node {
    let mut node = node(port);
    change(&mut node.meta);
    node
}

/// Nodes 1, 2, … with these weights.
fn weighing(weights: &[u32]) -> Vec<Node> {
    (1..).zip(weights).map(|(port, &weight)| said(port, |meta| meta.weight = weight)).collect()
}

fn weighted(selector: Selector, weights: &[u32]) -> Cluster {
    let cluster = Cluster::new(selector, &[]);
    cluster.set(weighing(weights));
    cluster
}

impl Cluster {
    /// How many of so many picks went to each of the first ports.
    fn shares<const N: usize>(&self, picks: usize) -> [usize; N] {
        let mut shares = [0; N];
        self.ports(picks).into_iter().for_each(|port| shares[usize::from(port) - 1] += 1);
        shares
    }

    fn clients_of(&self) -> Vec<u16> {
        let client = |last: u16| IpAddr::V4(Ipv4Addr::new(10, 0, (last / 256) as u8, (last % 256) as u8));
        let local = self.balancer.local();
        (0..600).map(|last| port(&local.pick("user", Kind::Http, Some(client(last)), &[]).unwrap())).collect()
    }
}

#[test]
fn weighted_turns_are_smooth_and_the_page_foretells_them() {
    let cluster = weighted(Selector::RoundRobin, &[5, 1, 1]);
    for expected in [1, 1, 2, 1, 3, 1, 1].repeat(2) {
        assert_eq!(cluster.poll_next() + 1, usize::from(expected));
        assert_eq!(cluster.ports(1), [expected]);
    }
    assert_eq!(port(&cluster.pick(&[1]).unwrap()), 2, "a retry takes turns among the others");
    cluster.set(vec![node(1), node(2), node(3)]);
    let even = cluster.ports(3);
    assert_eq!(cluster.ports(6), even.repeat(2), "equal again, strictly in turn");
}

#[test]
fn equal_weights_are_exact_whatever_they_are_and_absurd_ones_are_bounded() {
    assert_eq!(weighted(Selector::RoundRobin, &[7, 7, 7]).ports(4), [1, 2, 3, 1]);
    assert_eq!(weighted(Selector::RoundRobin, &[0, u32::MAX]).shares(1001), [1, 1000]);
}

#[test]
fn a_weighted_turn_goes_on_when_the_others_change() {
    let cluster = weighted(Selector::RoundRobin, &[3, 1]);
    assert_eq!(cluster.ports(2), [1, 1]);
    cluster.set(weighing(&[3, 1, 1]));
    assert_eq!(cluster.ports(3), [2, 1, 3], "2 had waited longest");
}

#[test]
fn every_picker_weighs() {
    assert_eq!(weighted(Selector::Random, &[4, 1]).shares(1000), [817, 183], "by its seed; 800 and 200 expected");
    let least = weighted(Selector::LeastConn, &[3, 1]);
    let held: Vec<_> = (0..8).map(|_| least.pick(&[]).unwrap()).collect();
    assert_eq!(held.iter().filter(|permit| port(permit) == 1).count(), 6);
    let p2c = weighted(Selector::P2c, &[3, 1]);
    let held: Vec<_> = (0..8).map(|_| p2c.pick(&[]).unwrap()).collect();
    assert_eq!(held.iter().filter(|permit| port(permit) == 1).count(), 6);
}

#[test]
fn heavier_nodes_have_more_clients_and_a_change_moves_only_those_it_must() {
    let cluster = weighted(Selector::SourceHash, &[1, 1, 1]);
    let even = cluster.clients_of();
    cluster.set(weighing(&[2, 1, 1]));
    let heavy = cluster.clients_of();
    assert!(even.iter().zip(&heavy).all(|(before, after)| before == after || *after == 1));
    let of = |clients: &[u16], node| clients.iter().filter(|port| **port == node).count();
    assert!((260..340).contains(&of(&heavy, 1)), "{} of 600, 300 expected", of(&heavy, 1));
    assert!((160..240).contains(&of(&even, 1)), "{} of 600, 200 expected", of(&even, 1));
}

#[test]
fn p2c_takes_the_faster_one_and_not_one_that_fails_fast() {
    let cluster = Cluster::new(Selector::P2c, &[1, 2]);
    let answer = |tried: &[u16], ms: u64, fails: bool| {
        let permit = cluster.pick(tried).unwrap();
        cluster.wait_ms(ms);
        if fails { permit.refused() } else { permit.answered(200) }
    };
    answer(&[2], 30, false);
    answer(&[1], 10, false);
    assert_eq!(cluster.ports(3), [2, 2, 2]);
    let held: Vec<_> = (0..8).map(|_| cluster.pick(&[]).unwrap()).collect();
    let fast = held.iter().filter(|permit| port(permit) == 2).count();
    assert_eq!(fast, 6, "three times as fast, three times as many at once");
    drop(held);
    answer(&[1], 0, true);
    assert_eq!(cluster.ports(3), [1, 1, 1]);
    cluster.wait_ms(120_000);
    answer(&[2], 30, false);
    assert_eq!(cluster.ports(1), [2], "what was long ago is forgotten");
}

#[test]
fn nodes_of_another_version_or_zone_get_nothing() {
    let settings = Settings { version: Some("2".into()), zone: Some("a".into()), ..Settings::default() };
    let cluster = Cluster::with(settings, &[1]);
    let node = |port, version: &str, zone: &str| {
        said(port, |meta| (meta.version, meta.zone) = (version.to_owned(), zone.to_owned()))
    };
    assert_eq!(cluster.pick(&[]).err(), Some(PickError::NoNode("user".into())));
    cluster.set(vec![node(1, "2", "b"), node(2, "2", "a"), node(3, "1", "a"), node(4, "2", "a")]);
    assert_eq!(cluster.ports(4), [2, 4, 2, 4]);
    assert_eq!(cluster.poll_next(), 1);
    assert_eq!(port(&cluster.pick(&[2, 4]).unwrap()), 2);
}

#[test]
fn near_nodes_come_first_while_one_can_be_called() {
    let zones = |zones: &[&str]| -> Vec<Node> {
        (1..).zip(zones).map(|(port, zone)| said(port, |meta| meta.zone = (*zone).to_owned())).collect()
    };
    let cluster = Cluster::with(Settings { near_zone: Some("a".into()), ..Settings::default() }, &[]);
    cluster.set(zones(&["b", "a", "", "a"]));
    assert_eq!((cluster.poll_next(), cluster.ports(3)), (1, vec![2, 4, 2]));
    assert_eq!(port(&cluster.pick(&[2]).unwrap()), 4);
    assert_eq!(port(&cluster.pick(&[2, 4]).unwrap()), 1, "rather far than twice the same");
    (0..5).for_each(|_| cluster.pick(&[4]).unwrap().failed());
    assert_eq!(cluster.ports(2), [4, 4], "2 is ejected");
    (0..5).for_each(|_| cluster.pick(&[2]).unwrap().failed());
    assert!(cluster.ports(4).iter().all(|port| [1, 3].contains(port)), "both near ones are");
    let nowhere = Cluster::with(Settings { near_zone: Some(String::new()), ..Settings::default() }, &[]);
    nowhere.set(zones(&["b", "", "a"]));
    assert_eq!(nowhere.ports(3), [1, 2, 3]);
}

#[test]
fn a_new_node_gets_a_growing_share() {
    let settings = Settings { slow_start: Some(Duration::from_secs(10)), ..Settings::default() };
    let cluster = Cluster::with(settings, &[1]);
    cluster.set(vec![node(1), node(2)]);
    assert_eq!(cluster.shares(110), [100, 10], "a tenth at first");
    cluster.wait_ms(5_000);
    assert_eq!(cluster.shares(150), [100, 50]);
    cluster.wait_ms(5_000);
    let even = cluster.ports(2);
    assert_eq!(cluster.ports(4), even.repeat(2), "exact again");
    (0..5).for_each(|_| cluster.pick(&[1]).unwrap().failed());
    cluster.wait_ms(10_000);
    cluster.pick(&[1]).unwrap().answered(200);
    assert_eq!(cluster.shares(110), [100, 10], "back from its ejection");
}

#[test]
fn nodes_that_came_together_and_those_that_were_there_share_alike() {
    let slow = || Settings { slow_start: Some(Duration::from_secs(10)), ..Settings::default() };
    assert_eq!(Cluster::with(slow(), &[1, 2, 3]).ports(4), [1, 2, 3, 1]);
    let cluster = Cluster::with(slow(), &[]);
    cluster.set(vec![node(1), node(2), node(3)]);
    assert_eq!(cluster.ports(4), [1, 2, 3, 1]);
}
