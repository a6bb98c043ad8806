//! Where a process hears: an HTTP/1.1 server that puts each message into the inbox of the hearer that it names.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use http_body::Body;
use http_v1::{Method, Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::{delivery, letter};
use crate::broker::{BrokerError, Delivery, MOST_BYTES};
use crate::shutdown::Shutdown;

/// A body in base64, with its headers.
const MOST_LETTER: usize = MOST_BYTES / 3 * 4 + (64 << 10);
/// Until a head, or a body, is here.
const READ_LIMIT: Duration = Duration::from_secs(10);
/// Until there is room in an inbox; then the message is the sender's to give to another.
const ROOM_LIMIT: Duration = Duration::from_secs(10);
/// After an accept that failed: no more file descriptors, most of the time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
const MAX_CONNECTIONS: usize = 1024;

/// The server of a process, for all that it hears.
pub(super) struct Door {
    address: SocketAddr,
    inboxes: Mutex<HashMap<String, Inbox>>,
}

#[derive(Clone)]
struct Inbox {
    topic: String,
    sender: mpsc::Sender<Delivery>,
}

impl Door {
    /// Listens. `advertised` is the IP that others call it by.
    ///
    /// # Errors
    /// [`BrokerError::Setting`] when the address cannot be bound.
    pub(super) async fn open(
        listen: SocketAddr,
        advertised: IpAddr,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, BrokerError> {
        let bound = async {
            let listener = TcpListener::bind(listen).await?;
            let port = listener.local_addr()?.port();
            Ok::<_, std::io::Error>((listener, port))
        };
        let (listener, port) = bound.await.map_err(|error| BrokerError::Setting {
            setting: "address",
            reason: format!("cannot listen on `{listen}`: {error}"),
        })?;
        let door = Arc::new(Self { address: SocketAddr::new(advertised, port), inboxes: Mutex::default() });
        log::info!("Broker [http] Listening on {}", door.address);
        shutdown.spawn(accept(listener, door.clone(), shutdown.clone()));
        Ok(door)
    }

    /// Where others send to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Takes what is sent to a hearer.
    pub(super) fn add(&self, id: &str, topic: &str, sender: mpsc::Sender<Delivery>) {
        self.inboxes().insert(id.to_owned(), Inbox { topic: topic.to_owned(), sender });
    }

    /// Takes no more for it.
    pub(super) fn remove(&self, id: &str) {
        self.inboxes().remove(id);
    }

    fn inboxes(&self) -> MutexGuard<'_, HashMap<String, Inbox>> {
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn take(&self, request: Request<Incoming>) -> (StatusCode, String) {
        if request.method() != Method::POST {
            return (StatusCode::METHOD_NOT_ALLOWED, "send messages by POST".to_owned());
        }
        let query = request.uri().query().unwrap_or_default();
        let id = url::form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "id");
        let inbox = id.and_then(|(_, id)| self.inboxes().get(&*id).cloned());
        let Some(inbox) = inbox else {
            return (StatusCode::NOT_FOUND, "nobody hears by that id".to_owned());
        };
        let letter = match timeout(READ_LIMIT, whole(request.into_body())).await {
            Ok(Ok(letter)) => letter,
            Ok(Err(refused)) => return refused,
            Err(_) => return (StatusCode::REQUEST_TIMEOUT, "the message did not come in time".to_owned()),
        };
        let message = match letter::read(&letter) {
            Ok(message) if message.topic == inbox.topic => message,
            Ok(_) => return (StatusCode::NOT_FOUND, "that topic is not heard by that id".to_owned()),
            Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()),
        };
        match timeout(ROOM_LIMIT, inbox.sender.send(delivery(message))).await {
            Ok(Ok(())) => (StatusCode::OK, String::new()),
            Ok(Err(_)) => (StatusCode::NOT_FOUND, "nobody hears by that id any more".to_owned()),
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too many messages wait".to_owned()),
        }
    }
}

async fn accept(listener: TcpListener, door: Arc<Door>, shutdown: Shutdown) {
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            let permit = room.clone().acquire_owned().await;
            (permit, listener.accept().await)
        };
        let (permit, accepted) = tokio::select! {
            () = shutdown.begun() => return,
            next = next => next,
        };
        match accepted {
            Ok((socket, _)) => {
                let (door, ending) = (door.clone(), shutdown.clone());
                shutdown.spawn(async move {
                    tokio::select! {
                        () = ending.begun() => {}
                        () = serve(socket, door) => {}
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                log::warn!("messages cannot be accepted, trying again: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

async fn serve(socket: TcpStream, door: Arc<Door>) {
    let service = service_fn(move |request| {
        let door = door.clone();
        async move {
            let (status, text) = door.take(request).await;
            let mut answer = Response::new(text);
            *answer.status_mut() = status;
            Ok::<_, Infallible>(answer)
        }
    });
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(READ_LIMIT);
    if let Err(error) = server.serve_connection(TokioIo::new(socket), service).await {
        log::debug!("a connection that brings messages broke: {error}");
    }
}

async fn whole(body: Incoming) -> Result<BytesMut, (StatusCode, String)> {
    let mut body = std::pin::pin!(body);
    let mut letter = BytesMut::new();
    while let Some(frame) = std::future::poll_fn(|context| body.as_mut().poll_frame(context)).await {
        let frame = frame.map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
        if let Ok(part) = frame.into_data() {
            if letter.len() + part.len() > MOST_LETTER {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, format!("a letter has at most {MOST_LETTER} bytes")));
            }
            letter.extend_from_slice(&part);
        }
    }
    Ok(letter)
}
