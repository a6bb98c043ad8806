//! The pages of the admin port, read as a person reads them: in a headless Chromium, on real traffic.

mod frame;
mod graph;
mod jaeger;
mod login;
mod nodes;
mod openapi;
mod overview;
mod paint;
mod playground;
mod routes;
mod slow;
mod traces;

use crate::support::goms::{Folder, Goms};

/// A whole cluster in one process, with the addresses of its gateway and its admin port.
pub struct Up {
    /// The process.
    pub goms: Goms,
    /// Its folder, for `goms` commands that read it.
    pub folder: Folder,
    /// `host:port` of the gateway.
    pub gateway: String,
    /// `host:port` of the admin port.
    pub admin: String,
}

impl Up {
    /// Starts it with `goms up` and these flags besides.
    pub fn start(flags: &[&str]) -> Self {
        let folder = Folder::new();
        let mut args = vec!["up", "--http-port", "0", "--rpc-port", "0", "--admin-port", "0"];
        args.extend(flags);
        let goms = Goms::start_in(folder.path(), &args);
        let address = |line: String| {
            let url = line.split_whitespace().find(|word| word.starts_with("http://")).expect("an address").to_owned();
            url.trim_start_matches("http://").trim_end_matches('/').to_owned()
        };
        let gateway = address(goms.wait_for("  gateway         http://"));
        let admin = address(goms.wait_for("  dashboard       http://"));
        Self { goms, folder, gateway, admin }
    }

    /// The address of a page.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.admin)
    }
}

/// Starts `goms` with a free admin port; gives its address on this machine, which the debug log tells.
pub fn with_admin(folder: &Folder, args: &[&str]) -> (Goms, String) {
    let mut command = crate::support::goms::command(folder.path(), args);
    command.env("RUST_LOG", "goms=debug");
    let goms = Goms::spawn(command);
    let line = goms.wait_for("admin port address=");
    let port = line.trim_end().rsplit(':').next().expect("a port").to_owned();
    (goms, format!("127.0.0.1:{port}"))
}

/// Waits until the four events of a request through the gateway are stored.
pub fn traces_of(up: &Up, id: &str) {
    let deadline = std::time::Instant::now() + crate::support::goms::PATIENCE;
    loop {
        let search = ["trace", "search", "--request-id", id, "--output", "json"];
        let found = crate::support::goms::run(up.folder.path(), &search);
        if String::from_utf8_lossy(&found.stdout).matches("request.end").count() > 0 {
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the events of {id} were not stored");
    }
}
