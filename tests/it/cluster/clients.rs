//! Clients that take much and give little, many at once: others are served, and memory stays bounded.

use std::io::{BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::{gateway, until};
use crate::support::goms::{Folder, Goms};
use crate::support::http::{PATIENCE, get, read_answer, wait_for_status};
use crate::support::load::Load;
use crate::support::slow;
use crate::support::tls::Identity;

const HELLO: &str = "services: { user: { login: /login } }\nroutes: [{ match: { path: /hello }, respond: { body: hello } }]\ntraces: { sample: 0 }\n";

/// Bytes of memory that a process has.
fn memory(goms: &Goms) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", goms.pid())).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its memory");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") << 10
}

fn ask(client: &TcpStream, target: &str) -> u16 {
    (&*client).write_all(format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).expect("sent");
    read_answer(&mut BufReader::with_capacity(512, client), false).expect("an answer").status
}

fn client(address: &str) -> TcpStream {
    let client = TcpStream::connect(address).expect("a connection");
    client.set_read_timeout(Some(PATIENCE)).expect("a time-out");
    client
}

/// Nobody but 200.
fn assert_served(load: Load) {
    let outcomes = load.stop();
    assert_eq!(outcomes.keys().collect::<Vec<_>>(), ["200"], "{outcomes:?}");
}

#[test]
fn ten_thousand_idle_connections_cost_little_and_hold_nobody_up() {
    const WANTED: u64 = 10_000;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    let most = limit.maximum.unwrap_or(u64::MAX).saturating_sub(2_000);
    if limit.current != limit.maximum {
        let raised = rustix::process::Rlimit { current: limit.maximum, ..limit };
        rustix::process::setrlimit(rustix::process::Resource::Nofile, raised).expect("raised");
    }
    let count = WANTED.min(most);
    if count < WANTED {
        eprintln!("ONLY {count} connections: the limit of open files (ulimit -Hn) allows no more");
    }
    let folder = Folder::new();
    let config = folder.write("config.yml", &format!("{HELLO}limits: {{ idleTimeout: 10m }}\n"));
    // started by a shell with the usual soft limit, which the gateway raises by itself
    let (gateway, address) = gateway(&folder, &["--config", &config]);
    wait_for_status(&address, "/hello", 200);
    let before = memory(&gateway);
    let clients: Vec<TcpStream> = (0..count)
        .map(|_| {
            let client = client(&address);
            assert_eq!(ask(&client, "/hello"), 200);
            client
        })
        .collect();
    let each = memory(&gateway).saturating_sub(before) / count;
    eprintln!("{count} idle connections: {each} bytes of memory each");
    assert!(each < 48 << 10, "{each} bytes an idle connection");
    let load = Load::start(&address, "GET", "/hello", 2);
    load.wait_for(200);
    assert_served(load);
    for client in clients.iter().step_by(100) {
        assert_eq!(ask(client, "/hello"), 200, "a connection that idled");
    }
    drop(clients);
    assert_eq!(gateway.terminate(), 0);
}

#[test]
fn heads_and_bodies_that_never_end_are_ended() {
    let folder = Folder::new();
    let limits = "limits: { headerTimeout: 2s, bodyTimeout: 2s }\n";
    let config = folder.write("config.yml", &format!("{HELLO}{limits}"));
    let (gateway, address) = gateway(&folder, &["--config", &config]);
    wait_for_status(&address, "/hello", 200);
    let load = Load::start(&address, "GET", "/hello", 2);
    let mut clients = Vec::new();
    for number in 0..300 {
        let client = client(&address);
        let (expected, begin) = match number % 3 {
            0 => (408, "GET /hello HTTP/1.1\r\nHost: x\r\nX-Slow: "), // the first head
            1 => {
                assert_eq!(ask(&client, "/hello"), 200);
                (408, "GET /hello HTTP/1.1\r\nHost: x\r\nX-Slow: ") // a later one
            }
            _ => (408, "POST /api/user/login HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{\"a\":"),
        };
        (&client).write_all(begin.as_bytes()).expect("sent");
        clients.push((expected, client));
    }
    // a byte now and then, so that none of them is silent
    let (dripping, is_over) =
        (clients.iter().map(|(_, client)| client.try_clone().expect("a clone")), AtomicBool::new(false));
    let dripping: Vec<TcpStream> = dripping.collect();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                for mut client in &dripping {
                    client.write_all(b"a").ok(); // an error is its end
                }
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        for (number, (expected, client)) in clients.into_iter().enumerate() {
            // a byte that crosses the answer may reset the connection before the answer is read
            match read_answer(&mut BufReader::new(&client), false) {
                Ok(answer) => assert_eq!(answer.status, expected, "client {number}"),
                Err(error) => assert!(
                    [std::io::ErrorKind::ConnectionReset, std::io::ErrorKind::UnexpectedEof].contains(&error.kind()),
                    "client {number}: {error}"
                ),
            }
        }
        is_over.store(true, Ordering::Relaxed);
    });
    load.wait_for(50);
    assert_served(load);
    assert_eq!(gateway.terminate(), 0);
}

/// A service that answers without an end, as long as somebody takes it; counts what it could send.
fn endless() -> (u16, Arc<AtomicU64>, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    let (sent, running) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (all, count) = (sent.clone(), running.clone());
    std::thread::spawn(move || {
        for socket in listener.incoming().flatten() {
            let (sent, running) = (all.clone(), count.clone());
            std::thread::spawn(move || {
                let mut socket = socket;
                let mut head = [0; 4096];
                if !matches!(socket.read(&mut head), Ok(1..)) {
                    return;
                }
                running.fetch_add(1, Ordering::Relaxed);
                let mut part = b"HTTP/1.1 200 OK\r\nContent-Length: 10000000000\r\n\r\n".to_vec();
                while socket.write_all(&part).is_ok() {
                    sent.fetch_add(part.len() as u64, Ordering::Relaxed);
                    part.resize(64 << 10, b'x');
                }
                running.fetch_sub(1, Ordering::Relaxed);
            });
        }
    });
    (port, sent, running)
}

#[test]
fn readers_that_read_nothing_hold_little_and_are_cut_off() {
    const READERS: u64 = 100;
    let folder = Folder::new();
    let text = "services: { user: { login: { path: /login, encode: none, answer: untouched } } }\n\
        limits: { sendTimeout: 3s }\nroutes: [{ match: { path: /hello }, respond: { body: hello } }]\n";
    let config = folder.write("config.yml", text);
    let (port, sent, running) = endless();
    let program = format!("http://127.0.0.1:{port}");
    let with = ["--config", config.as_str()];
    let (gateway, address) = gateway(&folder, &with);
    // straight to the endless service: it is registered as a program behind goms is, by a node of its own
    let mut args = vec!["service", "user", "--bind", "127.0.0.1", "--app", &program];
    args.extend(with);
    let node = Goms::start_in(folder.path(), &args);
    node.wait_for("[user] Http Listen on port: ");
    until("a node", || {
        let page = get(&address, "/cluster").ok()?.json();
        (page["services"]["user"]["Nodes"].as_array().map(Vec::len) == Some(1)).then_some(())
    });
    let before = memory(&gateway);
    let readers: Vec<TcpStream> = (0..READERS)
        .map(|_| {
            let reader = client(&address);
            (&reader).write_all(b"GET /api/user/login HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
            reader
        })
        .collect();
    until("all to run", || (running.load(Ordering::Relaxed) == READERS).then_some(()));
    // nothing goes on any more: every buffer on the way is full
    let mut last = 0;
    until("a standstill", || {
        std::thread::sleep(Duration::from_millis(200));
        let now = sent.load(Ordering::Relaxed);
        (std::mem::replace(&mut last, now) == now).then_some(())
    });
    let each = memory(&gateway).saturating_sub(before) / READERS;
    eprintln!("{READERS} readers that read nothing: {each} bytes of memory each");
    assert!(each < 512 << 10, "{each} bytes a reader");
    assert_eq!(get(&address, "/hello").expect("an answer").status, 200);
    until("all to be cut off", || (running.load(Ordering::Relaxed) == 0).then_some(()));
    assert_eq!(get(&address, "/hello").expect("an answer").status, 200);
    drop(readers);
    assert_eq!(node.terminate(), 0);
    assert_eq!(gateway.terminate(), 0);
}

/// Numbers that are the same in each run (xorshift64*, Vigna 2016).
struct Numbers(u64);

impl Numbers {
    fn next(&mut self, below: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % below
    }
}

/// What requests are made of; each is spoilt before it is sent.
const SEEDS: [&[u8]; 8] = [
    b"GET /hello HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n",
    b"POST /api/user/login?a=1 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 7\r\n\r\n{\"a\":1}",
    b"POST /api/user/login HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n",
    b"PUT /hello HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://x/hello?%41=%zz HTTP/1.0\r\nConnection: keep-alive\r\nX-Forwarded-For: ::1\r\n\r\n",
    b"GET /hello HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x15\x01\x05\0\0\0\x01\x82\x86\x04\x06/hello\x01\x01x\0\0\x04\x08\0\0\0\0\0\0\0\xff\xff",
    b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
];

/// Words that parsers trip over.
const WORDS: [&[u8]; 12] = [
    b"\r\n",
    b"\n",
    b"\r",
    b"\0",
    b"Content-Length: 5\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Host: y\r\n",
    b"ffffffffffffffff\r\n",
    b"\xff\xfe",
    b"HTTP/1.1",
    b" ",
    b"%2e%2e/%00",
];

fn spoilt(numbers: &mut Numbers) -> Vec<u8> {
    let mut bytes = SEEDS[numbers.next(SEEDS.len())].to_vec();
    for _ in 0..=numbers.next(4) {
        let at = numbers.next(bytes.len() + 1);
        match numbers.next(5) {
            0 if at < bytes.len() => bytes[at] = numbers.next(256) as u8,
            1 => bytes.truncate(at.max(1)),
            2 => drop(bytes.splice(at..at, WORDS[numbers.next(WORDS.len())].iter().copied())),
            3 => {
                let end = (at + numbers.next(16)).min(bytes.len());
                bytes.drain(at..end);
                if bytes.is_empty() {
                    bytes.push(b'x');
                }
            }
            _ => {
                let part = bytes[at.min(bytes.len() - 1)..].to_vec();
                bytes.extend_from_slice(&part);
            }
        }
    }
    bytes
}

#[test]
fn malformed_requests_harm_nobody() {
    let count = if slow() { 100_000 } else { 4_000 };
    let folder = Folder::new();
    let identity = Identity::new().files(folder.path());
    let pair = format!("{{ cert: {}, key: {} }}", identity.certificate.display(), identity.key.display());
    let limits = "limits: { headerTimeout: 3s, bodyTimeout: 3s }";
    let config = folder.write("config.yml", &format!("{HELLO}{limits}\ntls: {{ certificates: [{pair}] }}\n"));
    let (gateway, address) = gateway(&folder, &["--config", &config, "--https-port", "0"]);
    wait_for_status(&address, "/hello", 200);
    let https = gateway.wait_for("[gateway] Https Listen on port: ");
    let https = format!("127.0.0.1:{}", https.rsplit(' ').next().expect("a port"));
    let load = Load::start(&address, "GET", "/hello", 1);
    let attack = &|from: u64, count: usize| {
        let mut numbers = Numbers(0x9e37_79b9_7f4a_7c15 + from);
        let mut left = Vec::new();
        for number in 0..count {
            let socket = client(if number % 8 == 7 { &https } else { &address });
            (&socket).write_all(&spoilt(&mut numbers)).ok(); // an error is its end
            match number % 3 {
                0 => socket.shutdown(Shutdown::Write).unwrap_or(()),
                1 => left.push(socket), // stays, until it is closed by the other side or a hundred others came
                _ => {}
            }
            if left.len() == 100 {
                left.clear();
            }
        }
    };
    let warm = count / 4;
    attack(0, warm);
    let before = memory(&gateway);
    std::thread::scope(|scope| {
        for from in 1..=3 {
            scope.spawn(move || attack(from, warm));
        }
    });
    let grown = memory(&gateway).saturating_sub(before);
    eprintln!("{count} malformed requests: memory grew by {grown} bytes in the last three quarters");
    assert!(grown < 32 << 20, "{grown} bytes");
    load.wait_for(50);
    assert_served(load);
    let log = gateway.log();
    assert!(!log.contains("panicked") && log.lines().count() < 20, "{log}");
    assert_eq!(gateway.terminate(), 0);
}
