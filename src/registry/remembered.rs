//! The catalog on disk: a process that starts while etcd (or Consul) is away goes on with the nodes as they were last.
//!
//! ```text
//! <data folder>/catalog/etcd-goms-1f2e3d4c.json    {"version":1,"writtenMs":…,"nodes":[{"service":"user","rpc":…,"http":…,"meta":…}]}
//! ```
//! - Written while the server answers: at once when it told the first catalog, then within [`SETTLE`] of a change, and every
//!   [`REFRESH`], so that its age is that of the last answer. A new file takes the old one's place, so nobody reads half a
//!   one; the processes of a machine share it. The name has a hash of the server's addresses.
//! - Read only where the server cannot be reached at the start. Its nodes are `stale`: called until they refuse a
//!   connection. The server's first answer replaces all of it.
//! - A file that is too old, torn, of another version, or that others may write to is ignored, with a line in the log.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::net::IpAddr;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout_at};

use super::{Backend, Catalog, CatalogWatch, HostPort, Node, NodeId, NodeMeta, NodeState, Publisher, Settings};
use crate::causes::chain;
use crate::shutdown::Shutdown;

/// Of the file's form.
const VERSION: u32 = 1;
/// Changes that come together are written together.
const SETTLE: Duration = Duration::from_secs(1);
/// How often an unchanged catalog is written, for its age.
const REFRESH: Duration = Duration::from_secs(60);
/// 100,000 nodes with their metadata.
const MOST_BYTES: u64 = 64 << 20;
/// Clocks of a machine jump so far at most.
const CLOCK_SLACK: Duration = Duration::from_secs(60);
/// Enough of a hash to tell servers apart.
const HASH_BYTES: usize = 4;

/// Whether and where the catalog is kept on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remember {
    /// The folder.
    pub dir: PathBuf,
    /// How old it may be when it is used.
    pub age: Duration,
}

/// Why a file is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum RecallError {
    #[error("it cannot be read")]
    Io(#[from] std::io::Error),
    #[error("it has {0} bytes, over {MOST_BYTES}")]
    Size(u64),
    #[error("others may write to it; take their right away or delete it")]
    Shared,
    #[error("it belongs to another user; delete it")]
    Owner,
    #[error("it is no catalog")]
    Json(#[from] serde_json::Error),
    #[error("its version is {0}, not {VERSION}")]
    Version(u32),
    #[error("it is {0:?} old, over `registry.remember`")]
    Old(Duration),
    #[error("it was written in the future")]
    Future,
    #[error("`{0}` cannot be a service's name")]
    Service(String),
}

/// One registry's file.
pub(super) struct Remembered {
    file: PathBuf,
    age: Duration,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Page {
    version: u32,
    written_ms: i64,
    nodes: Vec<Line>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Line {
    service: String,
    rpc: Address,
    http: Address,
    meta: NodeMeta,
    /// The key of a record that another system wrote.
    record: Option<String>,
    draining: bool,
}

#[derive(Serialize, Deserialize)]
struct Address {
    ip: IpAddr,
    port: Option<u16>,
}

impl Remembered {
    /// Keeps what a registry tells on disk while it `is_live`, until its handle `ended`; the file. `None`: its catalog is not to
    /// be kept.
    pub(super) fn start(
        settings: &Settings,
        told: CatalogWatch,
        is_live: impl Fn() -> bool + Send + 'static,
        (shutdown, ended): (&Shutdown, impl Future<Output = ()> + Send + 'static),
    ) -> Option<Arc<Self>> {
        let remembered = Self::of(settings)?;
        let keeping = remembered.clone();
        shutdown.spawn(async move {
            tokio::select! {
                () = ended => {}
                () = keeping.keep(told, is_live) => {}
            }
        });
        Some(remembered)
    }

    /// The file of a registry.
    fn of(settings: &Settings) -> Option<Arc<Self>> {
        let Remember { dir, age } = settings.remember.as_ref()?;
        let mut addresses: Vec<&str> = match &settings.backend {
            Backend::Etcd(etcd) => etcd.endpoints.iter().map(String::as_str).collect(),
            Backend::Consul(consul) => vec![&consul.address],
            Backend::Kubernetes(kubernetes) => vec![&kubernetes.address, &kubernetes.pods, &kubernetes.selector],
            Backend::Memory | Backend::Local { .. } | Backend::Mdns | Backend::Static { .. } => return None,
        };
        addresses.sort_unstable();
        let hash = Sha256::digest(addresses.join(","));
        let hash: String = hash[..HASH_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        let name = format!("{}-{}-{hash}.json", settings.backend.kind(), settings.namespace);
        Some(Arc::new(Self { file: dir.join(name), age: *age }))
    }

    /// Publishes what the file has, unless something was published already.
    pub(super) async fn recall(self: Arc<Self>, publisher: &Publisher, kind: &str) {
        let remembered = self.clone();
        let now_ms = jiff::Timestamp::now().as_millisecond();
        let read = tokio::task::spawn_blocking(move || remembered.read(now_ms)).await;
        let file = self.file.display();
        match read {
            Ok(Ok((nodes, age))) => {
                let count = nodes.len();
                if publisher.recall(nodes) {
                    log::warn!("{kind} is away, going on with {count} nodes as it told them {age:.0?} ago file={file}");
                }
            }
            Ok(Err(RecallError::Io(error))) if error.kind() == std::io::ErrorKind::NotFound => {}
            Ok(Err(error)) => log::warn!("catalog on disk is ignored file={file} reason=\"{}\"", chain(&error)),
            Err(error) => log::error!("catalog on disk is not read file={file} reason=\"{error}\""),
        }
    }

    /// Writes every catalog that the server tells. `is_live` says whether it answers now.
    pub(super) async fn keep(self: Arc<Self>, mut catalog: CatalogWatch, is_live: impl Fn() -> bool) {
        let mut failed = false;
        let mut again = None;
        loop {
            let newest = catalog.borrow_and_update().clone();
            if let Some(newest) = newest.filter(|_| is_live()) {
                let (remembered, now_ms) = (self.clone(), jiff::Timestamp::now().as_millisecond());
                let written = tokio::task::spawn_blocking(move || remembered.write(&newest, now_ms)).await;
                let error = match written {
                    Ok(written) => written.err().map(|error| error.to_string()),
                    Err(error) => Some(error.to_string()),
                };
                if let Some(error) = &error
                    && !failed
                {
                    log::warn!("catalog is not kept on disk file={} reason=\"{error}\"", self.file.display());
                }
                failed = error.is_some();
                again = Some(Instant::now() + REFRESH);
                sleep(SETTLE).await;
            }
            let due = again.take().unwrap_or_else(|| Instant::now() + REFRESH);
            if matches!(timeout_at(due, catalog.changed()).await, Ok(Err(_))) {
                return; // the registry is gone
            }
        }
    }

    fn write(&self, catalog: &Catalog, now_ms: i64) -> std::io::Result<()> {
        let folder = self.file.parent().unwrap_or(Path::new("."));
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        // no process id: in two containers with one volume it is the same
        let fresh = self.file.with_extension(format!("{}.tmp", uuid::Uuid::new_v4().simple()));
        let written = self.write_to(&fresh, catalog, now_ms);
        if written.is_err()
            && let Err(error) = std::fs::remove_file(&fresh)
        {
            log::debug!("cannot remove `{}`: {error}", fresh.display());
        }
        written
    }

    fn write_to(&self, fresh: &Path, catalog: &Catalog, now_ms: i64) -> std::io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(fresh)?;
        let page = Page { version: VERSION, written_ms: now_ms, nodes: catalog.all().map(|node| line(node)).collect() };
        file.write_all(&serde_json::to_vec(&page)?)?;
        file.sync_all()?;
        std::fs::rename(fresh, &self.file)
    }

    fn read(&self, now_ms: i64) -> Result<(Vec<Node>, Duration), RecallError> {
        let file = File::open(&self.file)?;
        let meta = file.metadata()?;
        if meta.uid() != rustix::process::geteuid().as_raw() {
            return Err(RecallError::Owner);
        }
        if meta.mode() & 0o022 != 0 {
            return Err(RecallError::Shared);
        }
        if meta.len() > MOST_BYTES {
            return Err(RecallError::Size(meta.len()));
        }
        let mut text = Vec::new();
        file.take(MOST_BYTES).read_to_end(&mut text)?;
        self.parse(&text, now_ms)
    }

    fn parse(&self, text: &[u8], now_ms: i64) -> Result<(Vec<Node>, Duration), RecallError> {
        let page: Page = serde_json::from_slice(text)?;
        if page.version != VERSION {
            return Err(RecallError::Version(page.version));
        }
        let age = now_ms.saturating_sub(page.written_ms);
        if age < -i64::try_from(CLOCK_SLACK.as_millis()).unwrap_or(i64::MAX) {
            return Err(RecallError::Future);
        }
        let age = Duration::from_millis(age.max(0).unsigned_abs());
        if age > self.age {
            return Err(RecallError::Old(age));
        }
        Ok((page.nodes.into_iter().map(node).collect::<Result<_, _>>()?, age))
    }
}

fn line(node: &Node) -> Line {
    let address = |at: HostPort| Address { ip: at.ip, port: at.port };
    Line {
        service: node.id.service.clone(),
        rpc: address(node.id.rpc),
        http: address(node.id.http),
        meta: node.meta.clone(),
        record: node.meta.record.clone(),
        draining: node.state == NodeState::Draining,
    }
}

fn node(line: Line) -> Result<Node, RecallError> {
    let Line { service, rpc, http, mut meta, record, draining } = line;
    let bad = |letter: char| letter == '/' || letter.is_control() || letter.is_whitespace();
    if service.is_empty() || service.starts_with('.') || service.contains(bad) {
        return Err(RecallError::Service(service));
    }
    meta.record = record;
    let address = |at: Address| HostPort { ip: at.ip, port: at.port.filter(|port| *port > 0) };
    let mut node = Node::new(NodeId { service, rpc: address(rpc), http: address(http) }, meta);
    node.state = if draining { NodeState::Draining } else { NodeState::Stale };
    Ok(node)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::super::{EtcdSettings, Format};
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn remembered(dir: &Path, endpoints: &[&str]) -> Arc<Remembered> {
        let settings = Settings {
            backend: Backend::Etcd(EtcdSettings {
                endpoints: endpoints.iter().map(|text| (*text).to_owned()).collect(),
                ..EtcdSettings::default()
            }),
            namespace: "goms".to_owned(),
            register_ttl: HOUR,
            register_interval: HOUR,
            grace: HOUR,
            format: Format::Goms,
            remember: Some(Remember { dir: dir.to_owned(), age: HOUR }),
        };
        Remembered::of(&settings).expect("etcd's is kept")
    }

    fn catalog() -> Arc<Catalog> {
        let address = |port| HostPort { ip: IpAddr::from([10, 0, 0, 1]), port };
        let id = |service: &str| NodeId { service: service.to_owned(), rpc: address(Some(1)), http: address(None) };
        let meta = NodeMeta { weight: 7, record: Some("/micro/registry/a/1".into()), ..NodeMeta::default() };
        let mut leaving = Node::new(id("b"), NodeMeta::default());
        leaving.state = NodeState::Draining;
        let publisher = Publisher::new();
        publisher.publish(vec![Node::new(id("a"), meta), leaving]);
        publisher.current().expect("published")
    }

    #[test]
    fn what_is_written_is_read_as_stale() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = remembered(&folder.path().join("new"), &["a:1", "b:2"]);
        assert_eq!(kept.file, remembered(&folder.path().join("new"), &["b:2", "a:1"]).file);
        assert_ne!(kept.file, remembered(&folder.path().join("new"), &["b:2"]).file, "another server's is another");
        kept.write(&catalog(), 1_000).expect("written");
        let (nodes, age) = kept.read(61_000).expect("good");
        assert_eq!(age, Duration::from_secs(60));
        let states: Vec<NodeState> = nodes.iter().map(|node| node.state).collect();
        assert_eq!(states, [NodeState::Stale, NodeState::Draining]);
        let mut expected: Vec<Node> = catalog().all().map(|node| Node::clone(node)).collect();
        expected[0].state = NodeState::Stale;
        assert_eq!(nodes, expected);
        let left: Vec<_> = std::fs::read_dir(folder.path().join("new")).expect("a folder").collect();
        assert_eq!(left.len(), 1, "nothing else stays");
    }

    #[test]
    fn a_file_that_cannot_be_trusted_is_not_used() {
        let folder = tempfile::tempdir().expect("a folder");
        let kept = remembered(folder.path(), &["a:1"]);
        kept.write(&catalog(), 0).expect("written");
        let hour_ms = i64::try_from(HOUR.as_millis()).expect("small");
        assert!(kept.read(hour_ms).is_ok());
        assert!(matches!(kept.read(hour_ms + 1), Err(RecallError::Old(_))));
        assert!(kept.read(-60_000).is_ok());
        assert!(matches!(kept.read(-60_001), Err(RecallError::Future)));
        std::fs::set_permissions(&kept.file, std::fs::Permissions::from_mode(0o620)).expect("set");
        assert!(matches!(kept.read(0), Err(RecallError::Shared)));
        let text = std::fs::read(&kept.file).expect("there");
        if rustix::process::geteuid().is_root() {
            std::fs::set_permissions(&kept.file, std::fs::Permissions::from_mode(0o600)).expect("set");
            std::os::unix::fs::chown(&kept.file, Some(12_345), None).expect("given away");
            assert!(matches!(kept.read(0), Err(RecallError::Owner)));
        }
        for end in 0..text.len() {
            assert!(kept.parse(&text[..end], 0).is_err(), "torn at {end}");
        }
        let text = String::from_utf8(text).expect("text");
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"service\":\"a\"", "\"service\":\"../a\""),
            ("\"service\":\"a\"", "\"service\":\"\""),
            ("10.0.0.1", "10.0.0.1.5"),
            ("\"port\":1", "\"port\":70000"),
        ] {
            let hostile = text.replacen(from, to, 1);
            assert_ne!(hostile, text, "{from}");
            assert!(kept.parse(hostile.as_bytes(), 0).is_err(), "{to}");
        }
    }
}
