//! Large messages: memory stays bounded, and none is lost for it.

use std::sync::atomic::Ordering;

use super::Bench;
use crate::support::events::{Mood, event, run, until};
use crate::support::goms::{Folder, Goms};
use crate::support::rabbitmq::{Client, RabbitMq};
use crate::support::slow;
use lapin::options::QueueDeclareOptions;

const MIB: usize = 1 << 20;

/// An event whose body has so many bytes.
fn large(number: u64, bytes: usize) -> Vec<u8> {
    let mut event = event(number);
    let info = std::sync::Arc::make_mut(&mut event.request);
    info.body = format!("\"{}\"", "x".repeat(bytes)).into();
    event.to_json()
}

fn metric(bench: &Bench, name: &str) -> usize {
    let text = bench.metrics.render();
    let line = text.lines().find(|line| line.starts_with(&format!("{name} ")));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or(0)
}

#[test]
fn what_finds_no_room_comes_again_and_nothing_is_lost() {
    run(async {
        let Some(mut bench) = Bench::new(Mood::Away).await else { return };
        bench.settings.max_bytes = 8 * MIB;
        for number in 0..40 {
            bench.client.publish(&bench.queue, &large(number, MIB)).await;
            bench.client.publish(&bench.queue, &event(number).to_json()).await;
        }
        bench.client.publish(&bench.queue, &large(99, 6 * MIB)).await; // fits nowhere beside others
        let running = bench.start();
        until("some found no room", || metric(&bench, "goms_consumer_given_up_messages_total") > 0).await;
        bench.store.set(Mood::Works);
        let mut most = 0;
        until("all are stored", || {
            most = most.max(metric(&bench, "goms_consumer_unacknowledged_bytes"));
            bench.store.count() == 81
        })
        .await;
        assert!(most <= 8 * MIB, "{most} bytes"); // the largest, alone, lies in twice its size
        bench.until_ready(0).await;
        until("all are settled", || metric(&bench, "goms_consumer_unacknowledged_messages") == 0).await;
        assert_eq!(bench.store.again.load(Ordering::Relaxed), 0, "none was stored twice");
        bench.end(running).await;
    });
}

/// The largest of a process's memory, in MiB.
fn peak_mib(goms: &Goms) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{}/status", goms.pid())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") >> 10
}

/// A hundred messages of 12 MiB, of which the prefetch takes all, while the store is away: the worst that can be.
#[test]
fn the_memory_of_a_consumer_stays_near_its_bound() {
    if !slow() {
        return;
    }
    let Some(server) = RabbitMq::start() else { return };
    let folder = Folder::new();
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port"); // never accepted
    let es = closed.local_addr().expect("an address");
    drop(closed);
    let config = folder.write("config.yml", &format!("amqpAddr: \"{}\"\nesAddr: \"http://{es}\"\n", server.url()));
    run(async {
        let client = Client::connect(&server.url()).await;
        client.declare("trace", QueueDeclareOptions::durable()).await;
        for number in 0..100 {
            client.publish("trace", &large(number, 12 * MIB)).await;
        }
        let goms = Goms::start_in(folder.path(), &["trace-consumer", "--bind", "127.0.0.1", "--config", &config]);
        goms.wait_for("the trace store takes nothing now");
        let give_up = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while client.look("trace").await.expect("the queue").0 > 0 {
            assert!(std::time::Instant::now() < give_up, "the prefetch does not take all");
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        // the client has read what the broker sent when a few rounds of giving back have passed
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let peak = peak_mib(&goms);
        eprintln!("peak of a consumer with 100 messages of 12 MiB and `maxBytes` 128 MiB: {peak} MiB");
        assert!(peak < 128 + 128, "{peak} MiB");
        goms.kill();
    });
}
