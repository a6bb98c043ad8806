//! MQTT by TLS. The client's own TLS stands on crates that nobody keeps, so it speaks to a Unix socket in a folder of this
//! process alone, and each of its connections is carried to the server from there.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::{BrokerError, unique};
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::trust::{self, Roots};

/// A server's connection with its handshake; as long as the client waits.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// After an accept that failed: no more file descriptors, most of the time.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// Where the client connects to; ends when dropped.
#[derive(Debug)]
pub(super) struct Carrier {
    folder: PathBuf,
    _end: DropGuard,
}

/// Where connections go.
#[derive(Clone)]
struct Server {
    address: (String, u16),
    name: ServerName<'static>,
    tls: TlsConnector,
}

impl Carrier {
    /// Listens for the client. `ca_file` vouches for the server; `None`: whom this system trusts.
    ///
    /// # Errors
    /// [`BrokerError::Setting`] when there cannot be TLS to that server.
    pub(super) fn open(
        host: &str,
        port: u16,
        ca_file: Option<&Path>,
        shutdown: &Shutdown,
    ) -> Result<Arc<Self>, BrokerError> {
        let bad = |reason: String| BrokerError::Setting { setting: "address", reason };
        let tls = trust::client(ca_file.map_or(Roots::System, Roots::Only), None);
        let tls = tls.map_err(|error| BrokerError::Setting { setting: "caFile", reason: chain(&error) })?;
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| bad(format!("`{host}` is no name that a certificate could have")))?;
        let folder = std::env::temp_dir().join(format!("goms-mqtt-{}", unique()));
        let unusable = |error: std::io::Error| bad(format!("cannot listen in `{}`: {error}", folder.display()));
        std::fs::DirBuilder::new().mode(0o700).create(&folder).map_err(unusable)?;
        let end = CancellationToken::new();
        // from here on the folder goes with it
        let carrier = Self { folder: folder.clone(), _end: end.clone().drop_guard() };
        let listener = UnixListener::bind(carrier.file()).map_err(unusable)?;
        let server = Server { address: (host.to_owned(), port), name, tls: TlsConnector::from(Arc::new(tls)) };
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

async fn accept(listener: UnixListener, server: Server, shutdown: &Shutdown) {
    let mut said = false;
    loop {
        match listener.accept().await {
            Ok((client, _)) => match timeout(CONNECT_LIMIT, server.connect()).await {
                Ok(Ok(line)) => {
                    said = false;
                    let ending = shutdown.clone();
                    shutdown.spawn(async move {
                        tokio::select! {
                            () = ending.begun() => {}
                            () = carry(client, line) => {}
                        }
                    });
                }
                failed => {
                    let reason = failed.map_or_else(
                        |_| "no answer in time".to_owned(),
                        |failed| failed.err().map(|error| error.to_string()).unwrap_or_default(),
                    );
                    let (host, port) = &server.address;
                    if !std::mem::replace(&mut said, true) {
                        log::warn!("mqtt is not reached by TLS address={host}:{port} reason=\"{reason}\"");
                    }
                }
            },
            Err(error) => {
                log::debug!("a connection for mqtt cannot be accepted: {error}");
                sleep(ACCEPT_AGAIN).await;
            }
        }
    }
}

type Line = tokio_rustls::client::TlsStream<TcpStream>;

impl Server {
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
