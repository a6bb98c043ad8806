//! How an HTTP server of this process ends without failing a request that it could have served.
//!
//! ```text
//! stop: answers carry `Connection: close` → new connects are dropped, then refused → no request for a moment (busy
//!       clients have been told) → idle connections are closed → running requests end → at the limit the rest is cut off
//! ```
//! actix-web's own graceful stop closes idle connections at once, where a request may just be on its way, and looks only
//! once a second whether all are gone; so this module goes before it and counts the connections itself.
//!
//! May import: `metrics`, `shutdown`.

use std::any::Any;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use actix_server::ServerBuilder;
use actix_web::dev::{Server, ServerHandle};
use tokio::time::Instant;

use crate::metrics::Load;
use crate::shutdown::Shutdown;

/// No request for so long: the clients that were busy have been told to close.
const QUIET: Duration = Duration::from_millis(50);
/// At most so long are busy clients waited for before idle connections are closed.
const WIND_DOWN: Duration = Duration::from_secs(2);
/// How long connects that are under way get to be accepted before a listening socket closes; longer than the round trip
/// of most clients.
const SETTLE: Duration = Duration::from_millis(100);
/// How often the end of the last request or connection is looked for.
const POLL: Duration = Duration::from_millis(5);
/// How long a server that was told to end at once may take.
const FORCED: Duration = Duration::from_secs(5);

/// actix-server's own limit of a graceful stop, longer than any drain: [`Running::stop`] keeps the time.
pub const NO_LIMIT_SECS: u64 = 24 * 3600;

/// What a server is built of that ends by [`Running::stop`]; `connections` is how many a worker takes.
#[must_use]
pub fn builder(workers: usize, connections: usize) -> ServerBuilder {
    ServerBuilder::new()
        .workers(workers.max(1))
        .max_concurrent_connections(connections)
        .shutdown_timeout(NO_LIMIT_SECS)
        .disable_signals()
}

/// What the workers of a server and its [`Running`] share.
#[derive(Debug, Default)]
pub struct Traffic {
    /// The node's requests.
    pub load: Load,
    draining: AtomicBool,
    connections: AtomicUsize,
    opening: AtomicUsize,
}

impl Traffic {
    /// Nothing yet; requests are counted in `load`.
    #[must_use]
    pub fn new(load: Load) -> Arc<Self> {
        Arc::new(Self { load, ..Self::default() })
    }

    /// Whether answers must carry `Connection: close`.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// Counts a connection until what is returned is dropped.
    #[must_use]
    pub fn connected(self: &Arc<Self>) -> Connected {
        self.connections.fetch_add(1, Ordering::Relaxed);
        Connected(self.clone())
    }

    /// Counts a connection that has begun to speak and has not asked yet (its TLS handshake runs), until what is returned
    /// is dropped.
    #[must_use]
    pub fn opening(self: &Arc<Self>) -> Opening {
        self.opening.fetch_add(1, Ordering::Relaxed);
        Opening(self.clone())
    }

    fn taken(&self) -> u64 {
        self.load.answered() + self.load.in_flight()
    }
}

/// One open connection.
#[derive(Debug)]
pub struct Connected(Arc<Traffic>);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One connection that has begun to speak and has not asked yet.
#[derive(Debug)]
pub struct Opening(Arc<Traffic>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.opening.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets a listening TCP socket pass over segments that ask for a connection. Returns whether it does.
#[cfg(target_os = "linux")]
fn drop_connects(socket: &socket2::Socket) -> bool {
    use socket2::SockFilter;
    /// Classic BPF over the TCP header: of its flags (byte 13) SYN and ACK; only SYN: drop; else: keep all of it.
    const PROGRAM: [SockFilter; 5] = [
        SockFilter::new(0x30, 0, 0, 13),
        SockFilter::new(0x54, 0, 0, 0x12),
        SockFilter::new(0x15, 0, 1, 0x02),
        SockFilter::new(0x06, 0, 0, 0),
        SockFilter::new(0x06, 0, 0, u32::MAX),
    ];
    let is_tcp = socket.local_addr().is_ok_and(|address| address.as_socket().is_some());
    let filtered = if is_tcp { socket.attach_filter(&PROGRAM) } else { return false };
    if let Err(error) = &filtered {
        log::debug!("cannot drop connects before a listening socket closes: {error}");
    }
    filtered.is_ok()
}

/// Only Linux has such a filter.
#[cfg(not(target_os = "linux"))]
fn drop_connects(_: &socket2::Socket) -> bool {
    false
}

/// A server at work. Dropping it does not end it: [`Running::stop`] does.
#[derive(Debug)]
pub struct Running {
    name: String,
    address: SocketAddr,
    handle: ServerHandle,
    /// Clones of the sockets it listens on.
    sockets: Vec<socket2::Socket>,
    traffic: Arc<Traffic>,
    tasks: Shutdown,
    /// Such as files of sockets.
    kept: Vec<Box<dyn Any + Send + Sync>>,
}

impl Running {
    /// Runs `server`, which listens on a clone of `listener`, as a task. Must be called within a tokio runtime. `name` is
    /// for the log.
    ///
    /// # Errors
    /// When the listener has no address.
    pub fn start(name: &str, listener: TcpListener, server: Server, traffic: Arc<Traffic>) -> std::io::Result<Self> {
        let address = listener.local_addr()?;
        Ok(Self::on(name, address, vec![listener.into()], server, traffic))
    }

    /// As [`Running::start`], of a server that listens on clones of all of `sockets`; `address` is the one to tell others.
    #[must_use]
    pub fn on(
        name: &str,
        address: SocketAddr,
        sockets: Vec<socket2::Socket>,
        server: Server,
        traffic: Arc<Traffic>,
    ) -> Self {
        let (handle, tasks) = (server.handle(), Shutdown::new());
        let (forced, failed) = (tasks.clone(), name.to_owned());
        tasks.spawn(async move {
            tokio::select! {
                () = forced.begun() => {} // dropping a server ends its workers, whatever they do
                ended = server => if let Err(error) = ended {
                    log::error!("[{failed}] http server ended by itself: {error}");
                },
            }
        });
        Self { name: name.to_owned(), address, handle, sockets, traffic, tasks, kept: Vec::new() }
    }

    /// Drops this as soon as nobody can connect any more.
    #[must_use]
    pub fn keeping(mut self, kept: impl Any + Send + Sync) -> Self {
        self.kept.push(Box::new(kept));
        self
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Ends it: takes no new connection, tells the clients of the others to close with their next answer, finishes what
    /// runs, closes what is idle, and cuts off what is left after `drain`. Returns whether all could finish.
    pub async fn stop(mut self, drain: Duration) -> bool {
        let deadline = Instant::now() + drain;
        self.traffic.draining.store(true, Ordering::Relaxed);
        self.close_sockets(deadline).await;
        self.kept.clear();
        self.wind_down(deadline.min(Instant::now() + WIND_DOWN)).await;
        drop(self.handle.stop(true)); // sent at once; its answer comes only to the full second
        let finished = self.connections_end(deadline).await;
        if !finished {
            let running = self.traffic.load.in_flight();
            log::warn!("[{}] the drain ended with requests unfinished in_flight={running}", self.name);
        }
        self.tasks.begin();
        if !self.tasks.finished(FORCED).await {
            log::warn!("[{}] http server did not end", self.name);
        }
        finished
    }

    /// From its end on a connect is refused. What the kernel holds at that instant and nobody has accepted yet is reset by it
    /// (Linux does so whenever a listener closes), so new connects are dropped before, for long enough that those under way
    /// are accepted: a client whose connect was dropped tries again within a second, and is refused then.
    async fn close_sockets(&self, deadline: Instant) {
        if self.sockets.iter().filter(|socket| drop_connects(socket)).count() > 0 {
            tokio::time::sleep_until(deadline.min(Instant::now() + SETTLE)).await;
        }
        for socket in &self.sockets {
            if let Err(error) = socket.shutdown(std::net::Shutdown::Read) {
                log::debug!("cannot shut a listening socket: {error}");
            }
        }
    }

    /// Waits until nothing is in flight and nothing came for a moment.
    async fn wind_down(&self, limit: Instant) {
        let (mut taken, mut since) = (self.traffic.taken(), Instant::now());
        while Instant::now() < limit {
            tokio::time::sleep(POLL).await;
            let now = self.traffic.taken();
            let opening = self.traffic.opening.load(Ordering::Relaxed);
            if now != taken || opening > 0 || self.traffic.load.in_flight() > 0 {
                (taken, since) = (now, Instant::now());
            } else if since.elapsed() >= QUIET {
                return;
            }
        }
    }

    /// Whether the last connection ended before `deadline`.
    async fn connections_end(&self, deadline: Instant) -> bool {
        loop {
            if self.traffic.connections.load(Ordering::Relaxed) == 0 {
                return true;
            }
            if Instant::now() >= deadline {
                return self.traffic.load.in_flight() == 0;
            }
            tokio::time::sleep(POLL).await;
        }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::io::{ErrorKind, Read, Write};
    use std::net::TcpStream;

    use super::*;

    #[test]
    fn connects_are_dropped_while_those_that_are_made_stay() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let socket = socket2::Socket::from(listener.try_clone().unwrap());
        let mut made = TcpStream::connect(address).unwrap(); // the kernel holds it, nobody has accepted it
        assert!(drop_connects(&socket));
        let connect = || TcpStream::connect_timeout(&address, Duration::from_millis(200)).map_err(|error| error.kind());
        assert_eq!(connect().map(drop), Err(ErrorKind::TimedOut), "neither taken nor refused");
        let (mut accepted, _) = listener.accept().unwrap();
        made.write_all(b"hello").unwrap();
        let mut got = [0; 5];
        accepted.read_exact(&mut got).unwrap();
        accepted.write_all(&got).unwrap();
        made.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        socket.shutdown(std::net::Shutdown::Read).unwrap();
        assert_eq!(connect().map(drop), Err(ErrorKind::ConnectionRefused));
        // a Unix socket keeps what it holds anyway
        let folder = tempfile::tempdir().unwrap();
        let unix = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(!drop_connects(&unix.into()));
    }
}
