//! A gateway's other doors, of the built binary: HTTPS and Unix sockets.

use std::io::{BufReader, Write};
use std::os::unix::net::UnixStream;

use super::{gateway, service};
use crate::support::events::run as block_on;
use crate::support::goms::{Folder, Goms, PATIENCE, run};
use crate::support::http::{get, read_answer, wait_for_status};
use crate::support::servers;
use crate::support::tls::{Authority, Identity, client, connect, der, shown};

const SERVICES: &str = "services: {user: {login: /login}}\n";

fn port_of(goms: &Goms, what: &str) -> std::net::SocketAddr {
    let line = goms.wait_for(what);
    format!("127.0.0.1:{}", line.rsplit(' ').next().expect("a port")).parse().expect("an address")
}

fn write(folder: &Folder, identity: &Identity) {
    folder.write("site.pem", &identity.certificate);
    folder.write("site-key.pem", &identity.key);
}

#[test]
fn certificates_follow_the_config_and_a_hangup() {
    let (folder, ca) = (Folder::new(), Authority::new());
    let identities = [ca.vouch_until(&["127.0.0.1"], soon()), ca.vouch(&["127.0.0.1"]), ca.vouch(&["127.0.0.1"])];
    write(&folder, &identities[0]);
    let text = format!("{SERVICES}tls: {{ certificates: [{{ cert: site.pem, key: site-key.pem }}] }}\n");
    let config = folder.write("config.yml", &text);
    let with = ["--config", config.as_str(), "--https-port", "0"];
    let (gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &with[..2]);
    wait_for_status(&address, "/api/user/login", 200);
    let https = port_of(&gateway, "[gateway] Https Listen on port: ");
    let seen = || {
        let client = client(&identities[0].ca, &["h2", "http/1.1"], None);
        block_on(async { shown(&connect(&client, https, "127.0.0.1").await.expect("tls")) })
    };
    assert_eq!(seen(), der(&identities[0].certificate));
    gateway.wait_for("a certificate ends soon certificate=");
    write(&folder, &identities[1]);
    gateway.signal("HUP");
    gateway.wait_for("tls certificates reloaded");
    assert_eq!(seen(), der(&identities[1].certificate));
    // a bad pair is refused, whoever asks
    folder.write("site.pem", &identities[2].certificate);
    gateway.wait_for(
        "tls certificates not reloaded, those before stay in force: the key in `site-key.pem` is not the one",
    );
    gateway.signal("HUP");
    gateway.wait_for("config not reloaded, the one before stays in force");
    assert_eq!(seen(), der(&identities[1].certificate));
    write(&folder, &identities[2]);
    let reloaded = gateway.log().matches("tls certificates reloaded").count();
    gateway.signal("HUP");
    gateway.wait_for_count("tls certificates reloaded", reloaded + 1, PATIENCE);
    assert_eq!(seen(), der(&identities[2].certificate));
    // the port itself is not followed
    folder.write("config.yml", SERVICES);
    gateway.wait_for("--https-port: needs certificates");
    assert_eq!(gateway.terminate(), 0);
}

/// A week from now.
fn soon() -> (i32, u8, u8) {
    let date = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date() + jiff::Span::new().days(7);
    (date.year().into(), date.month().cast_unsigned(), date.day().cast_unsigned())
}

#[test]
fn certificates_that_cannot_be_used_end_the_start_with_78() {
    let folder = Folder::new();
    let text = format!("{SERVICES}tls: {{ certificates: [{{ cert: site.pem, key: site-key.pem }}] }}\n");
    let config = folder.write("config.yml", &text);
    for args in [&["gateway", "--config", &config][..], &["config", "check", "--config", &config]] {
        let ended = run(folder.path(), args);
        let said = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert_eq!(ended.status.code(), Some(78), "{said}");
        assert!(said.contains("config.yml: tls: cannot read `site.pem`"), "{said}");
    }
}

#[test]
fn a_unix_socket_is_a_door_that_ends_with_its_gateway() {
    let folder = Folder::new();
    let socket = folder.path().join("goms.sock");
    let name = socket.to_str().expect("utf-8");
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("a socket")); // as a killed gateway leaves it
    let config = folder.write("config.yml", &format!("{SERVICES}trustedProxies: [unix]\n"));
    let with = ["--config", config.as_str(), "--http-socket", name];
    let (gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &with[..2]);
    wait_for_status(&address, "/api/user/login", 200);
    gateway.wait_for(&format!("[gateway] Http Listen on socket: {name}"));
    let mut client = UnixStream::connect(&socket).expect("it listens");
    let mut reader = BufReader::new(client.try_clone().expect("a clone"));
    for _ in 0..2 {
        client.write_all(b"GET /api/user/login HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
        let answer = read_answer(&mut reader, false).expect("an answer");
        assert_eq!(answer.status, 200);
        let told = &answer.json()["data"]["headers"];
        assert!(told.to_string().contains("\"127.0.0.1\""), "{told}");
    }
    client.write_all(b"GET /api/user/login HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 192.0.2.1\r\n\r\n").expect("sent");
    let told = read_answer(&mut reader, false).expect("an answer").json()["data"]["headers"].to_string();
    assert!(told.contains("192.0.2.1, 127.0.0.1"), "trusted: {told}");
    // another gateway cannot have it
    let ended = run(folder.path(), &["gateway", "--http-port", "0", "--rpc-port", "0", "--http-socket", name]);
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert_eq!(ended.status.code(), Some(69), "{said}");
    assert!(said.contains("another process listens on"), "{said}");
    assert_eq!(get(&address, "/api/user/login").expect("an answer").status, 200);
    assert_eq!(gateway.terminate(), 0);
    assert!(!socket.exists());
}

/// All of it, but that an invalid preface must end the connection at once: on a port that speaks HTTP/1.1 too it is a bad
/// request of that, and answered 400 before the connection ends.
#[test]
fn h2spec_passes_with_and_without_tls() {
    let Some(h2spec) = servers::h2spec() else { return };
    let (folder, identity) = (Folder::new(), Authority::new().vouch(&["127.0.0.1"]));
    write(&folder, &identity);
    let routes = "routes: [{ match: { path: '/*' }, service: user, rewrite: /login, encode: json }]\n";
    let tls = "tls: { certificates: [{ cert: site.pem, key: site-key.pem }] }\n";
    let config = folder.write("config.yml", &format!("{SERVICES}{routes}{tls}"));
    let with = ["--config", config.as_str(), "--https-port", "0"];
    let (gateway, address) = gateway(&folder, &with);
    let (_user, _) = service(&folder, "user", &["--config", config.as_str(), "--access-log=false"]);
    wait_for_status(&address, "/", 200);
    let https = port_of(&gateway, "[gateway] Https Listen on port: ");
    let plain: std::net::SocketAddr = address.parse().expect("an address");
    let shared = "× 2: Sends invalid connection preface";
    for (port, flags, expected) in
        [(plain.port(), &[][..], &[shared][..]), (https.port(), &["--tls", "--insecure"], &[])]
    {
        let mut command = std::process::Command::new(&h2spec);
        command.args(["--strict", "--host", "127.0.0.1", "--timeout", "5", "--port", &port.to_string()]).args(flags);
        let printed = command.output().expect("h2spec runs").stdout;
        let printed = String::from_utf8_lossy(&printed);
        let failures = printed.split_once("Failures:").map_or("", |(_, failures)| failures);
        let failed: Vec<&str> = failures.lines().map(str::trim).filter(|line| line.starts_with('×')).collect();
        assert_eq!(failed, expected, "{flags:?}\n{printed}");
        let sum = format!("146 tests, {} passed, 0 skipped, {} failed", 146 - expected.len(), expected.len());
        assert!(printed.contains(&sum), "{flags:?}\n{printed}");
    }
    assert_eq!(get(&address, "/").expect("an answer").status, 200);
}
