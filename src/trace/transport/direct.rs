//! Events directly to a trace consumer that the registry knows: one HTTP POST of a JSON array, answered after storing.
//!
//! ```text
//! POST /goms/events   Call-Service-Key: …   Content-Type: application/json   [{…},{…}]
//! 2xx: stored · 400, 413, 422: will never be taken as it is, so each half is sent on its own, down to the one event
//! that it is about, which is given back · anything else: the next consumer
//! ```

use std::net::SocketAddr;
use std::time::Duration;

use awc::http::StatusCode;
use awc::{Client, Connector};
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;

use super::{Away, CONSUMER_SERVICE, EVENTS_PATH, Limits, Progress, Refused};
use crate::call_key::SigningKey;
use crate::registry::{CatalogWatch, NodeState};
use crate::trace::CALL_KEY_HEADER;
use crate::trace::batch::Batch;

/// A consumer answers once the events are stored.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
/// A consumer stands on the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Between tries while the registry knows no consumer: looking costs nothing.
const NO_CONSUMER_RETRY: Duration = Duration::from_millis(200);

/// What a consumer takes in one request: one at a time, since it answers after storing and other nodes send to it too.
const LIMITS: Limits = Limits { flights: 1, flight_batches: 16, flight_bytes: 4 << 20, bytes: usize::MAX };

/// The sender, and the one delivery that it is at.
pub(in crate::trace) struct Courier {
    /// Here while nothing is in flight.
    sender: Option<Sender>,
    flight: Option<LocalBoxFuture<'static, Landed>>,
}

/// The sender comes back with the outcome.
type Landed = (Sender, Result<Vec<Refused>, Away>);

impl Courier {
    pub fn new(sender: Sender) -> Self {
        Self { sender: Some(sender), flight: None }
    }

    pub fn limits(&self) -> Limits {
        LIMITS
    }

    pub fn send(&mut self, batches: Vec<Batch>) {
        if let Some(mut sender) = self.sender.take() {
            self.flight = Some(Box::pin(async move {
                let result = sender.deliver(&batches).await;
                (sender, result)
            }));
        }
    }

    pub async fn progress(&mut self) -> Result<Progress, Away> {
        let Some(flight) = &mut self.flight else { return std::future::pending().await };
        let (sender, result) = flight.await;
        (self.sender, self.flight) = (Some(sender), None);
        result.map(|refused| Progress { delivered: 1, refused })
    }
}

/// Posts batches to one consumer, and to the next one when it fails.
pub(in crate::trace) struct Sender {
    client: Option<Client>,
    call_key: SigningKey,
    catalog: CatalogWatch,
    /// The consumer that took the last delivery.
    current: Option<SocketAddr>,
    hinted: bool,
}

/// Why a post was not stored.
enum Failure {
    /// It may be later, or by another consumer.
    Away(Away),
    /// Never as it is; what the consumer says.
    Refused(String),
}

impl Sender {
    pub fn new(call_key: SigningKey, catalog: CatalogWatch) -> Self {
        Self { client: None, call_key, catalog, current: None, hinted: false }
    }

    /// Stores the batches with a consumer; gives back the events that it will never take.
    pub async fn deliver(&mut self, batches: &[Batch]) -> Result<Vec<Refused>, Away> {
        match self.offer(merge(batches)).await {
            Ok(()) => Ok(Vec::new()),
            Err(Failure::Away(away)) => Err(away),
            Err(Failure::Refused(reason)) => {
                let events: Vec<Bytes> = batches.iter().flat_map(Batch::singles).collect();
                self.isolate(&events, reason).await
            }
        }
    }

    /// Halves what was refused as a whole until the parts are taken or are single events. Twice as many requests as
    /// events at most, when each is refused.
    async fn isolate(&mut self, events: &[Bytes], reason: String) -> Result<Vec<Refused>, Away> {
        let (mut refused, mut open) = (Vec::new(), vec![(events, reason)]);
        while let Some((part, reason)) = open.pop() {
            if let [event] = part {
                refused.push(Refused { event: event.clone(), reason });
                continue;
            }
            let (first, second) = part.split_at(part.len() / 2);
            for half in [first, second].into_iter().filter(|half| !half.is_empty()) {
                match self.offer(array(half)).await {
                    Ok(()) => {}
                    Err(Failure::Away(away)) => return Err(away),
                    Err(Failure::Refused(reason)) => open.push((half, reason)),
                }
            }
        }
        Ok(refused)
    }

    /// Posts an array to the consumers in turn until one takes or refuses it.
    async fn offer(&mut self, body: Bytes) -> Result<(), Failure> {
        let consumers = self.consumers();
        if consumers.is_empty() {
            return Err(Failure::Away(self.no_consumer()));
        }
        let mut last = None;
        for consumer in consumers {
            match self.post(consumer, body.clone()).await {
                Ok(()) => {
                    (self.current, self.hinted) = (Some(consumer), false);
                    return Ok(());
                }
                Err(Failure::Refused(reason)) => return Err(Failure::Refused(reason)),
                Err(Failure::Away(away)) => {
                    log::debug!("trying the next trace consumer: {away}");
                    last = Some(away);
                }
            }
        }
        Err(Failure::Away(last.unwrap_or_else(|| Away::new("no trace consumer takes events"))))
    }

    /// Those that take events, the current one first, draining ones last.
    fn consumers(&self) -> Vec<SocketAddr> {
        let catalog = self.catalog.borrow().clone();
        let nodes = catalog.as_ref().map_or(&[][..], |catalog| catalog.nodes(CONSUMER_SERVICE));
        let mut found: Vec<(bool, bool, SocketAddr)> = nodes
            .iter()
            .filter(|node| node.meta.takes_events)
            .filter_map(|node| {
                let address = node.id.http.socket()?;
                let leaving = node.state == NodeState::Draining || node.meta.draining;
                Some((leaving, Some(address) != self.current, address))
            })
            .collect();
        found.sort_by_key(|(leaving, other, _)| (*leaving, *other));
        found.into_iter().map(|(_, _, address)| address).collect()
    }

    fn no_consumer(&mut self) -> Away {
        if self.catalog.borrow().is_none() {
            // the registry was not read yet, which is not "none"
            return Away { wait: NO_CONSUMER_RETRY, told: true, ..Away::new("the registry was not read yet") };
        }
        if !std::mem::replace(&mut self.hinted, true) {
            log::info!(
                "nobody takes trace events yet, they wait on disk; start a consumer with `goms trace-consumer`, or turn \
                 traces off with `traces.sample: 0`"
            );
        }
        Away { wait: NO_CONSUMER_RETRY, told: true, ..Away::new("the registry knows no trace consumer") }
    }

    async fn post(&mut self, consumer: SocketAddr, body: Bytes) -> Result<(), Failure> {
        let client = self.client.get_or_insert_with(new_client);
        let mut request = client
            .post(format!("http://{consumer}{EVENTS_PATH}"))
            .insert_header(("content-type", "application/json"))
            .no_decompress();
        if let Some(key) = self.call_key.get() {
            request = request.insert_header((CALL_KEY_HEADER, &*key));
        }
        let mut response = request.send_body(body).await.map_err(|error| {
            Failure::Away(Away::new(format!("cannot send to the trace consumer at `{consumer}`: {error}")))
        })?;
        // read to the end, so that the connection can be used again
        let answer = response.body().limit(64 << 10).await.unwrap_or_default();
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let says = String::from_utf8_lossy(&answer[..answer.len().min(200)]).into_owned();
        let hint = if status == StatusCode::FORBIDDEN { "; check `callServiceKey`" } else { "" };
        let refused = matches!(
            status,
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
        );
        let reason = format!("the trace consumer at `{consumer}` answers {}{hint}: {says}", status.as_u16());
        Err(if refused { Failure::Refused(reason) } else { Failure::Away(Away::new(reason)) })
    }
}

fn new_client() -> Client {
    Client::builder()
        .connector(Connector::new().timeout(CONNECT_TIMEOUT))
        .timeout(ANSWER_TIMEOUT)
        .no_default_headers()
        .disable_redirects()
        .finish()
}

/// One array of all batches' events.
fn merge(batches: &[Batch]) -> Bytes {
    if let [only] = batches {
        return only.json.clone();
    }
    let mut merged = Vec::with_capacity(batches.iter().map(|batch| batch.json.len()).sum::<usize>() + 2);
    merged.push(b'[');
    for batch in batches {
        if merged.len() > 1 {
            merged.push(b',');
        }
        // without its own brackets
        merged.extend_from_slice(batch.json.get(1..batch.json.len() - 1).unwrap_or_default());
    }
    merged.push(b']');
    Bytes::from(merged)
}

/// An array of these events.
fn array(events: &[Bytes]) -> Bytes {
    let mut json = Vec::with_capacity(events.iter().map(|event| event.len() + 1).sum::<usize>() + 2);
    json.push(b'[');
    for (index, event) in events.iter().enumerate() {
        if index > 0 {
            json.push(b',');
        }
        json.extend_from_slice(event);
    }
    json.push(b']');
    Bytes::from(json)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_become_one_array() {
        let batch = |json: &str| Batch::from_disk(Bytes::from(json.to_owned()), 1);
        assert_eq!(&merge(&[batch("[1]")])[..], b"[1]");
        assert_eq!(&merge(&[batch("[1,2]"), batch("[3]")])[..], b"[1,2,3]");
    }
}
