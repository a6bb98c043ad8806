use super::*;
use crate::balance::{Breaker, LocalBalancer, NodeLimit};

fn limited(in_flight: usize, queue: usize, ports: &[u16]) -> Cluster {
    let limit = NodeLimit { queue, queue_timeout: Duration::from_secs(30), ..NodeLimit::new(in_flight) };
    Cluster::with(Settings { limit: Some(limit), ..Settings::default() }, ports)
}

fn full<T>() -> Result<T, PickError> {
    Err(PickError::Full("user".into()))
}

impl Cluster {
    fn waiting(&self) -> usize {
        self.balancer.view()[0].waiting
    }

    fn port_of(&self, tried: &[u16]) -> Result<u16, PickError> {
        self.pick(tried).map(|permit| port(&permit))
    }
}

/// Runs a future until it has to wait; what it gives if it does not.
fn poll_once<T>(future: std::pin::Pin<&mut impl Future<Output = T>>) -> Option<T> {
    let mut task = std::task::Context::from_waker(std::task::Waker::noop());
    match future.poll(&mut task) {
        std::task::Poll::Ready(found) => Some(found),
        std::task::Poll::Pending => None,
    }
}

async fn acquire(local: &LocalBalancer) -> Result<Permit, PickError> {
    local.acquire("user", Kind::Http, None, &[]).await
}

#[test]
fn a_node_has_no_more_in_flight_than_it_may_whoever_picks() {
    let cluster = limited(2, 0, &[1, 2]);
    let held: Vec<_> = (0..4).map(|_| cluster.pick(&[]).unwrap()).collect();
    assert_eq!(held.iter().map(port).collect::<Vec<_>>(), [1, 2, 1, 2]);
    assert_eq!(cluster.port_of(&[]), full());
    drop(held);
    let busy = Arc::new(limited(7, 0, &[1]));
    let threads: Vec<_> = (0..4)
        .map(|_| {
            let busy = busy.clone();
            std::thread::spawn(move || (0..200).filter_map(|_| busy.pick(&[]).ok()).collect::<Vec<_>>().len())
        })
        .collect();
    for thread in threads {
        assert!(thread.join().unwrap() <= 7);
    }
    assert_eq!(busy.balancer.view()[0].nodes[0].in_flight, 0);
}

#[test]
fn a_full_node_is_passed_over_but_not_for_one_that_is_ejected_or_was_tried() {
    let cluster = limited(1, 0, &[1, 2, 3]);
    (0..5).for_each(|_| cluster.pick(&[2, 3]).unwrap().failed());
    let two = cluster.pick(&[3]).unwrap();
    assert_eq!((port(&two), cluster.port_of(&[]), cluster.port_of(&[])), (2, Ok(3), Ok(3)));
    let _three = cluster.pick(&[]).unwrap();
    assert_eq!(cluster.port_of(&[]), full(), "1 is ejected");
    drop(two);
    assert_eq!(cluster.port_of(&[2]), full(), "better wait for 3 than meet 2 again");
}

#[tokio::test]
async fn who_waits_is_served_in_turn_and_newcomers_stand_behind() {
    let cluster = limited(1, 2, &[1]);
    let local = cluster.balancer.local();
    let held = cluster.pick(&[]).unwrap();
    let (mut first, mut second) = (Box::pin(acquire(&local)), Box::pin(acquire(&local)));
    assert!(poll_once(first.as_mut()).is_none() && poll_once(second.as_mut()).is_none());
    assert_eq!(cluster.waiting(), 2);
    let third = acquire(&local).await;
    assert_eq!(third.err(), full::<()>().err(), "the queue is full too");
    drop(held);
    assert_eq!(cluster.port_of(&[]), full(), "the room is the first one's");
    let first = poll_once(first.as_mut()).unwrap().unwrap();
    assert!(poll_once(second.as_mut()).is_none());
    drop(first);
    assert!(poll_once(second.as_mut()).unwrap().is_ok());
    assert_eq!((cluster.waiting(), cluster.port_of(&[])), (0, Ok(1)));
}

#[tokio::test]
async fn who_goes_away_loses_no_room_and_a_new_node_makes_some() {
    let cluster = limited(1, 10, &[1]);
    let local = cluster.balancer.local();
    let held = cluster.pick(&[]).unwrap();
    let (mut gone, mut stays) = (Box::pin(acquire(&local)), Box::pin(acquire(&local)));
    assert!(poll_once(gone.as_mut()).is_none() && poll_once(stays.as_mut()).is_none());
    drop(held);
    drop(gone); // it was woken, and does not look
    let held = poll_once(stays.as_mut()).unwrap().unwrap();
    let (mut one, mut two) = (Box::pin(acquire(&local)), Box::pin(acquire(&local)));
    assert!(poll_once(one.as_mut()).is_none() && poll_once(two.as_mut()).is_none());
    cluster.set(vec![node(1), node(2), node(3)]);
    let (one, two) = (poll_once(one.as_mut()).unwrap().unwrap(), poll_once(two.as_mut()).unwrap().unwrap());
    assert_eq!((port(&held), port(&one), port(&two), cluster.waiting()), (1, 2, 3, 0));
}

#[tokio::test]
async fn a_wait_ends_in_time_and_other_errors_at_once() {
    let limit = NodeLimit { in_flight: 1, queue: 5, queue_timeout: Duration::from_millis(20) };
    let breaker = Breaker { failures: 1, open: Duration::from_secs(5) };
    let settings = Settings { limit: Some(limit), breaker: Some(breaker), ..Settings::default() };
    let cluster = Cluster::with(settings, &[1]);
    let local = cluster.balancer.local();
    let held = cluster.pick(&[]).unwrap();
    assert_eq!(acquire(&local).await.err(), full::<()>().err());
    assert_eq!((cluster.waiting(), cluster.balancer.view()[0].request_finish), (0, 1));
    let mut waits = Box::pin(acquire(&local));
    assert!(poll_once(waits.as_mut()).is_none());
    held.failed();
    drop(held);
    let open = Some(Some(PickError::Open { service: "user".into(), retry_after: Duration::from_secs(5) }));
    assert_eq!(poll_once(waits.as_mut()).map(Result::err), open);
}
