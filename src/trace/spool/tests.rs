//! The task's state without its loop and without a transport: a test tells what became of what was sent.

use super::*;
use crate::registry::Publisher;
use crate::trace::transport::scripted::Scripted;
use crate::trace::transport::{Away, Limits, Progress, Refused};
use crate::trace::{Message, Transport};

const LIMITS: Limits = Limits { flights: 4, flight_batches: 1, flight_bytes: usize::MAX, bytes: 1 << 20 };

fn settings(root: &std::path::Path) -> Settings {
    Settings {
        sample: 1.0,
        slow: Duration::from_secs(1),
        body_bytes: 1024,
        redact: super::super::Redact::default(),
        spool_bytes: 1 << 20,
        spool_dir: root.to_owned(),
        flush_interval: Duration::from_millis(100),
        message: Message::Batch,
        transport: Transport::Direct { call_key: crate::call_key::SigningKey::default() },
        otlp: None,
    }
}

fn spool_with(settings: &Settings, limits: Limits) -> Spool {
    let carrier = Carrier::Scripted(Scripted { limits, sent: Vec::new() });
    Spool::open(settings, (mpsc::channel(1).1, None), carrier, &Metrics::new()).unwrap()
}

fn spool(root: &std::path::Path) -> Spool {
    spool_with(&settings(root), LIMITS)
}

/// Batches of one event each wait in memory.
fn record(spool: &mut Spool, numbers: std::ops::Range<usize>) {
    for number in numbers {
        assert!(!spool.open.push(format!("{{\"n\":{number}}}").as_bytes(), Instant::now()));
        spool.seal();
    }
}

/// The numbers of the events that were handed over since the last look.
fn sent(spool: &mut Spool) -> Vec<usize> {
    spool.fill_window();
    let Carrier::Scripted(scripted) = &mut spool.carrier else { panic!("another carrier") };
    let texts = scripted.sent.drain(..).flatten().map(|batch| String::from_utf8(batch.json.to_vec()).unwrap());
    let numbers = texts.flat_map(|text| {
        let events: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        events.into_iter().map(|event| usize::try_from(event["n"].as_u64().unwrap()).unwrap()).collect::<Vec<_>>()
    });
    numbers.collect()
}

fn delivered(spool: &mut Spool, count: usize) {
    spool.settle(Ok(Progress { delivered: count, refused: Vec::new() }));
}

/// A failure whose wait is over.
fn fails(spool: &mut Spool) {
    spool.settle(Err(Away { reason: "test".into(), wait: Duration::ZERO, told: true }));
    assert!(spool.retry_at.is_some() && spool.window.is_empty());
    spool.retry_at = Some(Instant::now());
}

/// Events delivered and dropped so far.
fn counts(spool: &mut Spool) -> (u64, u64) {
    spool.account();
    (spool.instruments.delivered.get(), spool.instruments.dropped.get())
}

#[test]
fn the_window_is_filled_in_order_and_goes_on_as_the_oldest_are_confirmed() {
    let root = tempfile::tempdir().unwrap();
    let mut spool = spool(root.path());
    record(&mut spool, 0..10);
    assert_eq!(sent(&mut spool), [0, 1, 2, 3]);
    assert!(sent(&mut spool).is_empty(), "it is full");
    delivered(&mut spool, 1);
    assert_eq!(sent(&mut spool), [4]);
    delivered(&mut spool, 3);
    assert_eq!(sent(&mut spool), [5, 6, 7]);
    delivered(&mut spool, 4);
    assert_eq!(sent(&mut spool), [8, 9]);
    delivered(&mut spool, 2);
    assert_eq!((sent(&mut spool), counts(&mut spool)), (vec![], (10, 0)));
    assert!(spool.is_done() && spool.memory_bytes == 0 && spool.window_bytes == 0);
}

#[test]
fn bytes_bound_the_window_too_and_a_delivery_takes_several_batches() {
    let root = tempfile::tempdir().unwrap();
    let limits = Limits { flights: 9, flight_batches: 2, flight_bytes: usize::MAX, bytes: 30 };
    let mut spool = spool_with(&settings(root.path()), limits);
    record(&mut spool, 0..10); // 9 bytes each
    assert_eq!(sent(&mut spool), [0, 1, 2, 3], "the delivery that passes the bytes is the last");
    delivered(&mut spool, 1);
    assert_eq!((sent(&mut spool), counts(&mut spool)), (vec![4, 5], (2, 0)));
}

#[test]
fn after_a_failure_all_in_flight_is_sent_again_in_order() {
    let root = tempfile::tempdir().unwrap();
    let mut spool = spool(root.path());
    record(&mut spool, 0..6);
    assert_eq!(sent(&mut spool), [0, 1, 2, 3]);
    delivered(&mut spool, 1);
    fails(&mut spool);
    assert_eq!(sent(&mut spool), [1, 2, 3, 4]);
    spool.persist(None);
    assert_eq!(spool.memory_bytes, 0);
    fails(&mut spool);
    assert_eq!(sent(&mut spool), [1, 2, 3, 4], "from disk now");
    delivered(&mut spool, 4);
    assert_eq!(sent(&mut spool), [5]);
    delivered(&mut spool, 1);
    assert_eq!(counts(&mut spool), (6, 0));
    assert!(spool.is_done() && spool.disk.is_empty());
}

#[test]
fn what_gets_old_in_flight_is_written_in_its_order_and_a_late_confirmation_counts() {
    let root = tempfile::tempdir().unwrap();
    let mut spool = spool(root.path());
    record(&mut spool, 0..6);
    assert_eq!(sent(&mut spool), [0, 1, 2, 3]);
    delivered(&mut spool, 1);
    spool.persist(None);
    assert_eq!((spool.disk.events(), spool.oldest()), (5, None), "1, 2, 3 in flight, then 4, 5");
    assert_eq!(sent(&mut spool), [4]);
    record(&mut spool, 6..8);
    delivered(&mut spool, 2);
    assert_eq!((sent(&mut spool), spool.disk.events()), (vec![5, 6], 3));
    // 6 is in flight from memory, behind 3, 4, 5 from disk
    spool.persist(None);
    assert_eq!(spool.disk.events(), 5);
    fails(&mut spool);
    assert_eq!(sent(&mut spool), [3, 4, 5, 6]);
    delivered(&mut spool, 4);
    assert_eq!(sent(&mut spool), [7]);
    delivered(&mut spool, 1);
    assert_eq!(counts(&mut spool), (8, 0));
    assert!(spool.is_done() && spool.disk.is_empty());
}

#[test]
fn a_process_that_dies_with_a_full_window_leaves_all_of_it_in_order() {
    let root = tempfile::tempdir().unwrap();
    let mut dying = spool(root.path());
    record(&mut dying, 0..6);
    sent(&mut dying);
    delivered(&mut dying, 2);
    sent(&mut dying);
    dying.persist(None);
    drop(dying); // the lock goes, the files stay
    let mut heir = spool(root.path());
    assert_eq!(sent(&mut heir), [2, 3, 4, 5]);
}

#[test]
fn what_the_cap_takes_in_flight_counts_as_delivered_or_dropped_and_never_as_both() {
    for arrives in [true, false] {
        let root = tempfile::tempdir().unwrap();
        let mut settings = settings(root.path());
        settings.spool_bytes = 2048;
        let mut spool = spool_with(&settings, LIMITS);
        record(&mut spool, 0..10);
        spool.persist(None);
        assert_eq!(sent(&mut spool), [0, 1, 2, 3]);
        record(&mut spool, 10..500);
        spool.persist(None);
        if arrives {
            delivered(&mut spool, 4);
        } else {
            fails(&mut spool);
        }
        let mut next = sent(&mut spool);
        while let Some(&last) = next.last() {
            assert_eq!(next.len(), 4.min(next.len()));
            assert!(next[0] > 9 && next.windows(2).all(|pair| pair[1] == pair[0] + 1), "{next:?}");
            delivered(&mut spool, next.len());
            next = sent(&mut spool);
            assert!(!next.is_empty() || last == 499, "{last}");
        }
        let (delivered, dropped) = counts(&mut spool);
        assert_eq!(delivered + dropped, 500, "{delivered} delivered, {dropped} dropped");
        assert!(spool.is_done());
    }
}

#[test]
fn an_ended_process_is_inherited_from_once_the_window_is_empty() {
    let root = tempfile::tempdir().unwrap();
    let mut living = spool(root.path());
    let mut dying = spool(root.path());
    record(&mut living, 0..8);
    assert_eq!(sent(&mut living), [0, 1, 2, 3]);
    living.adopt_at = Some(Instant::now());
    delivered(&mut living, 1);
    assert_eq!(sent(&mut living), [4], "nobody has died: it goes on");
    record(&mut dying, 100..102);
    dying.persist(None);
    drop(dying);
    living.adopt_at = Some(Instant::now());
    delivered(&mut living, 1);
    assert!(sent(&mut living).is_empty(), "the window empties");
    living.persist(None); // 2, 3, 4 in flight, 5, 6, 7: all stand before what is adopted
    delivered(&mut living, 3);
    assert_eq!(sent(&mut living), [5, 6, 7, 100]);
    delivered(&mut living, 4);
    assert_eq!(sent(&mut living), [101]);
    delivered(&mut living, 1);
    assert_eq!(counts(&mut living), (10, 0));
    assert!(living.is_done());
}

#[test]
fn refused_events_are_not_counted_as_delivered() {
    let root = tempfile::tempdir().unwrap();
    let mut spool = spool(root.path());
    record(&mut spool, 0..2);
    sent(&mut spool);
    let refused = Refused { event: bytes::Bytes::from_static(b"{\"n\":1}"), reason: "test".into() };
    spool.settle(Ok(Progress { delivered: 2, refused: vec![refused] }));
    assert_eq!(counts(&mut spool), (1, 0));
}

#[test]
fn nothing_is_tried_again_once_what_waited_on_disk_was_deleted() {
    let root = tempfile::tempdir().unwrap();
    let carrier = Carrier::new(&settings(root.path()), Publisher::new().subscribe()).unwrap();
    let mut spool = Spool::open(&settings(root.path()), (mpsc::channel(1).1, None), carrier, &Metrics::new()).unwrap();
    assert!(!spool.open.push(b"{}", Instant::now()));
    spool.persist(None);
    assert!(!spool.disk.is_empty());
    for entry in std::fs::read_dir(root.path()).unwrap() {
        for file in std::fs::read_dir(entry.unwrap().path()).unwrap() {
            std::fs::remove_file(file.unwrap().path()).unwrap();
        }
    }
    // a delivery failed before, and its wait is over
    (spool.away, spool.retry_at) = (true, Some(Instant::now() - Duration::from_millis(1)));
    spool.fill_window();
    spool.tick();
    assert!(spool.window.is_empty() && spool.disk.is_empty());
    // a time in the past would make the loop spin on its core
    assert!(spool.next_deadline().is_none_or(|at| at > Instant::now()));
}
