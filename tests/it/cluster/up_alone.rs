//! `goms up` with one instance of a service, whose files change: nobody stands in for it, and no request fails.

use std::time::Duration;

use super::until;
use super::up_services::{PORTS, UP, address, is_alive, shop_folder, stock, write_shop};
use crate::support::goms::{Folder, Goms, run};
use crate::support::http::wait_for_status;
use crate::support::load::Load;
use crate::support::ports::free_port;

const NEW: &str = "the program is new, the one before ends";
/// Python and its imports, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(40);

fn only_good(load: Load) {
    load.wait_for(100);
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().map(String::as_str).collect::<Vec<_>>(), ["200"], "{outcomes:?}");
}

#[test]
fn the_new_one_is_there_before_the_old_one_goes() {
    let folder = shop_folder(&UP.replace("instances: 2", "instances: 1"));
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    let (version, first) = stock(&address);
    assert_eq!(version, "1");
    let load = Load::start(&address, "POST", "/api/shop/stock", 4);
    load.wait_for(100);
    write_shop(folder.path(), "2");
    up.wait_for(NEW);
    assert_eq!(stock(&address).0, "2");
    until("the one before has ended", || (!is_alive(first)).then_some(()));

    // what does not start leaves the one before as it is
    let second = stock(&address).1;
    let broken = "print('half a thought')\nraise SystemError('no')\n";
    std::fs::write(folder.path().join("shop/shop.py"), broken).expect("written");
    up.wait_for("    SystemError: no");
    up.wait_for("[shop#1] the one before goes on");
    assert_eq!(stock(&address), ("2".to_owned(), second));

    write_shop(folder.path(), "3");
    up.wait_for_count(NEW, 2, PATIENCE);
    assert_eq!(stock(&address).0, "3");
    only_good(load);
    assert!(!up.log().contains("the node leaves"), "{}", up.log());
    assert_eq!(up.terminate(), 0);
}

/// The port is the user's, so two cannot have it: requests wait.
#[test]
fn at_a_port_of_its_own_requests_wait() {
    let port = free_port();
    let app = format!("app: 'http://127.0.0.1:{port}'\n      env: {{ STOCK: 10, PORT: {port} }}");
    let config = UP.replace("      instances: 2\n", "").replace("env: { STOCK: 10 }", &app);
    let folder = shop_folder(&config.replace(", '{port}'", ""));
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    assert_eq!(stock(&address).0, "1");
    let load = Load::start(&address, "POST", "/api/shop/stock", 4);
    load.wait_for(100);
    write_shop(folder.path(), "2");
    up.wait_for("the program is new, requests waited meanwhile");
    assert_eq!(stock(&address).0, "2");
    only_good(load);
    assert_eq!(up.terminate(), 0);
}

/// A program with anything else that only one can have: the new one cannot start beside the one before, and the log says what helps.
#[test]
fn of_which_only_one_can_run_ends_first() {
    let alone = UP.replace("instances: 2", "instances: 1").replace("shop.py, '{port}'", "run.py, '{port}'");
    let run = format!(
        "import socket
only = socket.socket()
only.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
only.bind(('127.0.0.1', {}))
only.listen()
exec(open('shop.py').read())
",
        free_port()
    );
    for (config, outcome) in [
        (alone.clone(), "[shop#1] the one before goes on; if only one can run"),
        (alone.replace("instances: 1", "beside: false"), "[shop#1] the program is new, requests waited meanwhile"),
    ] {
        let folder = shop_folder(&config);
        folder.write("shop/run.py", &run);
        let up = Goms::start_in(folder.path(), &PORTS);
        let address = address(&up);
        wait_for_status(&address, "/api/shop/stock", 200);
        assert_eq!(stock(&address).0, "1");
        let load = Load::start(&address, "POST", "/api/shop/stock", 4);
        load.wait_for(100);
        write_shop(folder.path(), "2");
        up.wait_for(outcome);
        let version = if config.contains("beside") { "2" } else { "1" };
        assert_eq!(stock(&address).0, version, "{config}");
        only_good(load);
        assert_eq!(up.terminate(), 0);
    }
}

/// A service that is itself one of goms: it registers, leaves and drains on its own.
#[test]
fn a_node_of_goms_joins_before_the_old_one_leaves() {
    let folder = Folder::new();
    folder.write("touched", "1");
    let goms = env!("CARGO_BIN_EXE_goms");
    let config = format!(
        "services: {{ shop: {{ stock: /stock }} }}
up: {{ services: {{ shop: {{ app: goms, command: ['{goms}', service, shop], watch: [touched] }} }} }}
"
    );
    folder.write("goms.yml", &config);
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    wait_for_status(&address, "/api/shop/stock", 200);
    let nodes = || {
        let told = run(folder.path(), &["cluster", "nodes", "shop", "--output", "json"]).stdout;
        let told: serde_json::Value = serde_json::from_slice(&told).unwrap_or_default();
        told.as_array().cloned().unwrap_or_default()
    };
    let before = nodes();
    assert_eq!(before.len(), 1, "{}", up.log());
    let load = Load::start(&address, "POST", "/api/shop/stock", 4);
    load.wait_for(100);
    folder.write("touched", "2");
    up.wait_for(NEW);
    let after = until("the old one has left", || {
        let now = nodes();
        (now.len() == 1 && now[0]["node"] != before[0]["node"]).then_some(now)
    });
    assert!(after[0]["node"].is_string(), "{after:?}");
    only_good(load);
    assert_eq!(up.terminate(), 0);
}

/// One with a fixed RPC port: the old one leaves first.
#[test]
fn a_node_of_goms_of_which_only_one_can_run_is_another_after_a_change() {
    let folder = Folder::new();
    folder.write("touched", "1");
    let (goms, rpc) = (env!("CARGO_BIN_EXE_goms"), free_port());
    let command = format!("['{goms}', service, shop, --rpc-port, '{rpc}']");
    let config = format!(
        "services: {{ shop: {{ stock: /stock }} }}
up: {{ services: {{ shop: {{ app: goms, command: {command}, watch: [touched], beside: false }} }} }}
"
    );
    folder.write("goms.yml", &config);
    let up = Goms::start_in(folder.path(), &PORTS);
    let address = address(&up);
    wait_for_status(&address, "/api/shop/stock", 200);
    folder.write("touched", "2");
    up.wait_for("[shop#1] the program is new");
    wait_for_status(&address, "/api/shop/stock", 200);
    assert_eq!(up.terminate(), 0);
}
