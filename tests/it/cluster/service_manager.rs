//! What systemd is told, by its own protocol: datagrams on the socket that `NOTIFY_SOCKET` names (`sd_notify(3)`).

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

use crate::support::goms::{Folder, Goms, command};

const CONFIG: &str = "services: {user: {login: /login}}\n";

struct Manager {
    socket: UnixDatagram,
}

impl Manager {
    fn new(folder: &Folder) -> Self {
        let socket = UnixDatagram::bind(folder.path().join("notify")).expect("a socket");
        socket.set_read_timeout(Some(Duration::from_secs(20))).expect("a timeout");
        Self { socket }
    }

    /// The next message that is no sign of life.
    fn next(&self) -> String {
        loop {
            let message = self.any();
            if message != "WATCHDOG=1" {
                return message;
            }
        }
    }

    fn any(&self) -> String {
        let mut room = [0; 512];
        let length = self.socket.recv(&mut room).expect("a message within the timeout");
        String::from_utf8_lossy(&room[..length]).trim_end().to_owned()
    }
}

#[test]
fn systemd_hears_when_a_gateway_is_ready_reloads_lives_and_ends() {
    let folder = Folder::new();
    let manager = Manager::new(&folder);
    let config = folder.write("config.yml", CONFIG);
    let args = ["gateway", "--http-port", "0", "--rpc-port", "0", "--bind", "127.0.0.1", "--config", &config];
    let mut started = command(folder.path(), &args);
    started.env("NOTIFY_SOCKET", folder.path().join("notify")).env("WATCHDOG_USEC", "400000");
    let mut goms = Goms::spawn(started);
    assert_eq!(manager.next(), "READY=1\nSTATUS=takes requests");
    assert_eq!(manager.any(), "WATCHDOG=1");
    assert_eq!(manager.any(), "WATCHDOG=1");

    goms.signal("HUP");
    let reloading = manager.next();
    let since = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect("a reload");
    assert!(since.parse::<u64>().is_ok_and(|since| since > 0), "{reloading}");
    assert_eq!(manager.next(), "READY=1\nSTATUS=takes requests");
    goms.wait_for("config reloaded");

    folder.write("config.yml", "services: {user: {login: login}}\n");
    assert!(manager.next().starts_with("RELOADING=1\n"));
    let refused = manager.next();
    assert!(refused.starts_with("READY=1\nSTATUS=refused its changed config"), "{refused}");

    goms.signal("TERM");
    assert_eq!(manager.next(), "STOPPING=1\nSTATUS=draining");
    assert_eq!(goms.exit_code(), 0);
}
