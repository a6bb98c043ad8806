//! Connections between exchanges: kept for the next request to the same place.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::io;
use std::net::SocketAddr;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use foldhash::fast::RandomState;
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::connection::{Connection, stands, surely_stands};
use super::exchange::Exchange;
use super::outgoing::Sending;
use super::socket::Socket;
use super::{Answer, HttpError, Outgoing, RequestHead};
use crate::timer::Timer;

/// How often connections that are idle for too long are looked for; they stay open at most so much longer.
const SWEEP: Duration = Duration::from_secs(5);
/// Buffers and timers that wait for the next exchange: as many as one worker's requests begin and end in one turn of its loop.
const SPARE_BUFFERS: usize = 64;
/// A longer head's buffer is not kept.
const SPARE_BYTES: usize = 16 << 10;

/// Where a request goes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Target {
    /// An address.
    Socket(SocketAddr),
    /// `host:port`; the name is looked up for each new connection.
    Named(Arc<str>),
    /// An address that is called by TLS.
    Secure(Arc<Secure>),
}

/// Where a request goes by TLS.
#[derive(Clone, Debug)]
pub struct Secure {
    /// The address.
    pub address: SocketAddr,
    /// For whom its certificate must be.
    pub name: ServerName<'static>,
    /// Who vouches for it, and who calls.
    pub config: Arc<ClientConfig>,
}

impl PartialEq for Secure {
    fn eq(&self, other: &Self) -> bool {
        self.address == other.address && self.name == other.name && Arc::ptr_eq(&self.config, &other.config)
    }
}

impl Eq for Secure {}

impl Hash for Secure {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.address.hash(state);
        self.name.hash(state);
    }
}

/// How long the parts of an exchange may take.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// A new connection.
    pub connect: Duration,
    /// All up to the end of the answer's head.
    pub head: Duration,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Pool {
    idle: Duration,
    kept: RefCell<HashMap<Target, Vec<Kept>, RandomState>>,
    inputs: RefCell<Vec<BytesMut>>,
    heads: RefCell<Vec<Vec<u8>>>,
    timers: RefCell<Vec<Timer>>,
}

/// A connection between two exchanges.
#[derive(Debug)]
struct Kept {
    socket: Socket,
    since: Instant,
}

impl Pool {
    /// An empty pool: an unused connection is kept for `idle`. Must be called within a `LocalSet`, as on actix's threads.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "it ends with its pool, and no end of a process has to wait for it")]
    pub fn new(idle: Duration) -> Rc<Self> {
        let pool = Rc::new(Self {
            idle,
            kept: RefCell::default(),
            inputs: RefCell::default(),
            heads: RefCell::default(),
            timers: RefCell::default(),
        });
        tokio::task::spawn_local(sweep(Rc::downgrade(&pool)));
        pool
    }

    /// Sends a request and gives its answer as soon as the head is there. Where a kept connection turns out to have ended,
    /// and the request was surely not taken or may be sent twice, a new one takes over.
    ///
    /// While a streamed body flows, `times.head` counts from the last part of it.
    ///
    /// # Errors
    /// [`HttpError`]; [`HttpError::was_not_sent`] says whether it may be sent again.
    ///
    /// # Cancel safety
    /// Dropping the future closes the connection; the other side may have carried the request out.
    pub async fn send(
        self: &Rc<Self>,
        target: &Target,
        head: &RequestHead,
        body: &Outgoing,
        times: Times,
    ) -> Result<Answer, HttpError> {
        let timeout = times.head;
        let parts = match body {
            Outgoing::Stream(parts, _) => Some(parts),
            Outgoing::NoBody | Outgoing::Whole(_) | Outgoing::Upgrade(_) => None,
        };
        let started = tokio::time::Instant::now();
        let is_connecting = Cell::new(false);
        let mut timer = self.timers.borrow_mut().pop().unwrap_or_else(|| Timer::new(started + timeout));
        let begun = (started.into_std(), times.connect);
        let mut sending = std::pin::pin!(self.send_any_time(target, head, body, begun, &is_connecting));
        loop {
            let since = parts.map_or(started, |parts| parts.last().max(started));
            let sent = std::future::poll_fn(|task| match sending.as_mut().poll(task) {
                Poll::Ready(sent) => Poll::Ready(Some(sent)),
                Poll::Pending => timer.poll(since + timeout, task).map(|()| None),
            });
            let outcome = match sent.await {
                Some(sent) => sent,
                None if parts.is_some_and(|parts| parts.last() > since) => continue, // the body still flows
                None if is_connecting.get() => Err(HttpError::ConnectTimeout(timeout)),
                None => Err(HttpError::Deadline(timeout)),
            };
            let mut timers = self.timers.borrow_mut();
            if timers.len() < SPARE_BUFFERS {
                timers.push(timer);
            }
            return outcome;
        }
    }

    async fn send_any_time(
        self: &Rc<Self>,
        target: &Target,
        head: &RequestHead,
        body: &Outgoing,
        (started, connect_timeout): (Instant, Duration),
        is_connecting: &Cell<bool>,
    ) -> Result<Answer, HttpError> {
        // asking the kernel costs a system call, which a request that may be sent again can save
        if let Some(connection) = self.take(target, started, !head.is_repeatable() || !body.is_replayable()) {
            match self.exchange(connection, head, body).await {
                Err(HttpError::Stale) if body.is_replayable() => {}
                Err(error) if error.had_no_answer() && head.is_repeatable() && body.is_replayable() => {}
                done => return done,
            }
        }
        is_connecting.set(true);
        // in a box: a request is as long as its longest way, and most find a connection that was kept
        let connection = Box::pin(self.connect(target, connect_timeout)).await?;
        is_connecting.set(false);
        self.exchange(connection, head, body).await
    }

    /// An empty buffer for a head.
    pub fn buffer(&self) -> Vec<u8> {
        self.heads.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives a buffer back.
    pub fn recycle(&self, buffer: Vec<u8>) {
        let mut heads = self.heads.borrow_mut();
        if heads.len() < SPARE_BUFFERS && buffer.capacity() <= SPARE_BYTES {
            heads.push(buffer);
        }
    }

    /// Keeps a connection for the next request, unless it brought something that nobody asked for.
    pub(super) fn keep(&self, connection: Connection) {
        let Some((socket, target, input)) = connection.into_parts() else { return };
        let mut inputs = self.inputs.borrow_mut();
        if inputs.len() < SPARE_BUFFERS {
            inputs.push(input);
        }
        let kept = Kept { socket, since: Instant::now() };
        self.kept.borrow_mut().entry(target).or_default().push(kept);
    }

    async fn exchange(
        self: &Rc<Self>,
        connection: Connection,
        head: &RequestHead,
        body: &Outgoing,
    ) -> Result<Answer, HttpError> {
        let sending = Sending::new(head.finish(self.buffer(), body.length()), body);
        let upgrade = match body {
            Outgoing::Upgrade(upgrade) => Some(upgrade.clone()),
            _ => None,
        };
        Exchange::new(connection, sending, head.is_head(), upgrade, self.clone()).await
    }

    /// The connection that was used last: the others may go idle and be closed.
    fn take(&self, target: &Target, now: Instant, must_be_sure: bool) -> Option<Connection> {
        let mut all = self.kept.borrow_mut();
        let kept = all.get_mut(target)?;
        while let Some(Kept { socket, since }) = kept.pop() {
            if now.saturating_duration_since(since) < self.idle
                && stands(&socket)
                && (!must_be_sure || surely_stands(&socket))
            {
                return Some(Connection::new(socket, target.clone(), self.input(), true));
            }
        }
        None
    }

    async fn connect(&self, target: &Target, timeout: Duration) -> Result<Connection, HttpError> {
        let connecting = async {
            match target {
                Target::Socket(address) => plain(TcpStream::connect(address).await?),
                Target::Named(name) => plain(TcpStream::connect(&**name).await?),
                Target::Secure(secure) => {
                    let tcp = TcpStream::connect(secure.address).await?;
                    without_delay(&tcp);
                    let connector = TlsConnector::from(secure.config.clone());
                    Ok(Socket::Secure(Box::new(connector.connect(secure.name.clone(), tcp).await?)))
                }
            }
        };
        let socket = tokio::time::timeout(timeout, connecting)
            .await
            .map_err(|_| HttpError::ConnectTimeout(timeout))?
            .map_err(HttpError::Connect)?;
        Ok(Connection::new(socket, target.clone(), self.input(), false))
    }

    fn input(&self) -> BytesMut {
        self.inputs.borrow_mut().pop().unwrap_or_default()
    }
}

fn plain(tcp: TcpStream) -> io::Result<Socket> {
    without_delay(&tcp);
    Ok(Socket::Plain(tcp))
}

fn without_delay(tcp: &TcpStream) {
    if let Err(error) = tcp.set_nodelay(true) {
        log::debug!("cannot turn off Nagle's algorithm: {error}");
    }
}

/// Closes connections that nobody used for long, until the pool is gone.
async fn sweep(pool: Weak<Pool>) {
    loop {
        tokio::time::sleep(SWEEP).await;
        let Some(pool) = pool.upgrade() else { return };
        pool.kept.borrow_mut().retain(|_, kept| {
            kept.retain(|kept| kept.since.elapsed() < pool.idle && stands(&kept.socket));
            !kept.is_empty()
        });
    }
}
