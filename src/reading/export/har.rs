//! HTTP Archive 1.2: <http://www.softwareishard.com/blog/har-12-spec/>.
//!
//! What is not recorded is -1 where the format wants a number, and empty where it wants text: the answer's headers and
//! body, cookies (redacted), sizes. A request that never ended has status 0.

use std::io::Write;

use serde_json::{Value, json};

use super::{Shown, Writer, base_of, note_of};

/// Stands for a host that nobody recorded.
const UNKNOWN_BASE: &str = "http://unknown.invalid";

pub struct Har {
    base_url: Option<String>,
    written: u64,
}

impl Har {
    pub fn new(base_url: Option<String>) -> Self {
        Self { base_url, written: 0 }
    }

    fn entry(&self, span: &Shown) -> Value {
        let request = &span.request;
        let took_ms = span.duration_ns.unwrap_or(0) as f64 / 1e6;
        let base = self.base_url.clone().or_else(|| base_of(&span.node)).unwrap_or_else(|| UNKNOWN_BASE.to_owned());
        let began = i64::try_from(span.began_ns()).unwrap_or(0);
        let began = jiff::Timestamp::from_nanosecond(began.into()).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
        let headers: Vec<Value> =
            request.headers.iter().map(|(name, value)| json!({"name": name, "value": value})).collect();
        let query: Vec<Value> = url::form_urlencoded::parse(request.url_param.trim_start_matches('?').as_bytes())
            .map(|(name, value)| json!({"name": name, "value": value}))
            .collect();
        let mut asked = json!({
            "method": request.method,
            "url": format!("{base}{}{}", request.url, request.url_param),
            "httpVersion": "HTTP/1.1", "cookies": [], "headers": headers, "queryString": query,
            "headersSize": -1, "bodySize": -1,
        });
        if let Some(body) = request.body.as_deref().filter(|body| body.get() != "{}") {
            let note = note_of(body);
            let sent = request.headers.get("Content-Type").map(String::as_str).unwrap_or_default();
            let mut post = json!({"mimeType": "application/json", "params": [], "text": body.get()});
            if let Some(note) = note {
                (post["mimeType"], post["text"], post["comment"]) = (json!(sent), json!(""), json!(note));
            } else if !sent.is_empty() && !sent.contains("json") {
                post["comment"] = json!(format!("sent as {sent}, recorded as JSON"));
            }
            asked["postData"] = post;
        }
        json!({
            "startedDateTime": format!("{began:.3}"), "time": took_ms,
            "request": asked,
            "response": {
                "status": span.status.unwrap_or(0), "statusText": "", "httpVersion": "HTTP/1.1", "cookies": [],
                "headers": [], "content": {"size": -1, "mimeType": "", "comment": "answers are not recorded"},
                "redirectURL": "", "headersSize": -1, "bodySize": -1,
            },
            "cache": {},
            "timings": {"blocked": -1, "dns": -1, "connect": -1, "ssl": -1, "send": 0, "wait": took_ms, "receive": 0},
            "comment": format!("request {} at {}", span.request_id, span.service_name),
        })
    }
}

impl Writer for Har {
    fn begin(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        let creator = json!({"name": "goms", "version": env!("CARGO_PKG_VERSION")});
        write!(out, "{{\"log\":{{\"version\":\"1.2\",\"creator\":{creator},\"entries\":[")
    }

    fn spans(&mut self, spans: &[Shown], out: &mut dyn Write) -> std::io::Result<()> {
        for span in spans.iter().filter(|span| !span.request.method.is_empty()) {
            write!(out, "{}\n{}", if self.written == 0 { "" } else { "," }, self.entry(span))?;
            self.written += 1;
        }
        Ok(())
    }

    fn end(&mut self, out: &mut dyn Write) -> std::io::Result<()> {
        out.write_all(b"\n]}}\n")
    }

    fn written(&self) -> u64 {
        self.written
    }
}
