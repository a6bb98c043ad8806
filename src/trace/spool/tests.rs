//! The task's state without its loop.

use super::*;
use crate::registry::Publisher;
use crate::trace::{Message, Transport};

fn spool(root: &std::path::Path) -> Spool {
    let settings = Settings {
        sample: 1.0,
        slow: Duration::from_secs(1),
        body_bytes: 1024,
        redact: super::super::Redact::default(),
        spool_bytes: 1 << 20,
        spool_dir: root.to_owned(),
        flush_interval: Duration::from_millis(100),
        message: Message::Batch,
        transport: Transport::Direct { call_key: None },
        otlp: None,
    };
    let carrier = Carrier::new(&settings, Publisher::new().subscribe()).unwrap();
    Spool::open(&settings, (mpsc::channel(1).1, None), carrier, &Metrics::new()).unwrap()
}

#[test]
fn nothing_is_tried_again_once_what_waited_on_disk_was_deleted() {
    let root = tempfile::tempdir().unwrap();
    let mut spool = spool(root.path());
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
    spool.start_delivery();
    spool.tick();
    assert!(spool.in_flight.is_none() && spool.disk.is_empty());
    // a time in the past would make the loop spin on its core
    assert!(spool.next_deadline().is_none_or(|at| at > Instant::now()));
}
