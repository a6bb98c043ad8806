//! Keeps the nodes of this process in etcd: one lease a node, renewed every interval; a key that is gone is put again.
//!
//! A Go node appends a node to its list at each PUT, so a key that is there is never put again: it is deleted first, in
//! a step of its own.

use std::net::UdpSocket;
use std::sync::Arc;
use std::time::Duration;

use etcd_client::{Compare, CompareOp, PutOptions, Txn, TxnOp, TxnOpResponse};
use tokio::sync::{Mutex, Notify};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::link::LinkError;
use crate::backoff::Backoff;
use crate::registry::{Format, Node, NodeId, NodeState, go_micro};
use crate::shutdown::Shutdown;

/// The value of every node's key, as the originals write it.
const NODE_VALUE: &str = "0";
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);
/// How often a foreign lease is looked at; etcd tells whole seconds, and Go nodes renew every second.
const LEASE_LOOK: Duration = Duration::from_millis(200);
/// etcd removes an expired lease within half a second, and tells no fractions of seconds.
const LEASE_SLACK: Duration = Duration::from_secs(2);
/// How often the key may change under our hands before we give up.
const MAX_ROUNDS: usize = 20;

/// A node of this process.
pub(super) struct Own {
    pub(super) node: Node,
    /// Its lease; locked while its keys are changed.
    pub(super) lease: Mutex<Option<i64>>,
    /// Its key may be gone.
    pub(super) wake: Notify,
    /// It is deregistered.
    pub(super) stop: CancellationToken,
}

/// Why a node could not be put.
pub(super) enum PlaceError {
    /// A live process holds its key.
    Taken,
    /// etcd cannot be reached.
    Link(LinkError),
}

impl From<LinkError> for PlaceError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

/// What the node's key is.
enum Put {
    Done,
    LeaseGone,
    Held { lease: i64, revision: i64 },
}

/// Renews a node until it is deregistered. `is_new`: it was never put.
pub(super) async fn keep(shared: Arc<Shared>, own: Arc<Own>, mut is_new: bool, shutdown: Shutdown) {
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut wait = if is_new { BACKOFF_FIRST } else { shared.interval };
    let mut verify = false;
    let mut taken = false;
    let id = &own.node.id;
    loop {
        tokio::select! {
            () = shared.ended(&shutdown) => return,
            () = own.stop.cancelled() => return,
            () = own.wake.notified() => verify = true,
            () = sleep(wait) => {}
        }
        let mut lease = own.lease.lock().await;
        if own.stop.is_cancelled() {
            return;
        }
        let before = *lease;
        let renewed = match is_new {
            true => shared.place_first(&own.node, &mut lease).await.map(|()| true),
            false => shared.renew(&own.node, &mut lease, verify).await,
        };
        wait = match renewed {
            Ok(put) => {
                if put {
                    let again = if is_new { "" } else { " again" };
                    log::info!("node `{id}` of `{}` is registered{again}", id.service);
                }
                is_new = false;
                (verify, taken) = (false, false);
                backoff.reset();
                shared.interval
            }
            Err(PlaceError::Taken) => {
                if !taken {
                    taken = true;
                    log::error!(
                        "key of node `{id}` of `{}` is held by another process, waiting for its end",
                        id.service
                    );
                }
                shared.interval
            }
            // The reader logs that etcd is away.
            Err(PlaceError::Link(error)) => {
                log::debug!("node `{id}` lease {before:?} is not renewed: {error}");
                backoff.next_wait().min(shared.interval)
            }
        };
    }
}

impl Shared {
    /// Puts a node for the first time. Whoever holds its key is replaced only where it is surely dead.
    pub(super) async fn place_first(&self, node: &Node, lease: &mut Option<i64>) -> Result<(), PlaceError> {
        for _ in 0..MAX_ROUNDS {
            match self.put(node, lease, false).await? {
                Put::Done => return Ok(()),
                Put::LeaseGone => *lease = None,
                Put::Held { lease: other, revision } => {
                    if !self.is_dead(&node.id, other).await? {
                        return Err(PlaceError::Taken);
                    }
                    self.clear(&node.id, revision).await?;
                }
            }
        }
        Err(PlaceError::Taken)
    }

    /// Renews the lease; puts the key again where it is gone. Returns whether it was.
    async fn renew(&self, node: &Node, lease: &mut Option<i64>, verify: bool) -> Result<bool, PlaceError> {
        if let Some(id) = *lease {
            match self.link.call(|mut client| async move { client.lease_keep_alive(id).await.map(drop) }).await {
                Ok(()) if !verify => return Ok(false),
                Ok(()) => {}
                Err(error) if error.is_lease_gone() => *lease = None,
                Err(error) => return Err(error.into()),
            }
        }
        if verify && lease.is_some() && self.holder(&node.id).await?.map(|(holder, _)| holder) == *lease {
            return Ok(false);
        }
        // Out of rotation before, out of rotation again.
        let drained = self.publisher.current().is_some_and(|catalog| {
            catalog.find(&node.id).is_some_and(|known| known.state == NodeState::Draining && !known.meta.draining)
        });
        for _ in 0..MAX_ROUNDS {
            match self.put(node, lease, drained).await? {
                Put::Done => return Ok(true),
                Put::LeaseGone => *lease = None,
                Put::Held { lease: other, revision } if other == 0 || self.was_granted(other) => {
                    self.clear(&node.id, revision).await?;
                }
                Put::Held { .. } => return Err(PlaceError::Taken),
            }
        }
        Err(PlaceError::Taken)
    }

    /// Puts key and metadata in one step, if the key is not there.
    async fn put(&self, node: &Node, lease: &mut Option<i64>, drained: bool) -> Result<Put, LinkError> {
        let lease = match *lease {
            Some(lease) => lease,
            None => {
                let granted = self.grant().await?;
                *lease = Some(granted);
                granted
            }
        };
        let key = self.keys.node(&node.id);
        let put = |key: String, value: Vec<u8>| TxnOp::put(key, value, Some(PutOptions::new().with_lease(lease)));
        let mut puts: Vec<TxnOp> = self.written(node).into_iter().map(|(key, value)| put(key, value)).collect();
        if drained {
            puts.push(put(self.keys.drain(&node.id), Vec::new()));
        }
        let txn = Txn::new()
            .when([Compare::create_revision(key.clone(), CompareOp::Equal, 0)])
            .and_then(puts)
            .or_else([TxnOp::get(key, None)]);
        let answer = match self.link.call(|mut client| client_txn(&mut client, &txn)).await {
            Ok(answer) => answer,
            Err(error) if error.is_lease_gone() => return Ok(Put::LeaseGone),
            Err(error) => return Err(error),
        };
        if answer.succeeded() {
            return Ok(Put::Done);
        }
        let found = answer.op_responses().into_iter().find_map(|part| match part {
            TxnOpResponse::Get(mut part) => part.take_kvs().pop(),
            _ => None,
        });
        Ok(match found {
            // A put whose answer was lost.
            Some(kv) if kv.lease() == lease => Put::Done,
            Some(kv) => Put::Held { lease: kv.lease(), revision: kv.mod_revision() },
            None => Put::LeaseGone,
        })
    }

    /// The keys that make a node visible, with their values: its own first.
    fn written(&self, node: &Node) -> Vec<(String, Vec<u8>)> {
        let key = self.keys.node(&node.id);
        match self.keys.format() {
            Format::Goms => {
                let meta = serde_json::to_vec(&node.meta).unwrap_or_default(); // a struct of plain fields
                vec![(key, NODE_VALUE.into()), (self.keys.meta(&node.id), meta)]
            }
            Format::GoMicro => vec![(key, go_micro::record(node))],
        }
    }

    pub(super) async fn grant(&self) -> Result<i64, LinkError> {
        // etcd counts whole seconds.
        let ttl = i64::try_from(self.ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX).max(1);
        let answer = self.link.call(|mut client| async move { client.lease_grant(ttl, None).await }).await?;
        self.remember_grant(answer.id());
        Ok(answer.id())
    }

    /// The lease and revision of a node's key, if it is there.
    pub(super) async fn holder(&self, id: &NodeId) -> Result<Option<(i64, i64)>, LinkError> {
        self.holder_of(&self.keys.node(id)).await
    }

    /// The lease and revision of a key, if it is there.
    pub(super) async fn holder_of(&self, key: &str) -> Result<Option<(i64, i64)>, LinkError> {
        let answer = self.link.call(|mut client| {
            let key = key.to_owned();
            async move { client.get(key, None).await }
        });
        Ok(answer.await?.kvs().first().map(|kv| (kv.lease(), kv.mod_revision())))
    }

    /// Deletes a dead node's key and what belongs to it, unless the key changed meanwhile.
    async fn clear(&self, id: &NodeId, revision: i64) -> Result<(), LinkError> {
        let key = self.keys.node(id);
        let txn = Txn::new().when([Compare::mod_revision(key.clone(), CompareOp::Equal, revision)]).and_then([
            TxnOp::delete(key, None),
            TxnOp::delete(self.keys.meta(id), None),
            TxnOp::delete(self.keys.drain(id), None),
        ]);
        self.link.call(|mut client| client_txn(&mut client, &txn)).await.map(drop)
    }

    /// Whether the process that put the key is surely dead.
    ///
    /// A node binds its ports before it registers. Where the address is this machine's, that proves the former owner
    /// dead, and a restart within the TTL takes over at once. Elsewhere (an advertised address, a node without ports)
    /// only the lease can tell: it runs out, or someone renews it.
    async fn is_dead(&self, id: &NodeId, lease: i64) -> Result<bool, LinkError> {
        let bound = |address: crate::registry::HostPort| {
            address.port.is_some() && UdpSocket::bind((address.ip, 0)).is_ok() // only a local address can be bound
        };
        if lease == 0 || self.was_granted(lease) || bound(id.rpc) || bound(id.http) {
            return Ok(true);
        }
        log::info!("key of node `{id}` of `{}` is there already, looking whether its owner lives", id.service);
        let began = Instant::now();
        let mut lowest = i64::MAX;
        loop {
            let answer =
                self.link.call(|mut client| async move { client.lease_time_to_live(lease, None).await }).await?;
            if answer.ttl() < 0 {
                return Ok(true);
            }
            let outlived = began.elapsed() > Duration::from_secs(answer.granted_ttl().unsigned_abs()) + LEASE_SLACK;
            if answer.ttl() > lowest || outlived {
                return Ok(false);
            }
            lowest = answer.ttl();
            sleep(LEASE_LOOK).await;
        }
    }

    /// Says that the node leaves, takes its key away, then gives the lease back.
    pub(super) async fn take_out(&self, node: &Node, lease: i64) -> Result<(), LinkError> {
        let key = self.keys.node(&node.id);
        let ours = || [Compare::lease(key.clone(), CompareOp::Equal, lease)];
        let mut leaving = node.clone();
        leaving.meta.draining = true;
        let options = || Some(PutOptions::new().with_lease(lease));
        // what tells it comes last
        let said = self.written(&leaving).pop().map(|(key, value)| TxnOp::put(key, value, options()));
        let say = Txn::new().when(ours()).and_then(said.into_iter().collect::<Vec<_>>());
        match self.link.call(|mut client| client_txn(&mut client, &say)).await {
            Ok(_) => {}
            Err(error) if error.is_lease_gone() => return Ok(()),
            Err(error) => return Err(error),
        }
        let drain = TxnOp::delete(self.keys.drain(&node.id), None);
        let leave = Txn::new().when(ours()).and_then([TxnOp::delete(key.clone(), None), drain]);
        self.link.call(|mut client| client_txn(&mut client, &leave)).await?;
        self.revoke(lease).await;
        Ok(())
    }

    /// Gives a lease back; one that cannot be given back runs out.
    pub(super) async fn revoke(&self, lease: i64) {
        let answer = self.link.call(|mut client| async move { client.lease_revoke(lease).await }).await;
        if let Err(error) = answer.map(drop)
            && !error.is_lease_gone()
        {
            log::debug!("lease {lease:x} is left to run out: {error}");
        }
    }
}

/// One transaction.
pub(super) fn client_txn(
    client: &mut etcd_client::Client,
    txn: &Txn,
) -> impl Future<Output = Result<etcd_client::TxnResponse, etcd_client::Error>> + Send + use<> {
    let (mut client, txn) = (client.kv_client(), txn.clone());
    async move { client.txn(txn).await }
}
