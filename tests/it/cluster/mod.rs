//! Whole clusters of the built binary, as users run them.

mod app;
mod cli;
mod clients;
mod deploy;
mod doctor;
mod doors;
mod faults;
mod hostile;
mod keys;
mod members;
mod metrics;
mod new;
mod processes;
mod reload;
mod remembered;
mod rolling;
mod rpc;
mod servers;
mod service_manager;
mod service_tls;
mod spans;
mod streams;
mod terms;
mod trace_commands;
mod traces;
mod up;
mod up_alone;
mod up_services;

use std::time::{Duration, Instant};

use crate::support::goms::{Folder, Goms, run};

/// Starts a gateway on free ports and gives it with its address.
fn gateway(folder: &Folder, more: &[&str]) -> (Goms, String) {
    let mut args = vec!["gateway", "--http-port", "0", "--rpc-port", "0", "--bind", "127.0.0.1"];
    args.extend(more);
    let goms = Goms::start_in(folder.path(), &args);
    let address = listening(&goms, "gateway");
    (goms, address)
}

/// Starts a node of the demo service on free ports and gives it with its HTTP address.
fn service(folder: &Folder, name: &str, more: &[&str]) -> (Goms, String) {
    let mut args = vec!["service", name, "--bind", "127.0.0.1"];
    args.extend(more);
    let goms = Goms::start_in(folder.path(), &args);
    let address = listening(&goms, name);
    (goms, address)
}

/// Starts a trace consumer.
fn consumer(folder: &Folder, more: &[&str]) -> Goms {
    let mut args = vec!["trace-consumer", "--bind", "127.0.0.1"];
    args.extend(more);
    let goms = Goms::start_in(folder.path(), &args);
    goms.wait_for("trace consumer is runner");
    goms
}

fn listening(goms: &Goms, service: &str) -> String {
    let line = goms.wait_for(&format!("[{service}] Http Listen on port: "));
    format!("127.0.0.1:{}", line.rsplit(' ').next().expect("a port"))
}

/// Waits until the cluster that `folder` holds has so many ready nodes of `service`.
fn wait_for_nodes(folder: &Folder, service: &str, count: usize, more: &[&str]) {
    let mut args = vec!["cluster", "services", "--output", "json"];
    args.extend(more);
    until(&format!("{count} nodes of {service}"), || {
        let services: serde_json::Value = serde_json::from_slice(&run(folder.path(), &args).stdout).ok()?;
        let ready = services
            .as_array()?
            .iter()
            .find(|row| row["service"] == service)
            .map_or(0, |row| row["ready"].as_u64().unwrap_or(0));
        (ready == count as u64).then_some(())
    });
}

/// Tries until something is there, for 20 s at most.
fn until<T>(what: &str, mut attempt: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = attempt() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not within 20 s");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The stored events of one request, once there are four.
fn four_events(folder: &Folder, request_id: &str, more: &[&str]) -> Vec<serde_json::Value> {
    let mut args = vec!["trace", "show", request_id, "--output", "json"];
    args.extend(more);
    until("four events", || {
        let events: Vec<serde_json::Value> = serde_json::from_slice(&run(folder.path(), &args).stdout).ok()?;
        (events.len() == 4).then_some(events)
    })
}
