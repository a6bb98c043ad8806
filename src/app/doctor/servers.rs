//! What the config names: registry, RabbitMQ, the trace store, and the clocks of the other nodes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use actix_web::http::header::{DATE, HttpDate};

use super::Finding;
use crate::app::{process, trace_consumer};
use crate::causes::chain;
use crate::config::Config;
use crate::metrics::Metrics;
use crate::registry::{Backend, Catalog};
use crate::shutdown::Shutdown;
use crate::store::{self, Query, Settings, TraceStore};
use crate::trace::Transport;
use crate::trace::transport::connection::Broker;

/// How long a server may take; on a network of one's own it takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);
/// How far clocks may stand apart: `Date` has seconds, and a span's place in a trace is of use only when clocks agree.
const APART: Duration = Duration::from_secs(2);
/// Nodes whose clocks are looked at.
const MOST_CLOCKS: usize = 64;

/// The part's name.
const STORE: &str = "trace store";

/// Whether the registry can be read, and what it knows.
pub(super) async fn registry(config: &Config) -> (Finding, Option<Arc<Catalog>>) {
    let backend = &config.registry.backend;
    let broken = |error: &dyn std::error::Error| {
        let advice = match backend {
            Backend::Etcd(_) => {
                "is etcd running there, and does a firewall let you through? `etcdctl endpoint health` tells"
            }
            Backend::Consul(_) => "is a Consul agent running there? `consul members` tells",
            Backend::Kubernetes(_) => {
                "may its service account list endpointslices? `kubectl auth can-i list endpointslices --as …` tells"
            }
            _ => "name another with `--registry` and `--registry-address`",
        };
        Finding::broken("registry", chain(error), advice)
    };
    let began = Instant::now();
    let registry = match process::open_registry(config) {
        Ok(registry) => registry,
        Err(error) => return (broken(&error), None),
    };
    match process::known_catalog(&*registry, config, PATIENCE).await {
        Ok(catalog) => {
            let (nodes, address) = (catalog.all().count(), backend.address());
            let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
            let text = format!("{}{at}: {nodes} nodes, read in {:.0?}", registry.kind(), began.elapsed());
            let found = match nodes {
                0 => Finding::doubtful("registry", text, "no node is running: `goms up` starts a whole cluster"),
                _ => Finding::good("registry", text),
            };
            (found, Some(catalog))
        }
        Err(error) => (broken(&error), None),
    }
}

/// Whether RabbitMQ takes us, where events go through it, and what waits there.
pub(super) async fn queue(config: &Config) -> Option<Finding> {
    let Transport::Amqp(settings) = &config.trace.transport else { return None };
    let advice = "events wait on the disks of the nodes meanwhile; check `amqpAddr`";
    let mut broker = match Broker::new(settings) {
        Ok(broker) => broker,
        Err(error) => return Some(Finding::broken("rabbitmq", chain(&error), "mend `amqpAddr`")),
    };
    let looked = async {
        let link = broker.connect("goms doctor").await?;
        let seen = broker.look(&link).await;
        let (address, is_blocked) = (link.address().to_owned(), link.is_blocked());
        link.close().await;
        Ok::<_, crate::trace::transport::connection::BrokerError>((address, is_blocked, seen?))
    };
    let queue = &settings.queue;
    Some(match looked.await {
        Err(error) => Finding::broken("rabbitmq", chain(&error), advice),
        Ok((address, true, _)) => Finding::broken(
            "rabbitmq",
            format!("{address} takes no messages now: it is short of memory or disk"),
            "`rabbitmqctl status` tells which alarm it is",
        ),
        Ok((address, _, None)) => {
            Finding::good("rabbitmq", format!("{address}; queue `{queue}` is made by the first node that needs it"))
        }
        Ok((address, _, Some((waiting, 0)))) => Finding::doubtful(
            "rabbitmq",
            format!("{address}; {waiting} messages wait in `{queue}`, and nobody reads it"),
            "start `goms trace-consumer`",
        ),
        Ok((address, _, Some((waiting, readers)))) => {
            Finding::good("rabbitmq", format!("{address}; {waiting} messages wait in `{queue}`, {readers} read it"))
        }
    })
}

/// Whether traces can be read; nothing where that depends on a registry that cannot be read.
pub(super) async fn store(config: &Config, catalog: Option<&Catalog>) -> Option<Finding> {
    let (at, store) = match open_store(config, catalog)? {
        Ok(opened) => opened,
        Err(finding) => return Some(finding),
    };
    let began = Instant::now();
    Some(match tokio::time::timeout(PATIENCE, store.query(&Query { limit: 1, ..Query::default() })).await {
        Ok(Ok(page)) => Finding::good(STORE, format!("{at}: {} events, asked in {:.0?}", page.total, began.elapsed())),
        Ok(Err(error)) => Finding::broken(STORE, chain(&error), "`goms trace search` needs it; nothing else does"),
        Err(_) => Finding::broken(STORE, format!("{at} does not answer within {PATIENCE:?}"), "is it overloaded?"),
    })
}

/// The store and what it is.
type Opened = (String, Arc<dyn TraceStore>);

fn open_store(config: &Config, catalog: Option<&Catalog>) -> Option<Result<Opened, Finding>> {
    if let Settings::Elasticsearch(settings) = &config.store {
        let opened = store::open(&config.store, &Shutdown::new(), &Metrics::new());
        return Some(match opened {
            Ok(store) => Ok((format!("elasticsearch, index {}", settings.index), store)),
            Err(error) => Err(Finding::broken(STORE, chain(&error), "mend `esAddr` and what stands with it")),
        });
    }
    let consumers = trace_consumer::readable(catalog?);
    if consumers.is_empty() {
        let text = "no trace consumer is running; events wait on the disks of the nodes";
        return Some(Err(Finding::doubtful(STORE, text, "start `goms trace-consumer` (or `goms up`)")));
    }
    let at = format!("embedded, kept by {}", consumers.join(", "));
    let store = store::Remote::open(consumers, config.call_keys.first().cloned(), &Shutdown::new());
    Some(Ok((at, Arc::new(store))))
}

/// Whether the clocks of the nodes agree with this machine's, by what their admin ports answer.
pub(super) async fn clocks(catalog: &Catalog) -> Option<Finding> {
    let mut admins: Vec<SocketAddr> = catalog.all().filter_map(|node| node.meta.admin).collect();
    admins.sort_unstable();
    admins.dedup();
    admins.truncate(MOST_CLOCKS);
    let client = awc::Client::builder().timeout(PATIENCE).disable_redirects().finish();
    let asked = admins.iter().map(|admin| apart(&client, *admin));
    let told: Vec<_> = futures_util::future::join_all(asked).await.into_iter().flatten().collect();
    let worst = told.iter().max_by_key(|told| told.1)?;
    Some(if worst.1 > APART {
        let text = format!("that of {} stands {:.0?} apart from this machine's", worst.0, worst.1);
        Finding::doubtful("clocks", text, "traces show spans at wrong places: synchronise the clocks (NTP)")
    } else {
        Finding::good("clocks", format!("of {} processes agree with this machine's", told.len()))
    })
}

/// How far a process's clock is from ours; `None` where it does not answer.
async fn apart(client: &awc::Client, admin: SocketAddr) -> Option<(SocketAddr, Duration)> {
    let before = SystemTime::now();
    let answer = client.get(format!("http://{admin}/healthz")).send().await.ok()?;
    let after = SystemTime::now();
    let told: SystemTime = answer.headers().get(DATE)?.to_str().ok()?.parse::<HttpDate>().ok()?.into();
    // the second that it names began at most a second before
    let (early, late) = (told, told + Duration::from_secs(1));
    let ahead = early.duration_since(after).unwrap_or_default();
    let behind = before.duration_since(late).unwrap_or_default();
    Some((admin, ahead.max(behind)))
}
