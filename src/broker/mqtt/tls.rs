//! MQTT by TLS. The client's own TLS stands on crates that nobody keeps, so it speaks to a Unix socket in a folder of this
//! process alone, and each of its connections is carried to the server from there.

use std::fs::Permissions;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::{BrokerError, unique};
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::trust::{self, Roots};

/// A server's connection with its handshake; as long as the client waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Connections that are made to the server at a time; the process has a client for each topic.
const CONNECTING: usize = 16;
/// After an accept that failed: no more file descriptors, most of the time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where the client connects to; ends when dropped.
#[derive(Debug)]
pub(super) struct Carrier {
    folder: PathBuf,
    _end: DropGuard,
}

/// Where connections go.
struct Server {
    address: (String, u16),
    name: ServerName<'static>,
    tls: TlsConnector,
    /// It was not reached, and the log says so.
    is_away: AtomicBool,
}

impl Carrier {
    /// Listens for the client in a folder of its own in `runtime`. `ca_file` vouches for the server; `None`: whom this
    /// system trusts.
    ///
    /// # Errors
    /// [`BrokerError::Setting`] when there cannot be TLS to that server.
    pub(super) fn open(
        host: &str,
        port: u16,
        ca_file: Option<&Path>,
        runtime: &Path,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, BrokerError> {
        let bad = |reason: String| BrokerError::Setting { setting: "address", reason };
        let tls = trust::client(ca_file.map_or(Roots::System, Roots::Only), None);
        let tls = tls.map_err(|error| BrokerError::Setting { setting: "caFile", reason: chain(&error) })?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| bad(format!("`{host}` is no name that a certificate could have")))?;
        let folder = runtime.join(format!("mqtt-{}", unique()));
        let unusable = |error: std::io::Error| bad(format!("cannot listen in `{}`: {error}", folder.display()));
        std::fs::DirBuilder::new().mode(0o700).recursive(true).create(&folder).map_err(unusable)?;
        let end = CancellationToken::new();
        // from here on the folder goes with it
        let carrier = Self { folder: folder.clone(), _end: end.clone().drop_guard() };
        let listener = UnixListener::bind(carrier.file()).map_err(unusable)?;
        std::fs::set_permissions(carrier.file(), Permissions::from_mode(0o600)).map_err(unusable)?;
        let tls = TlsConnector::from(Arc::new(tls));
        let server = Server { address: (host.to_owned(), port), name, tls, is_away: AtomicBool::new(false) };
        let server = Arc::new(server);
        let ending = shutdown.clone();
        shutdown.spawn(async move {
            tokio::select! {
                () = ending.begun() => {}
                () = end.cancelled() => {}
                () = accept(listener, server, &ending) => {}
            }
        });
        Ok(Arc::new(carrier))
    }

    /// The socket.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

impl Drop for Carrier {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.folder) {
            log::debug!("cannot remove `{}`: {error}", self.folder.display());
        }
    }
}

async fn accept(listener: UnixListener, server: Arc<Server>, shutdown: &Shutdown) {
    let connecting = Arc::new(Semaphore::new(CONNECTING));
    loop {
        let Ok(turn) = connecting.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok((client, _)) => {
                let (server, ending) = (server.clone(), shutdown.clone());
                shutdown.spawn(async move {
                    let carried = async {
                        let line = server.reach().await;
                        drop(turn);
                        if let Some(line) = line {
                            carry(client, line).await;
                        }
                    };
                    tokio::select! {
                        () = ending.begun() => {}
                        () = carried => {}
                    }
                });
            }
            Err(error) => {
                log::debug!("a connection for mqtt cannot be accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

type Line = tokio_rustls::client::TlsStream<TcpStream>;

impl Server {
    /// A connection, unless the server is away, which the log says once.
    async fn reach(&self) -> Option<Line> {
        let reason = match timeout(CONNECT_LIMIT, self.connect()).await {
            Ok(Ok(line)) => {
                self.is_away.store(false, Ordering::Relaxed);
                return Some(line);
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        if !self.is_away.swap(true, Ordering::Relaxed) {
            let (host, port) = &self.address;
            log::warn!("mqtt is not reached by TLS address={host}:{port} reason=\"{reason}\"");
        }
        None
    }

    async fn connect(&self) -> std::io::Result<Line> {
        let (host, port) = &self.address;
        let socket = TcpStream::connect((host.as_str(), *port)).await?;
        socket.set_nodelay(true)?;
        self.tls.connect(self.name.clone(), socket).await
    }
}

async fn carry(mut client: UnixStream, mut line: Line) {
    if let Err(error) = copy_bidirectional(&mut client, &mut line).await {
        log::debug!("a connection of mqtt by TLS broke: {error}");
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;
    use tokio::net::TcpListener;

    use super::*;

    /// A server that takes connections and says nothing.
    #[tokio::test]
    async fn a_silent_server_holds_up_no_other_connection() {
        let silent = TcpListener::bind(("127.0.0.1", 0)).await.expect("bound");
        let port = silent.local_addr().expect("bound").port();
        let runtime = tempfile::tempdir().expect("a folder");
        let shutdown = Shutdown::new();
        let folder = runtime.path().join("goms");
        let carrier = Carrier::open("127.0.0.1", port, None, &folder, &shutdown).expect("listens");
        let mode = std::fs::metadata(carrier.file()).expect("there").permissions().mode();
        assert_eq!((mode & 0o777, carrier.file().starts_with(&folder)), (0o600, true));
        let mut held = Vec::new();
        for _ in 0..3 {
            let client = UnixStream::connect(carrier.file()).await.expect("connected");
            let (mut server, _) =
                timeout(CONNECT_LIMIT / 2, silent.accept()).await.expect("not behind others").expect("it comes");
            assert_eq!(server.read_u8().await.expect("a handshake begins"), 22);
            held.push((client, server));
        }
        drop(carrier);
        assert_eq!(std::fs::read_dir(&folder).expect("there").count(), 0, "nothing stays");
        shutdown.begin();
    }
}
