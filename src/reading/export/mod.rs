//! Spans in the forms of other tools: OTLP in JSON, HTTP Archive, commands of curl, what Jaeger's query API answers.

mod again;
mod curl;
mod har;
mod jaeger;
mod otlp;
mod tell;

use std::collections::{HashMap, VecDeque};
use std::io::Write;

use serde_json::value::RawValue;

use super::Shown;
use tell::{facts, ids, trace_id};

pub use again::{Again, again, is_redacted};
pub use jaeger::{operation, tag, trace as jaeger_trace};

/// Starts that may wait for their end. A request lasts seconds, so these are thousands a second.
const MAX_OPEN: usize = 20_000;

/// What other tools read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// OpenTelemetry's JSON.
    Otlp,
    /// HTTP Archive 1.2.
    Har,
    /// Shell commands.
    Curl,
}

impl Format {
    /// Writes in this format. `base_url` is where the requests of `har` and `curl` go, without a slash at the end; `None`
    /// is the node that recorded them.
    #[must_use]
    pub fn writer(self, base_url: Option<String>) -> Box<dyn Writer> {
        match self {
            Self::Otlp => Box::new(otlp::Otlp::default()),
            Self::Har => Box::new(har::Har::new(base_url)),
            Self::Curl => Box::new(curl::Curl::new(base_url)),
        }
    }
}

/// Writes events in one format.
pub trait Writer {
    /// What stands before everything.
    ///
    /// # Errors
    /// Those of `out`.
    fn begin(&mut self, out: &mut dyn Write) -> std::io::Result<()>;
    /// Spans of a page: each the event that ended it, or the start of one that never ended.
    ///
    /// # Errors
    /// Those of `out`.
    fn spans(&mut self, spans: &[Shown], out: &mut dyn Write) -> std::io::Result<()>;
    /// What stands behind everything.
    ///
    /// # Errors
    /// Those of `out`.
    fn end(&mut self, out: &mut dyn Write) -> std::io::Result<()>;
    /// How many were written.
    fn written(&self) -> u64;
}

/// Writes one trace whole: of `har` and `curl` only the requests at the gateway, where there are any.
///
/// # Errors
/// Those of `out`.
pub fn whole(
    mut events: Vec<Shown>,
    format: Format,
    writer: &mut dyn Writer,
    out: &mut dyn Write,
) -> std::io::Result<()> {
    if format != Format::Otlp && events.iter().any(|event| event.event.starts_with("request.")) {
        events.retain(|event| event.event.starts_with("request."));
    }
    let mut open = Open::default();
    let mut spans: Vec<Shown> = events.into_iter().filter_map(|event| open.take(event)).collect();
    spans.extend(open.rest());
    writer.begin(out)?;
    writer.spans(&spans, out)?;
    writer.end(out)
}

/// Starts whose end has not come yet.
#[derive(Default)]
pub struct Open {
    starts: HashMap<String, Shown>,
    order: VecDeque<String>,
}

impl Open {
    /// An end closes its start and is the span; a start waits. Where too many wait, the oldest counts as never ended.
    pub fn take(&mut self, event: Shown) -> Option<Shown> {
        let kind = event.event.split('.').next().unwrap_or_default();
        let key = match event.span_id.as_str() {
            "" => format!("{kind} {} {} {}", event.request_id, event.service_name, event.request.url),
            span => format!("{kind} {span} {}", event.trace_id),
        };
        if !event.is_start() {
            self.starts.remove(&key);
            return event.is_end().then_some(event);
        }
        if self.starts.insert(key.clone(), event).is_none() {
            self.order.push_back(key);
        }
        while self.starts.len() > MAX_OPEN || self.order.len() > 2 * MAX_OPEN {
            let oldest = self.order.pop_front()?;
            if let Some(start) = self.starts.remove(&oldest) {
                return Some(start);
            }
        }
        None
    }

    /// Those that never ended, in order of time.
    pub fn rest(mut self) -> impl Iterator<Item = Shown> {
        self.order.into_iter().filter_map(move |key| self.starts.remove(&key))
    }
}

/// `http://127.0.0.1:8080`, where a node listens whose `node` is `ip:rpc_ip:http`.
fn base_of(node: &str) -> Option<String> {
    let address: std::net::SocketAddr = node.rsplit('_').next()?.parse().ok()?;
    Some(format!("http://{address}"))
}

/// Whether a body was left out of the event; then its note.
pub fn note_of(body: &RawValue) -> Option<String> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Note {
        goms: String,
    }
    let note: Note = serde_json::from_str(body.get()).ok()?;
    note.goms.ends_with("not recorded").then_some(note.goms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn starts_that_never_end_do_not_fill_the_memory() {
        let mut open = Open::default();
        let start = |id: usize| Shown { request_id: id.to_string(), event: "request.start".into(), ..Shown::default() };
        let given: usize = (0..MAX_OPEN + 10).filter_map(|id| open.take(start(id))).count();
        assert_eq!((given, open.starts.len()), (10, MAX_OPEN));
        // ended ones leave nothing either
        let mut open = Open::default();
        for id in 0..3 * MAX_OPEN {
            assert!(open.take(start(id)).is_none());
            let end = Shown { event: "request.end".into(), ..start(id) };
            assert!(open.take(end).is_some());
        }
        assert!(open.order.len() <= 2 * MAX_OPEN);
        assert_eq!(open.rest().count(), 0);
    }
}
