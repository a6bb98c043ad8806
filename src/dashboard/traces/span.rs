//! What a span holds: facts, attributes, headers, body; each cut, and all together bounded.

use maud::{Markup, html};
use serde_json::Value;

use super::body::pretty;
use super::waterfall::{Outcome, Row};
use super::{moment, segment};
use crate::dashboard::page::told;
use crate::figures::{bytes, duration};
use crate::reading::Shown;
use crate::reading::export::note_of;

/// Bytes that the insides of all spans of a page may have, about.
const PAGE_BYTES: usize = 70_000;
/// What the facts of a span take, and the tags around a header or attribute.
const FACTS_BYTES: usize = 1_500;
const PAIR_BYTES: usize = 60;
/// Of one body, and of one header or attribute.
const BODY_BYTES: usize = 4_000;
const VALUE_BYTES: usize = 400;
/// Headers or attributes of one span.
const MOST_PAIRS: usize = 60;

/// What a page may still show.
pub struct Room(usize);

impl Default for Room {
    fn default() -> Self {
        Self(PAGE_BYTES)
    }
}

impl Room {
    /// So many bytes of it, or what is left.
    fn most(&self, wanted: usize) -> usize {
        wanted.min(self.0)
    }

    fn take(&mut self, bytes: usize) {
        self.0 = self.0.saturating_sub(bytes);
    }

    /// The begin of a text, and whether it is all of it.
    fn cut<'t>(&mut self, text: &'t str, most: usize) -> (&'t str, bool) {
        let most = self.most(most);
        let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        self.take(end);
        (&text[..end], end == text.len())
    }
}

/// The insides of a row. `id` is the page's request or trace; `own_page` shows this row before all others have filled it.
pub fn inside(id: &str, row: &Row<'_>, own_page: &str, room: &mut Room) -> Markup {
    let Some(told_by) = row.span.told() else { return html! {} };
    if room.0 == 0 {
        return html! { p.soft { "This page is full. " a href=(own_page) { "Load this span" } ", or as it is stored: " (raw(id, row)) } };
    }
    room.take(FACTS_BYTES);
    html! {
        (facts(id, row, told_by))
        @let attributes = row.span.end.unwrap_or(told_by).span.attributes.iter();
        (pairs("Attributes", attributes.map(|(name, value)| (name.as_str(), plain(value))), room))
        (pairs("Headers", told_by.request.headers.iter().map(|(name, value)| (name.as_str(), value.clone())), room))
        (request_body(id, row, told_by, room))
    }
}

fn facts(id: &str, row: &Row<'_>, told_by: &Shown) -> Markup {
    let end = row.span.end;
    let fact = |name: &str, value: &str| {
        html! { @if !value.is_empty() { dt { (name) } dd { (told(value)) } } }
    };
    html! {
        dl.pairs {
            @if let Some(error) = end.map(|end| end.span.error.as_str()).filter(|error| !error.is_empty()) {
                dt { "Error" } dd.bad { (told(error)) }
            }
            (fact("Request", &told_by.line()))
            dt { "Began" }
            dd { (moment(i64::try_from(row.span.began_ns() / 1_000_000).unwrap_or(0))) ", " (duration(row.offset_ns)) " after the first" }
            dt { "Took" }
            dd {
                @match row.outcome {
                    Outcome::Open => span.warn { "no end has come: it runs, or its node is gone" },
                    _ => (row.took_ns.map_or_else(|| "–".to_owned(), duration)),
                }
            }
            (fact("Service", &told_by.service_name))
            (fact("Node", &told_by.node))
            (fact("Action", &told_by.action))
            (fact("Caller", &told_by.caller))
            (fact("Client", &told_by.request.client_ip))
            (fact("Kind", &told_by.span.kind))
            (fact("Span", &told_by.span_id))
            (fact("Parent", &told_by.parent_id))
            (fact("Request id", &told_by.request_id))
            dt { "Stored" } dd { (raw(id, row)) }
        }
    }
}

/// Links to the stored events.
fn raw(id: &str, row: &Row<'_>) -> Markup {
    let events = [row.span.start, row.span.end];
    html! {
        @for event in events.into_iter().flatten().filter(|event| !event.event_id.is_empty()) {
            a href={ "/traces/" (segment(id)) "/events/" (segment(&event.event_id)) } { (event.event) } " "
        }
    }
}

fn pairs<'a>(title: &str, pairs: impl ExactSizeIterator<Item = (&'a str, String)>, room: &mut Room) -> Markup {
    let count = pairs.len();
    if count == 0 {
        return html! {};
    }
    html! {
        h3 { (title) }
        dl.pairs.mono {
            @for (name, value) in pairs.take(MOST_PAIRS) {
                @let () = room.take(PAIR_BYTES);
                @let (name, _) = room.cut(name, VALUE_BYTES);
                @let (shown, is_whole) = room.cut(&value, VALUE_BYTES);
                dt { bdi { (name) } }
                dd { bdi { (shown) } @if !is_whole { span.soft { "… of " (bytes(value.len() as u64)) } } }
            }
        }
        @if count > MOST_PAIRS { p.soft { (count - MOST_PAIRS) " more in the stored event" } }
    }
}

fn request_body(id: &str, row: &Row<'_>, told_by: &Shown, room: &mut Room) -> Markup {
    let Some(body) = told_by.request.body.as_deref().filter(|body| !matches!(body.get(), "{}" | "null")) else {
        return html! {};
    };
    if let Some(note) = note_of(body) {
        return html! { h3 { "Body" } p.soft { (note) } };
    }
    let (text, is_cut) = pretty(body.get(), room.most(BODY_BYTES));
    room.take(text.len());
    html! {
        h3 { "Body" }
        pre tabindex="0" { (text) }
        @if is_cut { p.soft { "The first part of " (bytes(body.get().len() as u64)) "; all of it: " (raw(id, row)) } }
    }
}

/// A value as text: strings without quotes.
fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::Waterfall;
    use super::super::waterfall::tests::event;
    use super::*;
    use serde_json::value::RawValue;

    #[test]
    fn a_megabyte_of_body_is_cut_and_hostile_data_is_text() {
        let mut shown = event("request.end", "<b>gateway", "a", "", 1, Some((200, 1)));
        shown.event_id = "e/1".into();
        shown.request.headers.insert("X-<script>".into(), "\"><img src=x onerror=alert(1)>".into());
        let body = format!("{{\"a\":\"</pre><script>{}\"}}", "x".repeat(1 << 20));
        shown.request.body = Some(RawValue::from_string(body).expect("JSON"));
        let events = [shown];
        let drawn = Waterfall::of(&events);
        let mut room = Room::default();
        let page = inside("id", &drawn.rows[0], "/own", &mut room).into_string();
        assert!(page.len() < 3 * BODY_BYTES, "{}", page.len());
        assert!(!page.contains("<script") && !page.contains("<img") && !page.contains("<b>"), "{page}");
        assert!(page.contains("of 1.0 MiB") && page.contains("/traces/id/events/e%2F1"), "{page}");
        for _ in 0..100 {
            inside("id", &drawn.rows[0], "/own", &mut room);
        }
        let page = inside("id", &drawn.rows[0], "/own", &mut room).into_string();
        assert!(page.contains("page is full") && page.contains("/own") && page.contains("/events/e%2F1"), "{page}");
    }

    #[test]
    fn a_body_that_was_not_recorded_says_so() {
        let mut shown = event("request.start", "gateway", "a", "", 1, None);
        shown.request.body =
            Some(RawValue::from_string("{\"goms\":\"body of 20000 bytes not recorded\"}".into()).expect("JSON"));
        let events = [shown];
        let drawn = Waterfall::of(&events);
        let page = inside("id", &drawn.rows[0], "/own", &mut Room::default()).into_string();
        assert!(page.contains("body of 20000 bytes not recorded") && page.contains("no end has come"), "{page}");
    }
}
