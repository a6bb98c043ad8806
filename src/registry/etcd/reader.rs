//! Follows etcd: reads everything at one revision, then watches from the next. Whenever the watch ends, for whatever
//! reason (connection lost, compaction, a restarted server), it reads everything again, so nothing that happened in
//! between is missed, and a store that came back empty is seen as such.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use etcd_client::{Client, EventType, GetOptions, KeyValue, Txn, TxnOp, TxnOpResponse, TxnResponse};
use etcd_client::{WatchOptions, WatchResponse, WatchStream};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};

use super::Shared;
use super::link::{LinkError, REQUEST_TIMEOUT};
use super::view::{Change, View};
use crate::backoff::Backoff;
use crate::registry::NodeId;
use crate::registry::remembered::Remembered;
use crate::shutdown::Shutdown;

/// Short enough that everything is back within 5 s of etcd's return, long enough to cost nothing while it is away.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// Events of keys, metadata and marks come apart: what follows within this time is shown together.
const SETTLE: Duration = Duration::from_millis(5);
const SETTLE_CAP: Duration = Duration::from_millis(50);
/// How often etcd is asked whether it is awake.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);
/// An etcd that needs this long to answer was frozen: leases that run out now were not given up by their owners.
const FROZEN_AFTER: Duration = Duration::from_millis(500);
/// etcd takes 128 operations a transaction (`max-txn-ops`), and a node needs two.
const LOOK_UP_NODES: usize = 60;
/// 100,000 nodes with their metadata.
const MAX_MESSAGE_BYTES: usize = 64 << 20;

type Probe = Pin<Box<dyn Future<Output = Result<(), LinkError>> + Send>>;

/// Runs until the end. The view outlives the connections. Where the first one fails, what is remembered has its place.
pub(super) async fn follow(shared: Arc<Shared>, mut remembered: Option<Arc<Remembered>>, shutdown: Shutdown) {
    let mut view = View::new(shared.keys.clone(), shared.grace);
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut up = None;
    loop {
        let session = session(&shared, &mut view, &mut up, &mut backoff);
        let error = tokio::select! {
            () = shared.ended(&shutdown) => return,
            error = session => error,
        };
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
        if let LinkError::WatchEnded(reason) = &error {
            log::debug!("etcd watch ended, reading again: {reason}");
        } else if up != Some(false) {
            up = Some(false);
            shared.connected.set(0);
            let address = shared.link.address();
            log::warn!("etcd at `{address}` is unavailable, retrying: {error}");
        }
        if error.is_transient()
            && let Some(remembered) = remembered.take()
        {
            remembered.recall(&shared.publisher, "etcd").await;
        }
        tokio::select! {
            () = shared.ended(&shutdown) => return,
            () = sleep(backoff.next_wait()) => {}
        }
    }
}

/// One connection's life: returns why it ended.
async fn session(shared: &Shared, view: &mut View, up: &mut Option<bool>, backoff: &mut Backoff) -> LinkError {
    let mut generations = shared.link.generation();
    let (client, generation) = match shared.link.client().await {
        Ok(found) => found,
        Err(error) => return error,
    };
    let ended = run(shared, client, view, || {
        if up.replace(true) == Some(false) {
            log::info!("etcd at `{}` is back", shared.link.address());
        }
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
        shared.connected.set(1);
        backoff.reset();
    });
    let error = tokio::select! {
        result = ended => match result { Err(error) => error, Ok(never) => match never {} },
        _ = generations.wait_for(|now| *now != generation) => LinkError::Replaced,
    };
    shared.link.failed(generation).await;
    error
}

async fn run(
    shared: &Shared,
    client: Client,
    view: &mut View,
    connected: impl FnOnce(),
) -> Result<std::convert::Infallible, LinkError> {
    let (found, revision) = limited(read(shared, &client)).await?;
    view.read(found, Instant::now(), &shared.malformed);
    let mut stream = limited(watch(shared, &client, revision + 1)).await?;
    connected();
    publish(shared, view);
    shared.wake_missing(view);

    let mut probes = interval(PROBE_INTERVAL);
    probes.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut probe: Option<(Instant, Probe)> = None;
    loop {
        let expiry = view.next_expiry(|id| shared.is_own(id));
        tokio::select! {
            // In this order: a late answer to a probe is noticed before the deletions that came with it.
            biased;
            done = async { match &mut probe { Some((_, probe)) => probe.await, None => std::future::pending().await } } => {
                done?;
                if let Some((asked, _)) = probe.take() && asked.elapsed() > FROZEN_AFTER {
                    view.gap(Instant::now());
                }
            }
            message = stream.message() => {
                if probe.as_ref().is_some_and(|(asked, _)| asked.elapsed() > FROZEN_AFTER) {
                    view.gap(Instant::now());
                }
                let changes = batch(&mut stream, message).await?;
                take(shared, view, changes);
                let unexplained = view.take_unexplained();
                for some in unexplained.chunks(LOOK_UP_NODES) {
                    take(shared, view, limited(look_up(shared, &client, some)).await?);
                }
                publish(shared, view);
                shared.wake_missing(view);
            }
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                if view.expire(Instant::now(), |id| shared.is_own(id)) {
                    publish(shared, view);
                }
            }
            _ = probes.tick(), if probe.is_none() => {
                probe = Some((Instant::now(), Box::pin(awake(client.clone(), shared.keys.node_prefix()))));
            }
        }
    }
}

fn take(shared: &Shared, view: &mut View, changes: Vec<Change>) {
    for change in changes {
        view.apply(change, Instant::now(), |id| shared.is_own(id), &shared.malformed);
    }
}

fn publish(shared: &Shared, view: &View) {
    shared.publisher.publish(view.nodes());
    let hearers = view.hearers();
    shared.hearers.send_if_modified(|known| {
        let changed = known.as_deref() != Some(&hearers);
        if changed {
            *known = Some(Arc::new(hearers));
        }
        changed
    });
}

async fn limited<T>(request: impl Future<Output = Result<T, LinkError>>) -> Result<T, LinkError> {
    timeout(REQUEST_TIMEOUT, request).await.unwrap_or(Err(LinkError::Timeout))
}

/// Everything, at one revision.
async fn read(shared: &Shared, client: &Client) -> Result<(Vec<Change>, i64), LinkError> {
    let keys = &shared.keys;
    let all = |prefix: String| TxnOp::get(prefix, Some(GetOptions::new().with_prefix()));
    let txn = Txn::new().and_then([all(keys.node_prefix()), all(keys.meta_prefix()), all(keys.drain_prefix())]);
    let answer = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES).txn(txn).await?;
    let revision = answer.header().map_or(0, etcd_client::ResponseHeader::revision);
    let mut found = gotten(&answer);
    found.extend(read_records(shared, client, revision).await?);
    Ok((found, revision))
}

/// Go Micro's records at that revision. Who may not read them goes on without.
async fn read_records(shared: &Shared, client: &Client, revision: i64) -> Result<Vec<Change>, LinkError> {
    let options = GetOptions::new().with_prefix().with_revision(revision);
    let mut reader = client.kv_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let answer = reader.get(shared.keys.record_prefix(), Some(options)).await.map_err(LinkError::from);
    let is_denied = answer.as_ref().is_err_and(LinkError::is_denied);
    if shared.shut_out.swap(is_denied, Ordering::Relaxed) != is_denied && is_denied {
        let prefix = shared.keys.record_prefix();
        log::info!("etcd's user may not read `{prefix}`: nodes of Go Micro are not seen");
    }
    match answer {
        Err(_) if is_denied => Ok(Vec::new()),
        answer => Ok(answer?.kvs().iter().map(|kv| change(kv, true)).collect()),
    }
}

/// What belongs to nodes whose keys came before it.
async fn look_up(shared: &Shared, client: &Client, ids: &[NodeId]) -> Result<Vec<Change>, LinkError> {
    let keys = ids.iter().flat_map(|id| [shared.keys.meta(id), shared.keys.drain(id)]);
    let txn = Txn::new().and_then(keys.map(|key| TxnOp::get(key, None)).collect::<Vec<_>>());
    Ok(gotten(&client.kv_client().txn(txn).await?))
}

fn gotten(answer: &TxnResponse) -> Vec<Change> {
    let mut found = Vec::new();
    for part in answer.op_responses() {
        if let TxnOpResponse::Get(mut part) = part {
            found.extend(part.take_kvs().iter().map(|kv| change(kv, true)));
        }
    }
    found
}

async fn watch(shared: &Shared, client: &Client, revision: i64) -> Result<WatchStream, LinkError> {
    let keys = &shared.keys;
    let options = || Some(WatchOptions::new().with_prefix().with_start_revision(revision));
    let mut watches = client.watch_client().max_decoding_message_size(MAX_MESSAGE_BYTES);
    let mut stream = watches.watch(keys.node_prefix(), options()).await?;
    stream.watch(keys.meta_prefix(), options()).await?;
    stream.watch(keys.drain_prefix(), options()).await?;
    if !shared.shut_out.load(Ordering::Relaxed) {
        stream.watch(keys.record_prefix(), options()).await?;
    }
    Ok(stream)
}

/// A read that costs etcd next to nothing.
async fn awake(mut client: Client, key: String) -> Result<(), LinkError> {
    let options = GetOptions::new().with_serializable().with_count_only();
    limited(async { client.get(key, Some(options)).await.map(drop).map_err(LinkError::from) }).await
}

/// The events of a message and of those that follow at once, in the order of their revisions.
async fn batch(
    stream: &mut WatchStream,
    first: Result<Option<WatchResponse>, etcd_client::Error>,
) -> Result<Vec<Change>, LinkError> {
    let mut changes = Vec::new();
    let deadline = Instant::now() + SETTLE_CAP;
    let mut next = first;
    loop {
        let message = next?.ok_or_else(|| LinkError::WatchEnded("the server closed it".to_owned()))?;
        if message.canceled() || message.compact_revision() > 0 {
            let reason =
                format!("compacted up to revision {}; {}", message.compact_revision(), message.cancel_reason());
            return Err(LinkError::WatchEnded(reason));
        }
        for event in message.events() {
            if let Some(kv) = event.kv() {
                changes.push(change(kv, event.event_type() == EventType::Put));
            }
        }
        if changes.is_empty() || Instant::now() >= deadline {
            break;
        }
        match timeout(SETTLE, stream.message()).await {
            Ok(message) => next = message,
            Err(_) => break,
        }
    }
    changes.sort_by_key(|change| change.revision);
    Ok(changes)
}

fn change(kv: &KeyValue, put: bool) -> Change {
    Change {
        key: String::from_utf8_lossy(kv.key()).into_owned(),
        value: put.then(|| kv.value().to_vec()),
        revision: kv.mod_revision(),
        created: kv.create_revision(),
    }
}
