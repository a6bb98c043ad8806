//! Gateways behind another one are restarted one after the other, under load.

use super::{gateway, service, wait_for_nodes};
use crate::support::goms::{Folder, Goms};
use crate::support::http::wait_for_status;
use crate::support::load::Load;
use crate::support::ports::free_port;
use crate::support::slow;

fn behind(folder: &Folder, config: &str, port: &str) -> Goms {
    let args = ["gateway", "--http-port", port, "--rpc-port", "0", "--bind", "127.0.0.1", "--config", config];
    let goms = Goms::start_in(folder.path(), &args);
    goms.wait_for("[gateway] Http Listen on port: ");
    goms
}

#[test]
fn no_request_fails_while_gateways_behind_another_are_restarted() {
    let rounds = if slow() { 5 } else { 1 };
    let (inside, outside) = (Folder::new(), Folder::new());
    let config = inside.write("config.yml", "services: { user: { login: /login } }\n");
    let with = ["--config", config.as_str(), "--access-log=false"];
    let _user = service(&inside, "user", &with);
    let ports: Vec<String> = (0..2).map(|_| free_port().to_string()).collect();
    let mut gateways: Vec<Goms> = ports.iter().map(|port| behind(&inside, &config, port)).collect();
    wait_for_nodes(&inside, "user", 1, &with[..2]);

    let urls = ports.iter().map(|port| format!("\"http://127.0.0.1:{port}\"")).collect::<Vec<_>>().join(", ");
    let front = outside.write("config.yml", &format!("routes: [{{ match: {{ path: \"/*\" }}, urls: [{urls}] }}]\n"));
    let (_front, address) = gateway(&outside, &["--config", &front, "--access-log=false"]);
    wait_for_status(&address, "/api/user/login", 200);
    let reads = Load::start(&address, "GET", "/api/user/login", 4);
    let writes = Load::start(&address, "POST", "/api/user/login", 2);
    reads.wait_for(200);
    for _ in 0..rounds {
        for (place, port) in ports.iter().enumerate() {
            assert_eq!(gateways.remove(place).terminate(), 0);
            reads.wait_for(200);
            gateways.insert(place, behind(&inside, &config, port));
            reads.wait_for(200);
            writes.wait_for(50);
        }
    }
    for load in [reads, writes] {
        let outcomes = load.stop();
        assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
        eprintln!("{outcomes:?}");
    }
}
