//! The query strings of Jaeger's query API.

use std::collections::BTreeMap;

use url::form_urlencoded;
use uuid::Uuid;

use crate::dashboard::value_of;
use crate::reading::Shown;
use crate::reading::export::tag;
use crate::store::{FIRST_ERROR, Query};
use crate::units::parse_duration;

/// Traces of an answer where nobody says how many, and at most.
const LIMIT: usize = 20;
const MOST: usize = 200;
/// How far a search goes back where nobody says it, in milliseconds.
const LOOKBACK_MS: i64 = 2 * 86_400_000;
/// And who calls whom.
const DEPENDENCIES_MS: i64 = 86_400_000;

/// What `/api/traces` is asked for.
#[derive(Debug, Default)]
pub struct Asked {
    /// These traces, whatever else is said.
    pub trace_ids: Vec<String>,
    /// What the store looks for.
    pub query: Query,
    /// What of that passes besides: nanoseconds, and tags with these values.
    max_duration_ns: Option<u64>,
    tags: BTreeMap<String, String>,
    /// At most so many traces.
    pub limit: usize,
}

impl Asked {
    /// # Errors
    /// What is wrong, with the parameter's name.
    pub fn read(query_string: &str, now_ms: i64) -> Result<Self, String> {
        let text = |name: &str| value_of(query_string, name);
        let trace_ids: Vec<String> = form_urlencoded::parse(query_string.as_bytes())
            .filter(|(name, _)| name == "traceID")
            .map(|(_, id)| trace_id(&id))
            .collect::<Result<_, _>>()?;
        let limit = match text("limit") {
            None => LIMIT,
            Some(text) => {
                text.parse::<usize>().map_err(|_| format!("`limit` is a number, not `{text}`"))?.clamp(1, MOST)
            }
        };
        if trace_ids.is_empty() && text("service").is_none() {
            return Err("parameter `service` is missing".to_owned());
        }
        let min_duration_ns = duration(text("minDuration"), "minDuration")?;
        let max_duration_ns = duration(text("maxDuration"), "maxDuration")?;
        if max_duration_ns.is_some_and(|most| most < min_duration_ns.unwrap_or(0)) {
            return Err("`maxDuration` must not be shorter than `minDuration`".to_owned());
        }
        let until_ms = micros(text("end"), "end")?.unwrap_or(now_ms + 1);
        let since_ms = micros(text("start"), "start")?.unwrap_or(until_ms - LOOKBACK_MS);
        let query = Query {
            service: text("service"),
            action: text("operation").filter(|operation| operation != "all"),
            min_duration_ns: Some(min_duration_ns.unwrap_or(0)), // only ends are spans of their own
            since_ms: Some(since_ms),
            until_ms: Some(until_ms),
            ..Query::default()
        };
        let mut asked = Self {
            trace_ids: trace_ids.into_iter().take(MOST).collect(),
            query,
            max_duration_ns,
            limit,
            ..Self::default()
        };
        asked.read_tags(query_string)?;
        Ok(asked)
    }

    /// `tags={"error":"true"}`, and the older `tag=error:true`.
    fn read_tags(&mut self, query_string: &str) -> Result<(), String> {
        for (name, value) in form_urlencoded::parse(query_string.as_bytes()) {
            match &*name {
                "tags" if !value.is_empty() => {
                    let tags: BTreeMap<String, serde_json::Value> = crate::json::value(value.as_bytes())
                        .map_err(|error| format!("`tags` is a JSON object of strings: {error}"))?;
                    self.tags.extend(tags.into_iter().map(|(key, value)| match value {
                        serde_json::Value::String(text) => (key, text),
                        other => (key, other.to_string()),
                    }));
                }
                "tag" => {
                    let (key, value) =
                        value.split_once(':').ok_or_else(|| format!("`tag` is `key:value`, not `{value}`"))?;
                    self.tags.insert(key.to_owned(), value.to_owned());
                }
                _ => {}
            }
        }
        let mut words = Vec::new();
        for (key, value) in &self.tags {
            match (key.as_str(), value.parse::<u16>()) {
                ("error", _) if value == "true" => self.query.status = Some((FIRST_ERROR, 599)),
                ("http.status_code" | "http.response.status_code", Ok(status)) => {
                    self.query.status = Some((status, status))
                }
                // a number or a truth may not be among the words that the store knows
                ("error" | "span.kind", _) | (_, Ok(_)) => {}
                _ if value.parse::<f64>().is_ok() || value == "true" || value == "false" => {}
                _ => words.push(value.as_str()),
            }
        }
        self.query.text = (!words.is_empty()).then(|| words.join(" "));
        Ok(())
    }

    /// Whether an event that the store found has what the store cannot look for.
    pub fn passes(&self, shown: &Shown) -> bool {
        self.max_duration_ns.is_none_or(|most| shown.duration_ns.unwrap_or(0) <= most)
            && self.tags.iter().all(|(key, value)| tag(shown, key).as_ref() == Some(value))
    }
}

/// What `/api/dependencies` is asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Dependencies {
    /// Milliseconds of Unix time.
    pub since_ms: i64,
    pub until_ms: i64,
}

impl Dependencies {
    /// # Errors
    /// What is wrong, with the parameter's name.
    pub fn read(query_string: &str, now_ms: i64) -> Result<Self, String> {
        let until_ms = number(value_of(query_string, "endTs"), "endTs")?.unwrap_or(now_ms);
        let lookback = number(value_of(query_string, "lookback"), "lookback")?.unwrap_or(DEPENDENCIES_MS);
        Ok(Self { since_ms: until_ms.saturating_sub(lookback.max(0)), until_ms })
    }
}

/// 32 digits; Jaeger's clients leave zeros in front out.
fn trace_id(text: &str) -> Result<String, String> {
    match Uuid::try_parse(&format!("{text:0>32}")) {
        Ok(id) => Ok(id.simple().to_string()),
        Err(_) => Err(format!("`traceID` has up to 32 hex digits, not `{text}`")),
    }
}

fn duration(text: Option<String>, name: &str) -> Result<Option<u64>, String> {
    let Some(text) = text else { return Ok(None) };
    let read = parse_duration(&text).map_err(|error| format!("`{name}`: {error}"))?;
    Ok(Some(u64::try_from(read.as_nanos()).unwrap_or(u64::MAX)))
}

/// Milliseconds of a number of microseconds.
fn micros(text: Option<String>, name: &str) -> Result<Option<i64>, String> {
    Ok(number(text, name)?.map(|micros| micros / 1_000))
}

fn number(text: Option<String>, name: &str) -> Result<Option<i64>, String> {
    let Some(text) = text else { return Ok(None) };
    text.parse().map(Some).map_err(|_| format!("`{name}` is a number, not `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW_MS: i64 = 1_795_248_000_000;

    #[test]
    fn a_search_of_grafana_is_read() {
        let asked = Asked::read(
            "service=user&operation=user%2Flogin&start=1795247000000000&end=1795247100000000&limit=7&minDuration=1.5ms\
             &maxDuration=2s&tags=%7B%22error%22%3A%22true%22%2C%22url.path%22%3A%22%2Flogin%22%2C%22n%22%3A%223%22%7D",
            NOW_MS,
        )
        .expect("a search");
        let wanted = Query {
            service: Some("user".into()),
            action: Some("user/login".into()),
            status: Some((500, 599)),
            min_duration_ns: Some(1_500_000),
            since_ms: Some(1_795_247_000_000),
            until_ms: Some(1_795_247_100_000),
            text: Some("/login".into()),
            ..Query::default()
        };
        assert_eq!((asked.query, asked.limit, asked.max_duration_ns), (wanted, 7, Some(2_000_000_000)));
        assert_eq!(asked.tags.len(), 3);
    }

    #[test]
    fn what_nobody_says_is_the_last_two_days() {
        let asked = Asked::read("service=user&operation=all", NOW_MS).expect("a search");
        assert_eq!((asked.query.since_ms, asked.query.action), (Some(NOW_MS + 1 - LOOKBACK_MS), None));
        assert_eq!(asked.limit, LIMIT);
        let ids = Asked::read("traceID=ab&traceID=0af7651916cd43dd8448eb211c80319c", NOW_MS).expect("ids").trace_ids;
        assert_eq!(ids, ["000000000000000000000000000000ab", "0af7651916cd43dd8448eb211c80319c"]);
        let day = Dependencies { since_ms: 1_000, until_ms: 5_000 };
        assert_eq!(Dependencies::read("endTs=5000&lookback=4000", NOW_MS), Ok(day));
    }

    #[test]
    fn faults_name_the_parameter() {
        for (query_string, says) in [
            ("", "`service`"),
            ("service=a&limit=x", "`limit`"),
            ("service=a&minDuration=fast", "`minDuration`"),
            ("service=a&minDuration=2s&maxDuration=1s", "`maxDuration`"),
            ("service=a&start=yesterday", "`start`"),
            ("service=a&tags=error", "`tags`"),
            ("service=a&tag=error", "`tag`"),
            ("traceID=xyz", "`traceID`"),
        ] {
            let fault = Asked::read(query_string, NOW_MS).expect_err(query_string);
            assert!(fault.contains(says), "{fault}");
        }
    }
}
