//! What a visitor looks for: the query string of a page of traces, the store's query, and the form between the two.
//!
//! ```text
//! ?service=user&status=5xx&since=10m     names and values as the flags of `goms trace search`
//! ```
//! Every fault is shown at its field; the page then shows what the other fields find. Besides the flags' values `event`
//! takes `all`, and nothing is "whatever has ended"; `since` takes `all`, and nothing is the last hour.

use std::collections::BTreeMap;

use jiff::Zoned;
use maud::{Markup, html};
use url::form_urlencoded;

use crate::reading::{EVENTS, StatusRange, parse_status, parse_trace_id};
use crate::store::{Order, Query};
use crate::units::{parse_duration, parse_moment};

/// Every name of the query string, in the order in which a link has them.
const NAMES: [&str; 16] = [
    "service",
    "action",
    "caller",
    "status",
    "min-duration",
    "text",
    "since",
    "until",
    "event",
    "node",
    "url",
    "request-id",
    "trace-id",
    "order",
    "limit",
    "after",
];
/// Those of the form's second part, which is folded while they are empty.
const MORE: [&str; 5] = ["event", "node", "url", "request-id", "trace-id"];
const DEFAULT_SINCE: &str = "1h";
/// Events of a page.
const DEFAULT_LIMIT: usize = 50;
/// More would make a page that is slow to read and to load; `goms trace export` gives all.
const MOST: usize = 200;
/// A longer value looks for nothing that is stored.
const LONGEST: usize = 1_000;

/// What was asked.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The values as they were written, without empty ones.
    texts: BTreeMap<&'static str, String>,
    /// What is wrong with them, by name; without a name, of the whole.
    faults: BTreeMap<&'static str, String>,
    /// What to look for.
    pub query: Query,
}

impl Form {
    /// Reads a query string; `now` decides what `10m` is.
    pub fn read(query_string: &str, now: &Zoned) -> Self {
        let mut form = Self::default();
        for (name, value) in form_urlencoded::parse(query_string.as_bytes()) {
            let value: String = value.trim().chars().take(LONGEST).collect();
            match NAMES.iter().find(|known| **known == name) {
                Some(known) if !value.is_empty() => {
                    form.texts.insert(known, value);
                }
                Some(known) => {
                    form.texts.remove(known);
                }
                None => {
                    let name: String = name.chars().take(40).collect();
                    form.faults.insert("", format!("there is no filter `{name}`, so it narrows nothing"));
                }
            }
        }
        form.fill(now);
        form
    }

    fn fill(&mut self, now: &Zoned) {
        let text = |form: &Self, name: &str| form.texts.get(name).cloned();
        let mut query = Query {
            service: text(self, "service"),
            action: text(self, "action"),
            caller: text(self, "caller"),
            node: text(self, "node"),
            url: text(self, "url"),
            request_id: text(self, "request-id"),
            text: text(self, "text"),
            after: text(self, "after"),
            ..Query::default()
        };
        query.status = self.parsed("status", |text| parse_status(text).map(|StatusRange(low, high)| (low, high)));
        query.trace_id = self.parsed("trace-id", parse_trace_id);
        query.min_duration_ns = self.parsed("min-duration", |text| {
            parse_duration(text).map(|least| u64::try_from(least.as_nanos()).unwrap_or(u64::MAX))
        });
        query.until_ms = self.parsed("until", |text| parse_moment(text, now));
        query.since_ms = match self.texts.get("since").map(String::as_str) {
            Some("all") => None,
            Some(_) => self.parsed("since", |text| parse_moment(text, now)),
            None => {
                let end_ms = query.until_ms.unwrap_or_else(|| now.timestamp().as_millisecond());
                (!self.names_one()).then_some(end_ms - 3_600_000)
            }
        };
        if let (Some(since), Some(until)) = (query.since_ms, query.until_ms)
            && since >= until
        {
            self.faults
                .insert("until", "must be after `since`; `since` 2h and `until` 1h is the hour before".to_owned());
        }
        self.fill_event(&mut query);
        query.order = self.parsed("order", order).unwrap_or_default();
        query.limit = self.parsed("limit", limit).unwrap_or(DEFAULT_LIMIT);
        self.query = query;
    }

    fn fill_event(&mut self, query: &mut Query) {
        match self.texts.get("event").map(String::as_str) {
            Some("all") => {}
            None => query.min_duration_ns = query.min_duration_ns.or(Some(0)), // only ends have a duration
            Some(event) if EVENTS.contains(&event) => query.event = Some(event.to_owned()),
            Some(event) => {
                let fault = format!("`{event}` is no event; write `all` or one of {}", EVENTS.join(", "));
                self.faults.insert("event", fault);
            }
        }
    }

    fn parsed<T>(&mut self, name: &'static str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        match parse(self.texts.get(name)?) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.faults.insert(name, fault);
                None
            }
        }
    }

    /// One request or trace is looked for whenever it was.
    fn names_one(&self) -> bool {
        self.texts.contains_key("request-id") || self.texts.contains_key("trace-id")
    }

    /// Whether something in it could not be read, and so narrows nothing.
    pub fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// The value of a field as it was written.
    pub fn text(&self, name: &str) -> &str {
        self.texts.get(name).map_or("", String::as_str)
    }

    /// The end of a link to the same with other values (`None` takes one away): `?service=user&order=slowest`, or nothing.
    pub fn link(&self, changes: &[(&'static str, Option<&str>)]) -> String {
        let mut texts = self.texts.clone();
        for (name, value) in changes {
            match value {
                Some(value) => texts.insert(name, (*value).to_owned()),
                None => texts.remove(name),
            };
        }
        let mut out = form_urlencoded::Serializer::new(String::new());
        for name in NAMES {
            if let Some(value) = texts.get(name) {
                out.append_pair(name, value);
            }
        }
        match out.finish() {
            text if text.is_empty() => text,
            text => format!("?{text}"),
        }
    }

    /// The form; `action` is the page that it leads to, `has_range` whether that page has a time range and an order.
    /// `services` are names that it proposes.
    pub fn markup(&self, action: &str, has_range: bool, services: &[String]) -> Markup {
        let is_folded = MORE.iter().all(|name| self.text(name).is_empty());
        html! {
            form.trace-filters method="get" action=(action) role="search" {
                @if let Some(fault) = self.faults.get("") { p.notice.warn { (fault) } }
                datalist id="services" { @for service in services { option value=(service) {} } }
                div.filters {
                    (self.proposed("service", "Service", "any", Some("services")))
                    (self.field("action", "Action", "any"))
                    (self.proposed("caller", "Caller", "any", Some("services")))
                    (self.field("status", "Status", "5xx, 404, 200-299"))
                    (self.field("min-duration", "Longer than", "500ms"))
                    (self.field("text", "Words", "anywhere in it"))
                    @if has_range {
                        (self.since())
                        (self.field("until", "Until", "now"))
                    }
                    div.submit {
                        @if has_range && !self.text("order").is_empty() {
                            input type="hidden" name="order" value=(self.text("order"));
                        }
                        button.primary type="submit" { @if has_range { "Search" } @else { "Follow these" } }
                        @if !self.texts.is_empty() { a.button href=(action) { "Reset" } }
                    }
                }
                details.more open[!is_folded] {
                    summary { "More filters" }
                    div.filters {
                        (self.event())
                        (self.field("node", "Node", "ip:rpc_ip:http"))
                        (self.field("url", "Path", "/api/user/login"))
                        (self.field("request-id", "Request id", "X-Request-Id"))
                        (self.field("trace-id", "Trace id", "32 hex digits"))
                    }
                }
            }
        }
    }

    fn field(&self, name: &'static str, label: &str, hint: &str) -> Markup {
        self.proposed(name, label, hint, None)
    }

    fn proposed(&self, name: &'static str, label: &str, hint: &str, list: Option<&str>) -> Markup {
        let fault = self.faults.get(name);
        html! {
            div {
                label for={ "f-" (name) } { (label) }
                input id={ "f-" (name) } name=(name) value=(self.text(name)) placeholder=(hint) list=[list] autocomplete="off"
                    spellcheck="false" autocapitalize="none" aria-invalid=[fault.map(|_| "true")]
                    aria-describedby=[fault.map(|_| format!("e-{name}"))];
                (self.fault(name))
            }
        }
    }

    fn since(&self) -> Markup {
        let shown = match self.text("since") {
            "" if self.names_one() => "all",
            "" => DEFAULT_SINCE,
            text => text,
        };
        let fault = self.faults.get("since");
        html! {
            div {
                label for="f-since" { "Since" }
                input id="f-since" name="since" value=(shown) list="since-words" autocomplete="off" spellcheck="false"
                    aria-invalid=[fault.map(|_| "true")] aria-describedby=[fault.map(|_| "e-since")];
                datalist id="since-words" {
                    @for word in ["15m", "1h", "6h", "24h", "7d", "all"] { option value=(word) {} }
                }
                (self.fault("since"))
            }
        }
    }

    fn event(&self) -> Markup {
        let chosen = self.text("event");
        let choices = [
            ("", "what has ended"),
            ("all", "all events"),
            ("request.start", "request.start"),
            ("request.end", "request.end"),
            ("service.start", "service.start"),
            ("service.end", "service.end"),
            ("span.end", "span.end"),
        ];
        html! {
            div {
                label for="f-event" { "Event" }
                select id="f-event" name="event" aria-describedby=[self.faults.get("event").map(|_| "e-event")] {
                    @for (value, words) in choices { option value=(value) selected[value == chosen] { (words) } }
                }
                (self.fault("event"))
            }
        }
    }

    fn fault(&self, name: &str) -> Markup {
        html! {
            @if let Some(fault) = self.faults.get(name) { p.fault id={ "e-" (name) } { (fault) } }
        }
    }
}

fn order(text: &str) -> Result<Order, String> {
    match text {
        "newest" => Ok(Order::Newest),
        "oldest" => Ok(Order::Oldest),
        "slowest" => Ok(Order::Slowest),
        _ => Err(format!("`{text}` is no order; write newest, oldest or slowest")),
    }
}

fn limit(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(limit @ 1..=MOST) => Ok(limit),
        _ => Err(format!("a page has 1 to {MOST} events, not `{text}`")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query_string: &str) -> Form {
        let now: Zoned = "2026-11-21T08:00:00+00:00[UTC]".parse().expect("a time");
        Form::read(query_string, &now)
    }

    const NOW_MS: i64 = 1_795_248_000_000;

    #[test]
    fn every_flag_of_the_search_has_its_field() {
        let form = read(
            "service=user&action=user%2Flogin&caller=gateway&event=service.end&status=5xx&min-duration=1.5s&text=a+b\
             &node=n&url=%2Fx&request-id=r&trace-id=CDB08456-d8a7-4d53-93c2-a5e3f01f56d6&since=10m&until=5m\
             &order=slowest&limit=7&after=s%3A1%3A2",
        );
        assert!(form.faults.is_empty(), "{:?}", form.faults);
        let wanted = Query {
            request_id: Some("r".into()),
            trace_id: Some("cdb08456d8a74d5393c2a5e3f01f56d6".into()),
            service: Some("user".into()),
            node: Some("n".into()),
            event: Some("service.end".into()),
            url: Some("/x".into()),
            action: Some("user/login".into()),
            caller: Some("gateway".into()),
            status: Some((500, 599)),
            min_duration_ns: Some(1_500_000_000),
            since_ms: Some(NOW_MS - 600_000),
            until_ms: Some(NOW_MS - 300_000),
            text: Some("a b".into()),
            order: Order::Slowest,
            limit: 7,
            after: Some("s:1:2".into()),
        };
        assert_eq!(form.query, wanted);
        let again = read(form.link(&[]).trim_start_matches('?'));
        assert_eq!(again.query, wanted);
    }

    #[test]
    fn without_words_it_is_what_ended_in_the_last_hour() {
        let form = read("service=&utm=");
        assert_eq!(form.query.since_ms, Some(NOW_MS - 3_600_000));
        assert_eq!((form.query.event, form.query.min_duration_ns, form.query.limit), (None, Some(0), 50));
        assert!(form.faults[""].contains("`utm`"));
        assert_eq!(read("since=all&event=all").query, Query { limit: 50, ..Query::default() });
        assert_eq!(read("request-id=r").query.since_ms, None);
        assert_eq!(read("").link(&[]), "");
    }

    #[test]
    fn each_fault_stands_at_its_field_and_the_rest_counts() {
        let form =
            read("service=user&status=6xx&since=yesterday-ish&min-duration=fast&event=x&order=best&limit=0&trace-id=1");
        let names: Vec<&str> = form.faults.keys().copied().collect();
        assert_eq!(names, ["event", "limit", "min-duration", "order", "since", "status", "trace-id"]);
        assert_eq!(form.query.service.as_deref(), Some("user"));
        let page = form.markup("/traces", true, &[]).into_string();
        assert!(page.contains("id=\"e-status\"") && page.contains("aria-describedby=\"e-status\""), "{page}");
        assert!(read("since=1h&until=2h").faults["until"].contains("after"));
    }

    #[test]
    fn what_was_written_is_escaped() {
        let page = read("service=%22%3E%3Cscript%3Ealert(1)%3C%2Fscript%3E").markup("/traces", true, &[]).into_string();
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"), "{page}");
        let link = read("text=a%26b%3D%22").link(&[("after", Some("n:1:\"")), ("text", Some("x&y"))]);
        assert_eq!(link, "?text=x%26y&after=n%3A1%3A%22");
    }
}
