//! The page of one request or trace.

use std::collections::HashSet;

use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::span::{Room, inside};
use super::waterfall::{Outcome, Row, Waterfall};
use super::{badge, events_of, moment, segment};
use crate::dashboard::page::{Section, page, told};
use crate::dashboard::{Dashboard, Visitor};
use crate::figures::{duration, grouped};
use crate::reading::Shown;

/// Spans of a page.
const ROWS: usize = 100;
/// Failed spans that are named above the waterfall.
const NAMED: usize = 5;
/// A chain of calls deeper than this is drawn no further to the right.
const MAX_INDENT: usize = 12;

/// Which part is shown.
#[derive(Default, Deserialize)]
pub struct Part {
    /// The first row.
    #[serde(default)]
    from: usize,
    /// A row that is open.
    open: Option<usize>,
}

/// `GET /traces/{id}`.
pub async fn show(
    id: web::Path<String>,
    part: Option<web::Query<Part>>,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
) -> HttpResponse {
    let found = match events_of(&dashboard, &id).await {
        Ok(found) => found,
        Err(trouble) => return trouble.page(&visitor),
    };
    let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
    let drawn = Waterfall::of(&events);
    let part = part.map(web::Query::into_inner).unwrap_or_default();
    let main = html! {
        (head(&id, &events, &drawn))
        @if found.is_cut {
            div.notice.warn { "It has more events than a page reads; these are " (grouped(events.len() as u64)) ". All of them: "
                code { "goms trace export --trace-id " (events[0].trace_id) " --format otlp" } }
        }
        (errors(&id, &drawn))
        (waterfall(&id, &drawn, &part))
        (tools(&id))
    };
    let title = drawn.root().and_then(|row| row.span.told()).map_or_else(|| id.to_string(), Shown::line);
    page(&visitor, Section::Traces, &title.chars().take(60).collect::<String>(), &main)
}

fn head(id: &str, events: &[Shown], drawn: &Waterfall<'_>) -> Markup {
    let Some(root) = drawn.root() else { return html! {} };
    let Some(told_by) = root.span.told() else { return html! {} };
    let end = root.span.end;
    let requests: HashSet<&str> = events.iter().map(|event| event.request_id.as_str()).collect();
    let failed = drawn.failed.len();
    html! {
        nav.crumbs aria-label="Where this is" { a href="/traces" { "Traces" } " / " span.mono { (told(id)) } }
        div.head.request-head {
            h1 { (told(&told_by.line())) }
            (badge(end.and_then(|end| end.status), root.outcome == Outcome::Failed))
            @if let Some(at) = drawn.failed.first() { a.button.jump href=(row_link(id, *at)) { "Jump to the error" } }
            div.end.downloads {
                button type="button" hidden data-copy="page" { "Copy link" }
                @if root.span.is_request() { a.button href={ "/traces/" (segment(id)) "/replay" } { "Send again" } }
                details.menu {
                    summary.button { "Download" }
                    ul {
                        @for (format, name) in [("otlp", "OTLP JSON"), ("har", "HAR"), ("curl", "curl"), ("json", "Stored events")] {
                            li { a href={ "/traces/" (segment(id)) "/download/" (format) } download { (name) } }
                        }
                    }
                }
            }
        }
        dl.figures {
            div { dt { "Took" } dd { (duration(drawn.whole_ns)) } }
            div { dt { "Began" } dd.time { (moment(i64::try_from(drawn.began_ns / 1_000_000).unwrap_or(0))) } }
            div { dt { "Spans" } dd { (grouped(drawn.rows.len() as u64)) } }
            div { dt { "Failed" } dd class=@if failed > 0 { "bad" } @else { "" } { (failed) } }
            div { dt { "Services" } dd { (drawn.services.len()) } }
            @if requests.len() > 1 { div { dt { "Request ids" } dd { (requests.len()) } } }
        }
        dl.pairs.ids {
            dt { "Request" } dd.mono { (told(&told_by.request_id)) }
            @if !told_by.trace_id.is_empty() {
                dt { "Trace" } dd.mono { a href={ "/traces/" (segment(&told_by.trace_id)) } { (told(&told_by.trace_id)) } }
            }
        }
    }
}

/// Where it went wrong, the deepest first.
fn errors(id: &str, drawn: &Waterfall<'_>) -> Markup {
    html! {
        @if !drawn.failed.is_empty() {
            section.card.errors aria-label="Errors" {
                header { h2 { "Failed" } span.soft { "the deepest first: it explains those above it" } }
                ul {
                    @for at in drawn.failed.iter().take(NAMED) {
                        @let row = &drawn.rows[*at];
                        @if let Some(told_by) = row.span.told() {
                            li {
                                a href=(row_link(id, *at)) { strong { (told(&told_by.service_name)) } " " (told(&told_by.line())) }
                                " " (badge(row.span.end.and_then(|end| end.status), true))
                                @if let Some(end) = row.span.end { @if !end.span.error.is_empty() { " " (told(&end.span.error)) } }
                            }
                        }
                    }
                    @if drawn.failed.len() > NAMED { li.soft { (drawn.failed.len() - NAMED) " more below" } }
                }
            }
        }
    }
}

/// A link to a row, open, on the part of the page where it stands.
fn row_link(id: &str, at: usize) -> String {
    let from = at / ROWS * ROWS;
    format!("/traces/{}?from={from}&open={at}#s{at}", segment(id))
}

fn waterfall(id: &str, drawn: &Waterfall<'_>, part: &Part) -> Markup {
    let from = part.from.min(drawn.rows.len().saturating_sub(1)) / ROWS * ROWS;
    let to = (from + ROWS).min(drawn.rows.len());
    let mut room = Room::default();
    html! {
        section.card.waterfall aria-label="Waterfall" {
            header {
                h2 { "Spans" }
                @if drawn.rows.len() > ROWS { span.soft { (from + 1) " to " (to) " of " (grouped(drawn.rows.len() as u64)) } }
                span.soft.end { "open a row for its headers and body" }
            }
            div.ruler aria-hidden="true" {
                span { "Service and request" }
                ol { @for quarter in 0..=4_u64 { li { (duration(drawn.whole_ns / 4 * quarter)) } } }
                span { "Status" } span.num { "Took" }
            }
            @for (at, row) in drawn.rows.iter().enumerate().take(to).skip(from) {
                (span(id, at, row, drawn, part.open == Some(at), &mut room))
            }
            @if drawn.rows.len() > ROWS {
                div.pager {
                    @if from > 0 { a.button rel="prev" href={ "/traces/" (segment(id)) "?from=" (from - ROWS) } { "Earlier spans" } }
                    @if to < drawn.rows.len() { a.button rel="next" href={ "/traces/" (segment(id)) "?from=" (to) } { "Later spans" } }
                }
            }
        }
    }
}

fn span(id: &str, at: usize, row: &Row<'_>, drawn: &Waterfall<'_>, is_open: bool, room: &mut Room) -> Markup {
    let Some(told_by) = row.span.told() else { return html! {} };
    let class = match row.outcome {
        Outcome::Good => "span",
        Outcome::Refused => "span refused",
        Outcome::Failed => "span failed",
        Outcome::Open => "span open-end",
    };
    let status = row.span.end.and_then(|end| end.status);
    let mut own = Room::default(); // for the row that was asked for
    html! {
        details id={ "s" (at) } class=(class) open[is_open] {
            summary {
                span class={ "what d" (row.depth.min(MAX_INDENT)) } {
                    strong { (told(&told_by.service_name)) } " "
                    span.line { (told(&told_by.line())) }
                    @if let Some((number, of)) = row.attempt { " " span.badge.accent { "try " (number) " of " (of) } }
                }
                (bar(row, drawn.whole_ns))
                span.status {
                    @if row.outcome == Outcome::Open { span.badge.warn { "no end" } } @else { (badge(status, row.outcome == Outcome::Failed)) }
                }
                span.num { (row.took_ns.map_or_else(|| "–".to_owned(), duration)) }
            }
            div.inside {
                @if !told_by.request.method.is_empty() && told_by.event.starts_with("service.") {
                    p { a href={ "/traces/" (segment(id)) "/replay?row=" (at) } { "Send to a node of " (told(&told_by.service_name)) " again" } }
                }
                (inside(id, row, &row_link(id, at), if is_open { &mut own } else { room }))
            }
        }
    }
}

/// Where it ran. What has no end goes on to the right.
fn bar(row: &Row<'_>, whole_ns: u64) -> Markup {
    let part = |ns: u64| ns as f64 / whole_ns as f64 * 1_000.0;
    let x = part(row.offset_ns).min(996.0);
    let width = part(row.took_ns.unwrap_or(whole_ns.saturating_sub(row.offset_ns))).clamp(4.0, 1_000.0 - x);
    html! {
        svg.run viewBox="0 0 1000 10" preserveAspectRatio="none" aria-hidden="true" {
            @for quarter in 1..4 { path.quarter d={ "M" (quarter * 250) " 0V10" } {} }
            rect x=(format!("{x:.1}")) y="1" width=(format!("{width:.1}")) height="8" {}
        }
    }
}

fn tools(id: &str) -> Markup {
    html! {
        section.card {
            header { h2 { "Compare" } }
            div.body {
                form.filters method="get" action="/traces/compare" {
                    input type="hidden" name="a" value=(id);
                    div { label for="other" { "With request or trace" } input id="other" name="b" required autocomplete="off" placeholder="X-Request-Id"; }
                    button type="submit" { "Compare" }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::tests::event;
    use super::*;

    #[test]
    fn ten_thousand_spans_are_pages_and_each_error_has_its_link() {
        let events: Vec<Shown> = (0..10_000)
            .map(|at| {
                let status = if at == 9_999 { 503 } else { 200 };
                event("service.end", "user", &format!("s{at}"), "", 1_000 + at, Some((status, 1)))
            })
            .collect();
        let drawn = Waterfall::of(&events);
        let whole = |part: &Part| waterfall("id", &drawn, part).into_string();
        let first = whole(&Part::default());
        assert_eq!(first.matches("<details").count(), ROWS);
        assert!(first.len() < 200_000, "{}", first.len());
        assert_eq!(row_link("id", drawn.failed[0]), "/traces/id?from=9900&open=9999#s9999");
        let last = whole(&Part { from: 9_900, open: Some(9_999) });
        assert!(last.contains("id=\"s9999\" class=\"span failed\" open"), "{}", &last[last.len() - 3_000..]);
        assert!(whole(&Part { from: usize::MAX, open: None }).contains("id=\"s9999\""));
    }
}
