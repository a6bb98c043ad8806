//! A TCP proxy in front of a shared server, so that a test may take the server away for itself alone.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Forwards every connection, until told to be away or to swallow what the server says. Its threads end with the test's process.
pub struct Proxy {
    /// Where it listens.
    pub address: String,
    away: Arc<AtomicBool>,
    mute: Arc<AtomicBool>,
    open: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    /// In front of `target` (`host:port`).
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let (away, open) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
        let mute = Arc::new(AtomicBool::new(false));
        let (closed, sockets, target) = (Arc::clone(&away), Arc::clone(&open), target.to_owned());
        let silent = Arc::clone(&mute);
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let Ok(server) = TcpStream::connect(&target) else { continue };
                let mut sockets = sockets.lock().expect("no thread panics");
                if closed.load(Ordering::SeqCst) {
                    continue; // dropped: the client sees its connection end
                }
                for (from, to, swallow) in [(&client, &server, None), (&server, &client, Some(&silent))] {
                    let (from, to) = (from.try_clone().expect("a socket"), to.try_clone().expect("a socket"));
                    let swallow = swallow.map(Arc::clone);
                    std::thread::spawn(move || copy(from, to, swallow));
                }
                sockets.extend([client, server]);
            }
        });
        Self { address, away, mute, open }
    }

    /// Swallows the server's answers from now on. End it by cutting the connections with `away`: they are broken.
    pub fn mute(&self) {
        self.mute.store(true, Ordering::SeqCst);
    }

    /// Cuts every connection and takes no new one, or takes them again.
    pub fn away(&self, away: bool) {
        let mut open = self.open.lock().expect("no thread panics");
        self.away.store(away, Ordering::SeqCst);
        for socket in open.drain(..) {
            socket.shutdown(Shutdown::Both).ok(); // it may have ended by itself
        }
        self.mute.store(false, Ordering::SeqCst);
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, swallow: Option<Arc<AtomicBool>>) {
    let mut buffer = [0; 65_536];
    while let Ok(count) = from.read(&mut buffer)
        && count > 0
        && (swallow.as_ref().is_some_and(|mute| mute.load(Ordering::SeqCst)) || to.write_all(&buffer[..count]).is_ok())
    {
    }
    to.shutdown(Shutdown::Both).ok(); // it may have ended by itself
}
