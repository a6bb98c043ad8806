//! Services as they run, for the tests of their authors: real nodes on free ports of this machine that find each other within
//! the test's process. Nothing else is needed, and tests may run at once.
//!
//! ```
//! use goms::testing::Cluster;
//! use goms::{Context, Service, ServiceError};
//! use serde_json::{Value, json};
//!
//! async fn hello(_ctx: Context, body: Value) -> Result<Value, ServiceError> {
//!     Ok(json!({"hello": body["name"]}))
//! }
//!
//! let shop = Service::new("shop").route("/hello", hello);
//! let cluster = Cluster::start("services: { shop: { hello: /hello } }", [shop])?;
//! let answer = cluster.post("shop", "/hello", &json!({"name": "Ann"}))?;
//! assert_eq!((answer.status, answer.json()), (200, Some(json!({"hello": "Ann"}))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::Serialize;
use tokio::sync::oneshot;

use super::process::{LOOPBACK, Process};
use super::service::{Listening, Served};
use super::{AppError, ports, service};
use crate::config::{CommonFlags, Config, NodeFlags, RegistryWord};
use crate::service::Service;
use crate::trace::CALL_KEY_HEADER;

/// How long a request may take.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
/// Tests do not wait for connections that idle.
const DRAIN: Duration = Duration::from_secs(1);
/// Fields of an answer's head.
const MOST_FIELDS: usize = 128;

/// Running services. Dropping it ends them.
#[derive(Debug)]
pub struct Cluster {
    addresses: BTreeMap<String, SocketAddr>,
    call_key: Option<String>,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    folder: PathBuf,
}

/// What a service answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// Names in lower case, and values.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: Vec<u8>,
}

impl Answer {
    /// The body as JSON; `None` if it is none.
    #[must_use]
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(&self.body).ok()
    }
}

impl Cluster {
    /// Starts a node of each service and waits until all answer. `config` is the text of a config file: `ctx.call` finds
    /// actions there. Its registry is the test's own, and nothing is traced.
    ///
    /// # Errors
    /// [`AppError`] when the config is bad or a node cannot start.
    pub fn start(config: &str, services: impl IntoIterator<Item = Service>) -> Result<Self, AppError> {
        let folder = std::env::temp_dir().join(format!("goms-testing-{}", uuid::Uuid::new_v4().simple()));
        let common = CommonFlags {
            registry: Some(RegistryWord::Memory),
            data_dir: Some(folder.clone()),
            runtime_dir: Some(folder.clone()),
            ..CommonFlags::default()
        };
        let node = NodeFlags { bind: Some(LOOPBACK), access_log: Some(false), ..NodeFlags::default() };
        let mut config = Config::parse("config", config, &common, &node)?;
        config.trace.sample = 0.0;
        config.node.drain_timeout = DRAIN;
        let call_key = config.call_keys.first().map(|key| key.to_string());
        let services: Vec<Service> = services.into_iter().collect();
        let (started, outcome) = mpsc::channel();
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new()
            .name("goms-testing".to_owned())
            .spawn(move || actix_web::rt::System::new().block_on(run(config, services, &started, ended)))
            .map_err(AppError::Start)?;
        let mut cluster = Self { addresses: BTreeMap::new(), call_key, end: Some(end), thread: Some(thread), folder };
        let gone = |_| AppError::Unavailable("the services did not start".to_owned());
        cluster.addresses = outcome.recv().map_err(gone)??;
        Ok(cluster)
    }

    /// Where a service takes HTTP.
    #[must_use]
    pub fn address(&self, service: &str) -> Option<SocketAddr> {
        self.addresses.get(service).copied()
    }

    /// Sends a service what a gateway would: `POST` with a body in JSON and the call key, if the config has one.
    ///
    /// # Errors
    /// When there is no such service or it does not answer.
    pub fn post(&self, service: &str, path: &str, body: &impl Serialize) -> std::io::Result<Answer> {
        let body = serde_json::to_vec(body)?;
        self.request("POST", service, path, &[("Content-Type", "application/json")], &body)
    }

    /// Sends any request, with the call key, if the config has one.
    ///
    /// # Errors
    /// When there is no such service or it does not answer.
    pub fn request(
        &self,
        method: &str,
        service: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> std::io::Result<Answer> {
        let address = self.address(service).ok_or_else(|| {
            std::io::Error::other(format!("no service `{service}` was started; give it to `Cluster::start`"))
        })?;
        // an answer of HTTP/1.0 ends with its connection
        let mut head = format!("{method} {path} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n", body.len());
        let key = self.call_key.as_deref().map(|key| (CALL_KEY_HEADER, key));
        for (name, value) in headers.iter().copied().chain(key) {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str("\r\n");
        let mut connection = TcpStream::connect(address)?;
        connection.set_read_timeout(Some(REQUEST_LIMIT))?;
        connection.write_all(&[head.as_bytes(), body].concat())?;
        let mut bytes = Vec::new();
        connection.read_to_end(&mut bytes)?;
        read(&bytes).ok_or_else(|| std::io::Error::other("the answer is no HTTP"))
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.end.take());
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) && !std::thread::panicking() {
            eprintln!("goms: the services of a test panicked");
        }
        // a service that wrote nothing left no folder
        std::fs::remove_dir_all(&self.folder).ok();
    }
}

fn read(bytes: &[u8]) -> Option<Answer> {
    let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
    let mut head = httparse::Response::new(&mut fields);
    let httparse::Status::Complete(length) = head.parse(bytes).ok()? else { return None };
    let text = |value: &[u8]| String::from_utf8_lossy(value).into_owned();
    let headers = head.headers.iter().map(|field| (field.name.to_ascii_lowercase(), text(field.value))).collect();
    Some(Answer { status: head.code?, headers, body: bytes[length..].to_vec() })
}

type Started = Result<BTreeMap<String, SocketAddr>, AppError>;

/// Runs the services until `ended` resolves.
async fn run(config: Config, services: Vec<Service>, started: &mpsc::Sender<Started>, ended: oneshot::Receiver<()>) {
    let process = match Process::open(config, None) {
        Ok(process) => process,
        Err(error) => return tell(started, Err(error)),
    };
    let mut nodes = Vec::new();
    let outcome = start(&process, services, &mut nodes).await;
    let failed = outcome.is_err();
    tell(started, outcome);
    if !failed {
        // dropping the sender asks for the end, too
        ended.await.ok();
    }
    process.end(nodes).await;
}

fn tell(started: &mpsc::Sender<Started>, outcome: Started) {
    if started.send(outcome).is_err() {
        log::debug!("nobody waits for the services of a test");
    }
}

async fn start(process: &Process, services: Vec<Service>, nodes: &mut Vec<super::running::RunningNode>) -> Started {
    let mut addresses = BTreeMap::new();
    for handlers in services {
        let name = handlers.name().to_owned();
        let ports = ports::bind(LOOPBACK, 0, 0)?;
        let address = ports.http.local_addr().map_err(AppError::Start)?;
        let listening = service::listen(process, ports, Served::Handlers(handlers), 1).await?;
        let Listening { node, load, version, endpoints, streams, rpc_services, .. } = listening;
        let mut meta = process.meta(address); // it has no admin port, and nobody asks
        meta.admin = None;
        meta.version = version;
        meta.streams = streams;
        meta.tell_methods(endpoints, rpc_services);
        node.rpc.set_serving(true).await;
        let id = node.id.clone();
        nodes.push(node);
        process.register(&id, meta, Some(load)).await?;
        addresses.insert(name, address);
    }
    Ok(addresses)
}
