//! What people and other tools are shown of a stored event.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use super::text::printable;
use crate::figures::duration;

/// A stored event; an original's has no fields after `trace`. What is missing or of another type is empty.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Shown {
    #[serde(deserialize_with = "text")]
    pub request_id: String,
    #[serde(deserialize_with = "lenient")]
    pub request: ShownRequest,
    #[serde(deserialize_with = "text")]
    pub event: String,
    /// What ran, of a span of another program.
    #[serde(deserialize_with = "text")]
    pub name: String,
    #[serde(deserialize_with = "text")]
    pub time: String,
    #[serde(deserialize_with = "text")]
    pub service_name: String,
    #[serde(deserialize_with = "text")]
    pub node: String,
    #[serde(deserialize_with = "text")]
    pub event_id: String,
    #[serde(deserialize_with = "text")]
    pub trace_id: String,
    #[serde(deserialize_with = "text")]
    pub span_id: String,
    #[serde(deserialize_with = "text")]
    pub parent_id: String,
    #[serde(deserialize_with = "text")]
    pub action: String,
    #[serde(deserialize_with = "text")]
    pub caller: String,
    #[serde(deserialize_with = "lenient")]
    pub status: Option<u16>,
    #[serde(deserialize_with = "lenient")]
    pub duration_ns: Option<u64>,
    #[serde(deserialize_with = "lenient")]
    pub time_ms: i64,
    #[serde(deserialize_with = "lenient")]
    pub span: ShownSpan,
}

/// What a span of another program has besides.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ShownSpan {
    /// `server`, `client`, …
    #[serde(deserialize_with = "text")]
    pub kind: String,
    /// To the nanosecond.
    #[serde(deserialize_with = "lenient")]
    pub start_ns: Option<u64>,
    #[serde(deserialize_with = "text")]
    pub error: String,
    #[serde(deserialize_with = "lenient")]
    pub attributes: serde_json::Map<String, serde_json::Value>,
}

/// What was asked.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ShownRequest {
    #[serde(deserialize_with = "text")]
    pub method: String,
    #[serde(deserialize_with = "text")]
    pub url: String,
    #[serde(deserialize_with = "text")]
    pub url_param: String,
    #[serde(deserialize_with = "text")]
    pub client_ip: String,
    #[serde(deserialize_with = "lenient")]
    pub headers: BTreeMap<String, String>,
    /// As it was recorded, to the digit.
    pub body: Option<Box<RawValue>>,
}

impl Shown {
    /// A stored event is JSON that a consumer checked.
    pub fn read(event: &RawValue) -> Self {
        serde_json::from_str(event.get()).unwrap_or_default()
    }

    /// Where it stands among its request's events. One millisecond may hold a whole request: then their kind tells.
    pub fn place(&self) -> (i64, Option<usize>) {
        let life = ["request.start", "service.start", "span.end", "service.end", "request.end"];
        (self.time_ms, life.iter().position(|kind| *kind == self.event))
    }

    /// Its identity; an original's event that was never completed has no id, so its text stands for it.
    pub fn key<'a>(&'a self, event: &'a RawValue) -> &'a str {
        if self.event_id.is_empty() { event.get() } else { &self.event_id }
    }

    pub fn is_start(&self) -> bool {
        self.event.ends_with(".start")
    }

    pub fn is_end(&self) -> bool {
        self.event.ends_with(".end")
    }

    /// When the span began that this event starts or ends, in nanoseconds of Unix time. Events of goms are told in
    /// milliseconds, so it is as near as that.
    pub fn began_ns(&self) -> i128 {
        if let Some(start_ns) = self.span.start_ns {
            return i128::from(start_ns);
        }
        let time_ns = i128::from(self.time_ms) * 1_000_000;
        if self.is_end() { time_ns - i128::from(self.duration_ns.unwrap_or(0)) } else { time_ns }
    }

    /// `POST /api/user/login?a=1`; of a span of another program that is no request, its name.
    pub fn line(&self) -> String {
        let request = &self.request;
        let line = match (request.method.as_str(), request.url.as_str()) {
            ("", "") if self.name.is_empty() => self.action.clone(),
            ("", "") => self.named(),
            ("", url) => format!("{url}{}", request.url_param),
            (method, url) => format!("{method} {url}{}", request.url_param),
        };
        printable(&line)
    }

    /// The name, which for a call over HTTP may be no more than its method: then with where it went.
    fn named(&self) -> String {
        let target = ["url.full", "http.url", "url.path", "http.path", "http.target"];
        let target = target.iter().find_map(|key| self.span.attributes.get(*key)?.as_str());
        match target {
            Some(target) if !self.name.contains(['/', ' ']) => {
                format!("{} {}", self.name, target.split('?').next().unwrap_or_default())
            }
            _ => self.name.clone(),
        }
    }

    pub fn status_text(&self) -> String {
        self.status.map_or_else(|| "-".to_owned(), |status| status.to_string())
    }

    pub fn took_text(&self) -> String {
        self.duration_ns.map_or_else(|| "-".to_owned(), duration)
    }
}

fn text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    lenient(deserializer)
}

/// A field of another type is as good as none.
fn lenient<'de, D: Deserializer<'de>, T: serde::de::DeserializeOwned + Default>(
    deserializer: D,
) -> Result<T, D::Error> {
    let raw = <&RawValue>::deserialize(deserializer)?;
    Ok(crate::json::value(raw.get().as_bytes()).unwrap_or_default())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// An event of service `user`.
    pub fn event(id: &str, kind: &str, time_ms: i64) -> Shown {
        Shown {
            request_id: id.into(),
            event: kind.into(),
            time: "2026-11-21 10:50:36".into(),
            service_name: "user".into(),
            request: ShownRequest { method: "GET".into(), url: "/login".into(), ..ShownRequest::default() },
            time_ms,
            ..Shown::default()
        }
    }

    #[test]
    fn what_is_odd_in_an_event_hides_nothing_else() {
        let odd = r#"{"requestId":7,"event":"service.end","request":{"url":"/a","headers":[1],"body":[1.10]},"status":"x",
            "parentId":null,"timeMs":5,"durationNs":2000000}"#;
        let shown = Shown::read(&RawValue::from_string(odd.to_owned()).expect("JSON"));
        assert_eq!((shown.request_id.as_str(), shown.event.as_str(), shown.status), ("", "service.end", None));
        assert_eq!(shown.request.body.as_deref().map(RawValue::get), Some("[1.10]"));
        assert_eq!((shown.line().as_str(), shown.began_ns()), ("/a", 3_000_000));
    }

    #[test]
    fn a_call_named_by_its_method_says_where_it_went() {
        for (name, attributes, line) in [
            ("GET", r#"{"url.full":"http://h/a?b=1"}"#, "GET http://h/a"),
            ("get", r#"{"http.path":"/a"}"#, "get /a"),
            ("GET /{id}", r#"{"url.full":"http://h/7"}"#, "GET /{id}"),
            ("SELECT", "{}", "SELECT"),
        ] {
            let json =
                format!(r#"{{"event":"span.end","name":"{name}","span":{{"startNs":7,"attributes":{attributes}}}}}"#);
            let shown = Shown::read(&RawValue::from_string(json).expect("JSON"));
            assert_eq!((shown.line().as_str(), shown.began_ns()), (line, 7));
        }
    }
}
