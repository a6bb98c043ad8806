//! One connection's work: takes messages, has them parsed and stored, acknowledges what is done.
//!
//! ```text
//! delivery ─► raw (as much as there is room for) ─► parsed on another thread ─► pipeline ─► verdicts ─► [dead letters] ─► acknowledged
//!     └────► no room: its tag, given back to the queue later
//! ```

use std::collections::VecDeque;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use futures_util::stream::{FuturesUnordered, StreamExt};
use lapin::Channel;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use tokio::time::Instant;

use super::Source;
use super::arrivals::{self, Arrival};
use super::letters::{Letter, Letters};
use super::tags::Tags;
use crate::causes::chain;
use crate::consumer::pipeline::{Pipeline, Verdict, document};
use crate::store::Document;
use crate::trace::event::parse;
use crate::trace::transport::connection::{BrokerError, Link};

/// A longer message is dead-lettered unread: no sender of ours makes one over 8 MiB.
const MAX_MESSAGE_BYTES: usize = 16 << 20;
/// How long an ending consumer waits for what it took to be stored.
const FINISH_LIMIT: Duration = Duration::from_secs(5);
/// Bytes of messages parsed in one go: some milliseconds on a thread, which then is worth its start.
const PARSE_BYTES: usize = 256 << 10;
/// Parses at once: one may wait for room in the pipeline while the other works.
const MOST_PARSES: usize = 2;
/// How long what is done may wait for what came before it, to be acknowledged together.
const ACK_WAIT: Duration = Duration::from_millis(100);
/// How long the queue has for filling what room there is with other messages, before those that found none go back. From
/// a long queue they so go back when it is short again, and are sent twice, not over and over.
const GIVE_BACK_WAIT: Duration = Duration::from_millis(100);
pub(super) const CONSUMER_TAG: &str = "goms-trace-consumer";

/// A message that is not parsed yet.
struct Raw {
    tag: u64,
    body: Vec<u8>,
}

/// A message in the pipeline, or past it.
struct Taken {
    tag: u64,
    /// What cannot be stored, with the reason.
    dead: Vec<Letter>,
}

/// A message with its verdicts; `None` when it was not stored.
type Judged = (Taken, Option<Vec<Verdict>>);

pub(super) struct Session<'a> {
    source: &'a Source,
    link: &'a Link,
    channel: &'a Channel,
    letters: &'a Letters<'a>,
    tags: Tags,
    raw: VecDeque<Raw>,
    parses: FuturesUnordered<BoxFuture<'a, Option<Vec<BoxFuture<'a, Judged>>>>>,
    judging: FuturesUnordered<BoxFuture<'a, Judged>>,
    burials: FuturesUnordered<BoxFuture<'a, Result<u64, BrokerError>>>,
    /// When what is done is acknowledged, whatever came before it.
    ack_at: Option<Instant>,
    /// When messages are given back for which there was no room.
    give_back_at: Option<Instant>,
}

impl<'a> Session<'a> {
    pub fn new(source: &'a Source, link: &'a Link, channel: &'a Channel, letters: &'a Letters<'a>) -> Self {
        Self {
            source,
            link,
            channel,
            letters,
            tags: Tags::default(),
            raw: VecDeque::new(),
            parses: FuturesUnordered::new(),
            judging: FuturesUnordered::new(),
            burials: FuturesUnordered::new(),
            ack_at: None,
            give_back_at: None,
        }
    }

    /// Works until the connection or the process ends; `Ok` once the end was asked for and all is settled.
    pub async fn run(mut self, deliveries: lapin::Consumer) -> Result<(), BrokerError> {
        let mut arrivals = arrivals::read(deliveries, self.source.room.clone(), &self.source.shutdown);
        let mut finish_at = None;
        loop {
            let working = !self.parses.is_empty() || !self.judging.is_empty() || !self.burials.is_empty();
            if finish_at.is_some() && !working {
                return self.acknowledge(true).await;
            }
            if finish_at.is_none() {
                self.keep_going();
            }
            self.measure();
            tokio::select! {
                arrival = arrivals.recv(), if finish_at.is_none() => match arrival {
                    Some(Ok(arrival)) => self.take(arrival),
                    Some(Err(error)) => return Err(self.broken(Some(error))),
                    None => return Err(self.broken(None)),
                },
                Some(parsed) = self.parses.next() => match parsed {
                    Some(messages) => self.judging.extend(messages),
                    None => return Err(self.link.error(std::io::Error::other("the parser failed").into())),
                },
                Some(first) = self.judging.next() => self.judged(first).await?,
                Some(buried) = self.burials.next() => {
                    self.tags.done(buried?);
                    self.acknowledge(false).await?;
                }
                () = until(self.ack_at) => self.acknowledge(true).await?,
                () = until(self.give_back_at), if finish_at.is_none() => self.give_back().await?,
                () = self.source.shutdown.begun(), if finish_at.is_none() => {
                    finish_at = Some(Instant::now() + FINISH_LIMIT);
                    // no new ones; what is not in the pipeline goes back when the connection closes
                    let cancel = self.channel.basic_cancel(CONSUMER_TAG.into(), BasicCancelOptions::default());
                    self.link.step(cancel).await?;
                }
                () = until(finish_at) => return Ok(()),
            }
        }
    }

    /// Starts what can be started.
    fn keep_going(&mut self) {
        while self.parses.len() < MOST_PARSES && !self.raw.is_empty() {
            self.parse_some();
        }
        let no_more = self.tags.count() >= usize::from(self.source.prefetch) || self.tags.given_up() > 0;
        if no_more && self.raw.is_empty() && self.parses.is_empty() {
            self.source.pipeline.hurry();
        }
    }

    fn take(&mut self, arrival: Arrival) {
        match arrival {
            Arrival::Taken(tag, body, held) => {
                self.tags.take(tag, held);
                self.raw.push_back(Raw { tag, body });
            }
            Arrival::GivenUp(tag, bytes) => {
                self.tags.give_up(tag, bytes);
                self.source.instruments.given_up.inc();
                self.give_back_at.get_or_insert_with(|| Instant::now() + GIVE_BACK_WAIT);
            }
        }
    }

    /// Has the queue send again what there is room for now.
    async fn give_back(&mut self) -> Result<(), BrokerError> {
        for tag in self.tags.give_back(&self.source.room) {
            let again = BasicNackOptions { requeue: true, multiple: false };
            self.link.step(self.channel.basic_nack(tag, again)).await?;
        }
        self.give_back_at = (self.tags.given_up() > 0).then(|| Instant::now() + GIVE_BACK_WAIT);
        Ok(())
    }

    /// Why no more deliveries come.
    fn broken(&self, error: Option<lapin::Error>) -> BrokerError {
        match error {
            Some(error) => self.link.error(error),
            None if self.link.is_connected() => BrokerError::Deleted(self.source.broker.queue.to_string()),
            None => self.link.error(std::io::Error::from(std::io::ErrorKind::ConnectionReset).into()),
        }
    }

    /// Has the next messages parsed and handed to the pipeline.
    fn parse_some(&mut self) {
        let (mut group, mut bytes) = (Vec::new(), 0);
        while bytes < PARSE_BYTES
            && let Some(raw) = self.raw.pop_front()
        {
            bytes += raw.body.len();
            group.push(raw);
        }
        let pipeline: &'a Pipeline = &self.source.pipeline;
        self.parses.push(Box::pin(async move {
            let parse = move || group.into_iter().map(sort).collect::<Vec<_>>();
            let parsed = tokio::task::spawn_blocking(parse).await.ok()?;
            let mut judging: Vec<BoxFuture<'a, Judged>> = Vec::with_capacity(parsed.len());
            for (taken, documents) in parsed {
                if documents.is_empty() {
                    judging.push(Box::pin(std::future::ready((taken, Some(Vec::new())))));
                    continue;
                }
                let reply = pipeline.submit(documents).await;
                judging.push(Box::pin(async move {
                    match reply {
                        Some(reply) => (taken, reply.await.ok()),
                        None => (taken, None),
                    }
                }));
            }
            Some(judging)
        }));
    }

    /// Takes the verdicts: a write of the store settles many messages at once, and they are acknowledged together.
    async fn judged(&mut self, first: Judged) -> Result<(), BrokerError> {
        let mut next = Some(first);
        while let Some((mut taken, verdicts)) = next {
            if let Some(verdicts) = verdicts {
                self.source.instruments.refused.inc_by(taken.dead.len() as u64); // the others are counted already
                taken.dead.extend(verdicts.into_iter().filter_map(|verdict| match verdict {
                    Verdict::Refused(json, reason) => Some((json.get().as_bytes().to_vec(), reason)),
                    Verdict::Stored => None,
                }));
                if taken.dead.is_empty() {
                    self.tags.done(taken.tag);
                } else {
                    let letters = self.letters;
                    self.burials.push(Box::pin(async move { letters.bury(&taken.dead).await.map(|()| taken.tag) }));
                }
            } else if !self.source.shutdown.has_begun() {
                return Err(self.link.error(std::io::Error::other("the writer failed").into()));
            }
            next = self.judging.next().now_or_never().flatten();
        }
        self.acknowledge(false).await
    }

    /// Acknowledges what is done: all up to the first that is not, and the others too when it is time.
    async fn acknowledge(&mut self, others: bool) -> Result<(), BrokerError> {
        if let Some(tag) = self.tags.settled() {
            self.link.step(self.channel.basic_ack(tag, BasicAckOptions { multiple: true })).await?;
        }
        if others {
            for tag in self.tags.stragglers() {
                self.link.step(self.channel.basic_ack(tag, BasicAckOptions::default())).await?;
            }
        }
        self.ack_at = match self.ack_at {
            _ if !self.tags.has_stragglers() => None,
            None => Some(Instant::now() + ACK_WAIT),
            at => at,
        };
        Ok(())
    }

    fn measure(&self) {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.source.instruments.unacknowledged_messages.set(signed(self.tags.count()));
        self.source.instruments.unacknowledged_bytes.set(signed(self.source.room.used()));
    }
}

/// What of a message can be stored, and what cannot.
fn sort(raw: Raw) -> (Taken, Vec<Document>) {
    let Raw { tag, body } = raw;
    if body.len() > MAX_MESSAGE_BYTES {
        let reason = format!("message of {} bytes is over {MAX_MESSAGE_BYTES}", body.len());
        return (Taken { tag, dead: vec![(body, reason)] }, Vec::new());
    }
    match parse(&body) {
        Ok(received) => {
            let dead = received.refused.into_iter().map(|(json, why)| (json.into_bytes(), chain(&why))).collect();
            (Taken { tag, dead }, received.events.into_iter().map(document).collect())
        }
        Err(error) => {
            let reason = chain(&error);
            (Taken { tag, dead: vec![(body, reason)] }, Vec::new())
        }
    }
}

async fn until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}
