//! The task that posts spans to the collector.
//!
//! ```text
//! 2xx: taken (what its answer says was refused is counted) · 429, 502, 503, 504, no answer: again after a wait that
//! grows, or what `Retry-After` says · anything else: the batch is dropped, counted
//! ```

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use awc::http::StatusCode;
use awc::http::header::{HttpDate, RETRY_AFTER};
use awc::{Client, Connector};
use bytes::Bytes;
use prometheus::IntCounter;
use prost::Message;
use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{OtlpSettings, Told, span};
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::trace::otlp::{ExportTracePartialSuccess, ExportTraceServiceResponse};

/// As OpenTelemetry's SDKs send by default.
const BATCH_SPANS: usize = 512;
/// How long a span waits for company.
const BATCH_WAIT: Duration = Duration::from_secs(1);
/// The whole of one post, as OpenTelemetry's SDKs allow by default.
const POST_TIMEOUT: Duration = Duration::from_secs(10);
/// A collector stands on the same network.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// How long an ending process goes on trying.
const FLUSH_LIMIT: Duration = Duration::from_secs(2);
const FIRST_RETRY: Duration = Duration::from_millis(200);
const LONGEST_RETRY: Duration = Duration::from_secs(10);
/// More than this a `Retry-After` is not believed: the queue is full long before.
const LONGEST_RETRY_AFTER: Duration = Duration::from_secs(300);
/// Of an answer: a partial success is a number and a sentence.
const ANSWER_BYTES: usize = 64 << 10;
/// Of what a collector says when it refuses, in the log.
const SAYS_CHARS: usize = 200;

/// Why a post did not succeed.
enum Failure {
    /// It may later.
    Away { reason: String, wait: Duration },
    /// Never as it is.
    Refused(String),
}

/// What the user was told last of the collector.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Works,
    Away,
    Refuses,
}

pub(super) struct Sender {
    settings: OtlpSettings,
    spans: mpsc::Receiver<Told>,
    client: Client,
    backoff: Backoff,
    state: State,
    /// That it takes only a part was said.
    told_partial: bool,
    dropped: IntCounter,
    exported: IntCounter,
}

impl Sender {
    pub fn new(
        settings: OtlpSettings,
        tls: Option<Arc<ClientConfig>>,
        spans: mpsc::Receiver<Told>,
        dropped: IntCounter,
        metrics: &Metrics,
    ) -> Self {
        let connector = Connector::new().timeout(CONNECT_TIMEOUT);
        let client = Client::builder()
            .connector(match tls {
                Some(tls) => connector.rustls_0_23(tls),
                None => connector,
            })
            .timeout(POST_TIMEOUT)
            .no_default_headers()
            .disable_redirects()
            .finish();
        let exported = metrics
            .counter("trace_otlp_spans_total", "spans that the OTLP collector took", &[])
            .with_label_values::<&str>(&[]);
        Self {
            settings,
            spans,
            client,
            backoff: Backoff::seeded(FIRST_RETRY, LONGEST_RETRY),
            state: State::Works,
            told_partial: false,
            dropped,
            exported,
        }
    }

    /// Runs until the spool is gone and all is sent; after the end was asked for, for at most [`FLUSH_LIMIT`].
    pub async fn run(mut self, shutdown: Shutdown) {
        let mut batch: Vec<Told> = Vec::with_capacity(BATCH_SPANS);
        let limit = async {
            shutdown.begun().await;
            tokio::time::sleep(FLUSH_LIMIT).await;
        };
        tokio::select! {
            () = self.send_all(&mut batch, &shutdown) => return,
            () = limit => {}
        }
        self.spans.close();
        let lost = batch.len() + self.spans.len();
        if lost > 0 {
            self.dropped.inc_by(lost as u64);
            log::warn!("spans that the OTLP collector did not take in time are dropped spans={lost}");
        }
    }

    /// `batch` holds what is not settled yet, also when this is dropped.
    async fn send_all(&mut self, batch: &mut Vec<Told>, shutdown: &Shutdown) {
        while self.fill(batch, shutdown).await {
            let body = Bytes::from(span::request(batch).encode_to_vec());
            loop {
                match self.post(body.clone()).await {
                    Ok(partial) => self.taken(batch.len() as u64, partial),
                    Err(Failure::Refused(reason)) => self.refused(batch.len() as u64, &reason),
                    Err(Failure::Away { reason, wait }) => {
                        self.away(&reason);
                        let again_at = Instant::now() + self.backoff.next_wait().max(wait);
                        // an ending process tries once more at once
                        tokio::select! {
                            () = sleep_until(again_at) => {}
                            () = shutdown.begun(), if !shutdown.has_begun() => {}
                        }
                        continue;
                    }
                }
                break;
            }
            batch.clear();
        }
    }

    /// Waits for a batch that is full, a second old or all there is in an ending process; false at the end of all.
    async fn fill(&mut self, batch: &mut Vec<Told>, shutdown: &Shutdown) -> bool {
        let mut full_at = None;
        while batch.len() < BATCH_SPANS {
            let room = BATCH_SPANS - batch.len();
            let Some(at) = full_at else {
                if self.spans.recv_many(batch, room).await == 0 {
                    return false;
                }
                full_at = Some(Instant::now() + BATCH_WAIT);
                continue;
            };
            tokio::select! {
                biased; // what is there already comes first
                more = self.spans.recv_many(batch, room) => if more == 0 { break },
                () = shutdown.begun() => break,
                () = sleep_until(at) => break,
            }
        }
        true
    }

    async fn post(&self, body: Bytes) -> Result<Option<ExportTracePartialSuccess>, Failure> {
        let away = |reason| Failure::Away { reason, wait: Duration::ZERO };
        let deadline = Instant::now() + POST_TIMEOUT;
        let mut request = self
            .client
            .post(self.settings.url.as_str())
            .insert_header(("content-type", "application/x-protobuf"))
            .insert_header(("user-agent", concat!("goms/", env!("CARGO_PKG_VERSION"))))
            .no_decompress();
        for (name, value) in &self.settings.headers {
            request = request.insert_header((name.as_str(), value.as_str()));
        }
        let mut response = match timeout_at(deadline, request.send_body(body)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(away(chain(&error))),
            Err(_) => return Err(away(format!("no answer within {POST_TIMEOUT:?}"))),
        };
        let status = response.status();
        let wait = response.headers().get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?));
        // read to the end, so that the connection can be used again
        let answer = timeout_at(deadline, response.body().limit(ANSWER_BYTES)).await;
        let answer = answer.ok().and_then(Result::ok).unwrap_or_default();
        if status.is_success() {
            // an answer that cannot be read is not worth sending what was taken once more
            let answer = ExportTraceServiceResponse::decode(answer).unwrap_or_default();
            return Ok(answer.partial_success);
        }
        let reason = format!("it answers {}{}", status.as_u16(), said(&answer));
        match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Err(Failure::Away { reason, wait: wait.unwrap_or_default() }),
            _ => Err(Failure::Refused(reason)),
        }
    }

    fn taken(&mut self, spans: u64, partial: Option<ExportTracePartialSuccess>) {
        let rejected = partial.as_ref().map_or(0, |partial| u64::try_from(partial.rejected_spans).unwrap_or(0));
        let rejected = rejected.min(spans);
        self.exported.inc_by(spans - rejected);
        self.dropped.inc_by(rejected);
        if let Some(partial) = partial
            && (rejected > 0 || !partial.error_message.is_empty())
            && !std::mem::replace(&mut self.told_partial, true)
        {
            log::warn!(
                "the OTLP collector at `{}` does not take all spans rejected={rejected}{}; said once",
                self.settings.place(),
                said(partial.error_message.as_bytes())
            );
        }
        self.backoff.reset();
        if std::mem::replace(&mut self.state, State::Works) != State::Works {
            log::info!("the OTLP collector at `{}` takes spans again", self.settings.place());
        }
    }

    fn refused(&mut self, spans: u64, reason: &str) {
        self.dropped.inc_by(spans);
        self.backoff.reset();
        if std::mem::replace(&mut self.state, State::Refuses) != State::Refuses {
            log::error!(
                "spans are dropped, the OTLP collector at `{}` refuses them; check OTEL_EXPORTER_OTLP_ENDPOINT and \
                 OTEL_EXPORTER_OTLP_HEADERS: {reason}",
                self.settings.place()
            );
        }
    }

    fn away(&mut self, reason: &str) {
        let place = self.settings.place();
        if std::mem::replace(&mut self.state, State::Away) == State::Away {
            log::debug!("the OTLP collector at `{place}` still takes no spans: {reason}");
        } else {
            log::warn!("the OTLP collector at `{place}` takes no spans, they wait in memory: {reason}");
        }
    }
}

/// Seconds or a date (RFC 9110 section 10.2.3).
fn retry_after(value: &str) -> Option<Duration> {
    let wait = match value.trim().parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => SystemTime::from(value.parse::<HttpDate>().ok()?).duration_since(SystemTime::now()).ok()?,
    };
    Some(wait.min(LONGEST_RETRY_AFTER))
}

/// `: ` and what the collector says, if it is a text, in one line.
fn said(answer: &[u8]) -> String {
    match std::str::from_utf8(answer).map(str::trim) {
        Ok(text) if !text.is_empty() => {
            let line = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
            format!(": {}", line.take(SAYS_CHARS).collect::<String>())
        }
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date_and_has_a_limit() {
        assert_eq!(retry_after("3"), Some(Duration::from_secs(3)));
        assert_eq!(retry_after("999999"), Some(LONGEST_RETRY_AFTER));
        assert_eq!(retry_after("Fri, 01 Jan 2100 00:00:00 GMT"), Some(LONGEST_RETRY_AFTER));
        for none in ["", "soon", "-1", "Fri, 01 Jan 2016 00:00:00 GMT"] {
            assert_eq!(retry_after(none), None, "{none}");
        }
    }
}
