//! A `curl` command a request, for a POSIX shell.
//!
//! Every word that comes out of an event stands in single quotes, and comments hold no control characters, so that no
//! client can slip a command into the script.

use std::io::Write;

use super::{Shown, Writer, base_of, note_of};
use crate::reading::printable;
use crate::trace::REDACTED;

/// Headers that curl sets itself, that belong to one connection, or that would give the new request the old one's id.
pub(super) const LEFT_OUT: [&str; 13] = [
    "accept-encoding",
    "connection",
    "content-length",
    "expect",
    "host",
    "keep-alive",
    "te",
    "traceparent",
    "tracestate",
    "transfer-encoding",
    "upgrade",
    "x-forwarded-for",
    "x-request-id",
];

pub struct Curl {
    base_url: Option<String>,
    written: u64,
}

impl Curl {
    pub fn new(base_url: Option<String>) -> Self {
        Self { base_url, written: 0 }
    }

    fn command(&self, span: &Shown) -> String {
        let request = &span.request;
        let mut notes = Vec::new();
        let base = self.base_url.clone().or_else(|| base_of(&span.node)).unwrap_or_else(|| {
            notes.push("the address is not recorded; give --base-url".to_owned());
            "http://127.0.0.1:8080".to_owned()
        });
        let mut words = vec!["curl --globoff --path-as-is".to_owned()];
        match request.method.as_str() {
            "HEAD" => words.push("--head".to_owned()),
            method => words.push(format!("-X {}", quoted(method))),
        }
        words.push(quoted(&format!("{base}{}{}", request.url, request.url_param)));
        let body = body_of(span, &mut notes);
        for (name, value) in &request.headers {
            let lower = name.to_ascii_lowercase();
            let is_replaced = lower == "content-type" && body.as_ref().is_some_and(|(mime, _)| mime.is_some());
            if LEFT_OUT.contains(&lower.as_str()) || is_replaced {
                continue;
            }
            if value == REDACTED {
                notes.push(format!("header `{name}` was redacted: add it"));
            } else if value.is_empty() {
                words.push(format!("-H {}", quoted(&format!("{name};")))); // `Name:` would take the header away
            } else {
                words.push(format!("-H {}", quoted(&format!("{name}: {value}"))));
            }
        }
        if let Some((mime, body)) = body {
            if let Some(mime) = mime {
                words.push(format!("-H {}", quoted(&format!("Content-Type: {mime}"))));
            }
            words.push(format!("--data-raw {}", quoted(&body)));
        }
        if request.url_param.contains(REDACTED) || request.url_param.contains("%5Bredacted%5D") {
            notes.push("a query parameter was redacted: put it in".to_owned());
        }
        let mut text = format!("# {} {} {}\n", span.time, span.status_text(), span.request_id);
        text = printable(text.trim_end()) + "\n";
        for note in notes {
            text.push_str(&format!("# note: {}\n", printable(&note)));
        }
        text + &words.join(" \\\n  ") + "\n"
    }
}

/// The body, with its content type where that is another than the recorded header.
pub(super) fn body_of(span: &Shown, notes: &mut Vec<String>) -> Option<(Option<&'static str>, String)> {
    let body = span.request.body.as_deref().filter(|body| body.get() != "{}")?;
    if let Some(note) = note_of(body) {
        notes.push(format!("{note}: add it with --data-binary @FILE"));
        return None;
    }
    if body.get().contains(REDACTED) {
        notes.push("a part of the body was redacted: put it in".to_owned());
    }
    let sent = span.request.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    let sent = sent.map(|(_, value)| value.to_ascii_lowercase()).unwrap_or_default();
    if sent.contains("json") {
        return Some((None, body.get().to_owned()));
    }
    if sent.starts_with("application/x-www-form-urlencoded") {
        let fields: Result<std::collections::BTreeMap<String, String>, _> = serde_json::from_str(body.get());
        if let Ok(fields) = fields {
            return Some((None, url::form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()));
        }
    }
    if !sent.is_empty() {
        notes.push(format!("the body was sent as {sent}; this sends it as JSON, as it was recorded"));
    }
    Some((Some("application/json"), body.get().to_owned()))
}

/// One word of a POSIX shell. A zero byte cannot stand in any.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\0', "").replace('\'', r"'\''"))
}

impl Writer for Curl {
    fn begin(&mut self, _out: &mut dyn Write) -> std::io::Result<()> {
        Ok(())
    }

    fn spans(&mut self, spans: &[Shown], out: &mut dyn Write) -> std::io::Result<()> {
        for span in spans.iter().filter(|span| !span.request.method.is_empty()) {
            let gap = if self.written == 0 { "" } else { "\n" };
            write!(out, "{gap}{}", self.command(span))?;
            self.written += 1;
        }
        Ok(())
    }

    fn end(&mut self, _out: &mut dyn Write) -> std::io::Result<()> {
        Ok(())
    }

    fn written(&self) -> u64 {
        self.written
    }
}
