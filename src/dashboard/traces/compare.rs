//! Two requests or traces side by side.

use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use url::form_urlencoded;

use super::align::{Line, Pair, align, lines};
use super::body::pretty;
use super::waterfall::{Outcome, Row, Waterfall};
use super::{badge, events_of, segment};
use crate::dashboard::page::{Section, page, told};
use crate::dashboard::{Dashboard, Visitor};
use crate::figures::duration;
use crate::reading::Shown;

/// Spans of the page.
const ROWS: usize = 200;
/// Of each body: what is compared, and the lines that are shown of all differences together.
const BODY_BYTES: usize = 32_000;
const MOST_LINES: usize = 400;
/// Lines that are the same, around those that differ.
const AROUND: usize = 2;
const LONGEST_LINE: usize = 300;

/// `GET /traces/compare?a=ID&b=ID`; two of `id` are as good.
pub async fn show(request: HttpRequest, dashboard: web::Data<Dashboard>, visitor: Visitor) -> HttpResponse {
    let ids = ids(request.query_string());
    let [a, b] = match &ids[..] {
        [a, b, ..] => [a, b],
        _ => {
            return page(
                &visitor,
                Section::Traces,
                "Compare two requests",
                &ask(ids.first().map_or("", String::as_str)),
            );
        }
    };
    let found = futures_util::future::try_join(events_of(&dashboard, a), events_of(&dashboard, b)).await;
    let (found_a, found_b) = match found {
        Ok(found) => found,
        Err(trouble) => return trouble.page(&visitor),
    };
    let shown = |events: Vec<(Shown, _)>| events.into_iter().map(|(shown, _)| shown).collect::<Vec<Shown>>();
    let is_cut = found_a.is_cut || found_b.is_cut;
    let _room = (found_a.room, found_b.room);
    let (events_a, events_b) = (shown(found_a.events), shown(found_b.events));
    let (drawn_a, drawn_b) = (Waterfall::of(&events_a), Waterfall::of(&events_b));
    let pairs = align(&drawn_a, &drawn_b);
    let main = html! {
        nav.crumbs aria-label="Where this is" { a href="/traces" { "Traces" } " / Compare" }
        h1 { "Two requests compared" }
        @if ids.len() > 2 { p.notice.warn { "More than two were ticked; these are the first two." } }
        @if is_cut { p.notice.warn { "One has more events than a page reads; its first are compared." } }
        (sides([(a, &drawn_a), (b, &drawn_b)]))
        (spans(&pairs, &drawn_a, &drawn_b))
        (bodies(&pairs, &drawn_a, &drawn_b))
    };
    page(&visitor, Section::Traces, "Compare two requests", &main)
}

/// The ids of a query string, in the order of `a`, `b`, `id`…
fn ids(query_string: &str) -> Vec<String> {
    let read = |name: &str| {
        form_urlencoded::parse(query_string.as_bytes())
            .filter(|(key, value)| key == name && !value.trim().is_empty())
            .map(|(_, value)| value.trim().to_owned())
            .collect::<Vec<_>>()
    };
    let first = |name: &str| read(name).into_iter().next();
    first("a").into_iter().chain(first("b")).chain(read("id")).collect()
}

fn ask(a: &str) -> Markup {
    html! {
        nav.crumbs aria-label="Where this is" { a href="/traces" { "Traces" } " / Compare" }
        h1 { "Compare two requests" }
        section.card { div.body {
            p.soft { "Two ids of requests (X-Request-Id) or traces; or tick two in the " a href="/traces" { "list" } "." }
            form.filters method="get" action="/traces/compare" {
                div { label for="a" { "First" } input id="a" name="a" value=(a) required autocomplete="off"; }
                div { label for="b" { "Second" } input id="b" name="b" required autocomplete="off"; }
                button.primary type="submit" { "Compare" }
            }
        } }
    }
}

fn sides(sides: [(&String, &Waterfall<'_>); 2]) -> Markup {
    html! {
        div.columns.sides {
            @for (name, (id, drawn)) in ["A", "B"].into_iter().zip(sides) {
                section.card aria-label=(name) {
                    header { span.badge.accent { (name) } a href={ "/traces/" (segment(id)) } { (told(id)) } }
                    div.body {
                        @if let Some(root) = drawn.root() { @if let Some(told_by) = root.span.told() {
                            p { strong { (told(&told_by.line())) } " " (status(root)) }
                            p.soft { (duration(drawn.whole_ns)) " · " (drawn.rows.len()) " spans · " (drawn.failed.len()) " failed · " (told(&told_by.time)) }
                        } }
                    }
                }
            }
        }
    }
}

fn status(row: &Row<'_>) -> Markup {
    if row.outcome == Outcome::Open {
        return html! { span.badge.warn { "no end" } };
    }
    badge(row.span.end.and_then(|end| end.status), row.outcome == Outcome::Failed)
}

fn spans(pairs: &[Pair], a: &Waterfall<'_>, b: &Waterfall<'_>) -> Markup {
    html! {
        section.card {
            header { h2 { "Spans" } span.soft { "by service and action" } }
            div.scroll {
                table.compared {
                    thead { tr { th { "Span" } th { "A" } th.num { "Took" } th { "B" } th.num { "Took" } th.num { "Difference" } } }
                    tbody { @for pair in pairs.iter().take(ROWS) { (compared(*pair, a, b)) } }
                }
            }
            @if pairs.len() > ROWS { p.pager { (pairs.len() - ROWS) " more spans are not shown" } }
        }
    }
}

fn compared(pair: Pair, a: &Waterfall<'_>, b: &Waterfall<'_>) -> Markup {
    let (a, b) = (pair.a.map(|at| &a.rows[at]), pair.b.map(|at| &b.rows[at]));
    let Some(row) = a.or(b) else { return html! {} };
    let Some(told_by) = row.span.told() else { return html! {} };
    let class = match (a, b) {
        (Some(_), None) => "only-a",
        (None, Some(_)) => "only-b",
        _ => "",
    };
    html! {
        tr class=(class) {
            td { span class={ "d" (row.depth.min(12)) } { strong { (told(&told_by.service_name)) } " " (told(&told_by.line())) } }
            @for side in [a, b] {
                td { @match side { Some(row) => (status(row)), None => span.soft { "not there" } } }
                td.num { @if let Some(ns) = side.and_then(|row| row.took_ns) { (duration(ns)) } @else { "–" } }
            }
            td.num { (difference(a.and_then(|row| row.took_ns), b.and_then(|row| row.took_ns))) }
        }
    }
}

/// How much longer the second took: `+12.0ms (+50%)`.
fn difference(a: Option<u64>, b: Option<u64>) -> Markup {
    let (Some(a), Some(b)) = (a, b) else { return html! { span.soft { "–" } } };
    let (sign, class) = match b.cmp(&a) {
        std::cmp::Ordering::Greater => ("+", "bad"),
        std::cmp::Ordering::Less => ("−", "good"),
        std::cmp::Ordering::Equal => return html! { span.soft { "same" } },
    };
    let delta = a.abs_diff(b);
    // a tenth is noise, and below a millisecond everything is
    let class = if delta.saturating_mul(10) < a || delta < 1_000_000 { "soft" } else { class };
    html! {
        span class=(class) {
            (sign) (duration(delta))
            @if a > 0 { " (" (sign) (format!("{:.0}%", delta as f64 / a as f64 * 100.0)) ")" }
        }
    }
}

/// The bodies that differ, by lines.
fn bodies(pairs: &[Pair], a: &Waterfall<'_>, b: &Waterfall<'_>) -> Markup {
    let mut left = MOST_LINES;
    let mut parts: Vec<Markup> = Vec::new();
    for pair in pairs {
        let (Some(at_a), Some(at_b)) = (pair.a, pair.b) else { continue };
        let (Some(told_a), Some(told_b)) = (a.rows[at_a].span.told(), b.rows[at_b].span.told()) else { continue };
        let (text_a, text_b) = (laid_out(told_a), laid_out(told_b));
        if text_a == text_b || left == 0 {
            continue;
        }
        parts.push(html! {
            h3 { (told(&told_a.service_name)) " " (told(&told_a.line())) }
            (diff(&text_a, &text_b, &mut left))
        });
    }
    html! {
        section.card {
            header { h2 { "Headers and bodies" } span.soft { "− only in A, + only in B" } }
            div.body {
                @if parts.is_empty() { p.soft { "Those of the spans that both have are the same." } }
                @for part in parts { (part) }
                @if left == 0 { p.soft { "More differs than a page shows." } }
            }
        }
    }
}

/// Headers and body as lines. Headers that differ in each request tell nothing.
fn laid_out(told_by: &Shown) -> String {
    const EVER_NEW: [&str; 4] = ["x-request-id", "traceparent", "tracestate", "x-forwarded-for"];
    let mut text = String::new();
    for (name, value) in &told_by.request.headers {
        if !EVER_NEW.contains(&name.to_ascii_lowercase().as_str()) {
            text.push_str(&format!("{name}: {value}\n"));
        }
    }
    if let Some(body) = told_by.request.body.as_deref().filter(|body| !matches!(body.get(), "{}" | "null")) {
        text.push('\n');
        text.push_str(&pretty(body.get(), BODY_BYTES).0);
    }
    text
}

fn diff(a: &str, b: &str, left: &mut usize) -> Markup {
    let found = lines(a, b);
    let differs: Vec<bool> = found.iter().map(|line| !matches!(line, Line::Both(_))).collect();
    let is_near = |at: usize| differs[at.saturating_sub(AROUND)..(at + AROUND + 1).min(differs.len())].contains(&true);
    let mut was_near = true;
    let mut rows: Vec<Markup> = Vec::new();
    for (at, line) in found.iter().enumerate() {
        if *left == 0 {
            break;
        }
        if !is_near(at) {
            if was_near {
                rows.push(html! { span.gap { "⋯\n" } });
            }
            was_near = false;
            continue;
        }
        was_near = true;
        *left -= 1;
        let short = |text: &str| text.chars().take(LONGEST_LINE).collect::<String>();
        rows.push(match line {
            Line::Both(text) => html! { span { "  " (short(text)) "\n" } },
            Line::OnlyA(text) => html! { del { "− " (short(text)) "\n" } },
            Line::OnlyB(text) => html! { ins { "+ " (short(text)) "\n" } },
        });
    }
    html! { pre.diff tabindex="0" { @for row in rows { (row) } } }
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::tests::event;
    use super::*;

    #[test]
    fn two_ids_are_read_in_either_way() {
        assert_eq!(ids("a=1&b=2"), ["1", "2"]);
        assert_eq!(ids("id=1&id=2&id=3"), ["1", "2", "3"]);
        assert_eq!(ids("b=2&a=+&id=7"), ["2", "7"]);
    }

    #[test]
    fn only_what_differs_is_shown_and_escaped() {
        let a = (0..100).map(|number| format!("line {number}\n")).collect::<String>();
        let b = a.replace("line 50\n", "<script>\n");
        let mut left = MOST_LINES;
        let page = diff(&a, &b, &mut left).into_string();
        assert!(page.contains("<del>− line 50\n</del><ins>+ &lt;script&gt;\n</ins>"), "{page}");
        assert_eq!((page.matches("<span>").count(), page.matches("gap").count()), (4, 2));
        let mut left = 3;
        assert_eq!(diff(&a, &b, &mut left).into_string().matches("line").count(), 3);
        assert_eq!(left, 0);
    }

    #[test]
    fn a_difference_says_which_way() {
        let text = |a, b| difference(Some(a), Some(b)).into_string();
        assert_eq!(text(20_000_000, 30_000_000), "<span class=\"bad\">+10.00ms (+50%)</span>");
        assert_eq!(text(30_000_000, 20_000_000), "<span class=\"good\">−10.00ms (−33%)</span>");
        assert!(text(100_000_000, 101_000_000).contains("soft"));
    }

    #[test]
    fn a_span_of_one_side_is_marked() {
        let a = [event("request.end", "gateway", "g", "", 1_100, Some((200, 100)))];
        let b = [a[0].clone(), event("service.end", "mail", "m", "g", 1_050, Some((500, 10)))];
        let (a, b) = (Waterfall::of(&a), Waterfall::of(&b));
        let page = spans(&align(&a, &b), &a, &b).into_string();
        assert!(
            page.contains("<tr class=\"only-b\">") && page.contains("not there") && page.contains("same"),
            "{page}"
        );
    }
}
