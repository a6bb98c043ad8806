//! Long bodies through the whole path: gateway, goms in front of a program, the program.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};

use super::gateway;
use crate::support::goms::{Folder, Goms};
use crate::support::http::{read_answer, wait_for_status};
use crate::support::slow;

/// What a process may need more while a long body passes: some reads of 64 KiB each way, and what the allocator keeps.
const ROOM_KIB: u64 = 24 << 10;

/// A program that gives and takes bodies of any length: `GET /N` is answered with N bytes, a `PUT` with its body's length.
fn program() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        for socket in listener.incoming().map_while(Result::ok) {
            std::thread::spawn(move || while serve(&socket).is_some() {});
        }
    });
    address
}

fn serve(mut socket: &TcpStream) -> Option<()> {
    let mut reader = BufReader::new(socket);
    let (mut first, mut length) = (String::new(), 0);
    reader.read_line(&mut first).ok().filter(|&bytes| bytes > 0)?;
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok().filter(|&bytes| bytes > 0)?;
        if line == "\r\n" {
            break;
        }
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let (_, target) = first.split_once('/')?;
    let (target, _) = target.split_once(' ')?;
    if first.starts_with("PUT") {
        let taken = std::io::copy(&mut reader.by_ref().take(length), &mut std::io::sink()).ok()?.to_string();
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{taken}", taken.len()).ok()
    } else {
        let bytes = target.parse().unwrap_or(0);
        write!(socket, "HTTP/1.1 200 OK\r\nContent-Length: {bytes}\r\n\r\n").ok()?;
        std::io::copy(&mut std::io::repeat(b'x').take(bytes), &mut socket).ok().map(|_| ())
    }
}

/// The most memory that a process ever had, in KiB.
fn peak_kib(goms: &Goms) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", goms.pid())).expect("a running process");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

#[test]
fn a_long_body_either_way_holds_memory_flat() {
    let bytes: u64 = if slow() { 5 << 30 } else { 256 << 20 };
    let folder = Folder::new();
    let config = folder.write(
        "config.yml",
        "routes: [{ match: { path: \"/files/*\" }, service: files, strip: /files }]\nlimits: { bodyBytes: 100GiB }\n",
    );
    let with = ["--config", config.as_str(), "--access-log=false"];
    let (gateway, address) = gateway(&folder, &with);
    let app = format!("http://{}", program());
    let args = ["service", "files", "--bind", "127.0.0.1", "--config", &config, "--app", &app];
    let files = Goms::start_in(folder.path(), &args);
    wait_for_status(&address, "/files/1", 200);
    let before = [peak_kib(&gateway), peak_kib(&files)];

    let mut socket = TcpStream::connect(&address).expect("a gateway");
    write!(socket, "GET /files/{bytes} HTTP/1.1\r\nHost: a\r\n\r\n").expect("to send");
    let mut reader = BufReader::with_capacity(64 << 10, socket.try_clone().expect("a clone"));
    let mut line = String::new();
    while line != "\r\n" {
        line.clear();
        reader.read_line(&mut line).expect("a head");
    }
    let got = std::io::copy(&mut reader.by_ref().take(bytes), &mut std::io::sink()).expect("a body");
    assert_eq!(got, bytes);

    write!(socket, "PUT /files/a HTTP/1.1\r\nHost: a\r\nContent-Length: {bytes}\r\n\r\n").expect("to send");
    std::io::copy(&mut std::io::repeat(b'y').take(bytes), &mut socket).expect("to send");
    let answer = read_answer(&mut reader, false).expect("an answer");
    assert_eq!((answer.status, answer.text()), (200, bytes.to_string()));

    for (name, goms, before) in [("gateway", &gateway, before[0]), ("service", &files, before[1])] {
        let peak = peak_kib(goms);
        eprintln!("{name}: {before} KiB before, {peak} KiB at most");
        assert!(peak < before + ROOM_KIB, "{name}: {before} KiB before, {peak} KiB at most");
    }
}
