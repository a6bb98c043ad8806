//! A traced request sent again: to a gateway, or a service's call to a chosen node of that service.
//!
//! The page shows what will be sent, and everything can be changed. What was redacted must be filled in, and anything but
//! GET and HEAD is sent only by who says that it may be: it may charge a card twice. The guard keeps out who only reads, and
//! forms of other sites.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::body::pretty;
use super::waterfall::{Row, Waterfall};
use super::{badge, events_of, segment};
use crate::dashboard::page::{Section, page, problem, told};
use crate::dashboard::send::{Answer, GATEWAY, Sent, Target, send, targets};
use crate::dashboard::{Dashboard, Visitor};
use crate::figures::{bytes, duration};
use crate::reading::Shown;
use crate::reading::export::{Again, again, is_redacted};

/// Of the form: a body of 16 KiB, and what its encoding adds.
pub const FORM_BYTES: usize = 1 << 20;
/// Of an answer's body on the page.
const SHOWN_BYTES: usize = 16_000;
const SHOWN_HEADERS: usize = 60;

/// Which span of the trace.
#[derive(Default, Deserialize)]
pub struct Which {
    /// Its row; without it the gateway's.
    row: Option<usize>,
}

/// What the form brings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Filled {
    row: usize,
    node: String,
    method: String,
    target: String,
    /// `Name: value`, a line each.
    headers: String,
    body: String,
    /// That it may be sent although it may change something.
    sure: Option<String>,
}

/// `GET /traces/{id}/replay`.
pub async fn show(
    id: web::Path<String>,
    which: Option<web::Query<Which>>,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
) -> HttpResponse {
    let row = which.and_then(|which| which.row);
    match read(&dashboard, &id, row).await {
        Ok((recorded, row)) => {
            let first = again(&recorded.told);
            let filled = Filled {
                row,
                node: recorded.address(),
                method: first.method.clone(),
                target: first.target.clone(),
                headers: first.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect(),
                body: first.body.clone(),
                sure: None,
            };
            form_page(&dashboard, &visitor, &id, &recorded, &first, &filled, None)
        }
        Err(refusal) => refusal(&visitor),
    }
}

/// `POST /traces/{id}/replay`.
pub async fn run(
    id: web::Path<String>,
    filled: web::Form<Filled>,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
) -> HttpResponse {
    let filled = filled.into_inner();
    let (recorded, _) = match read(&dashboard, &id, Some(filled.row)).await {
        Ok(read) => read,
        Err(refusal) => return refusal(&visitor),
    };
    let answer = match checked(&filled) {
        Ok(sent) => send(&dashboard, &recorded.told.service_name, &filled.node, &sent).await,
        Err(fault) => Err(fault),
    };
    match answer {
        Ok(answer) => page(&visitor, Section::Traces, "Sent again", &answered(&id, &recorded, &filled, &answer)),
        Err(fault) => {
            let mut response =
                form_page(&dashboard, &visitor, &id, &recorded, &again(&recorded.told), &filled, Some(&fault));
            response.head_mut().status = StatusCode::UNPROCESSABLE_ENTITY;
            response
        }
    }
}

/// A recorded request.
struct Recorded {
    told: Shown,
    status: Option<u16>,
    is_failed: bool,
    took_ns: Option<u64>,
}

impl Recorded {
    /// `ip:port` of the HTTP port of the node that told it.
    fn address(&self) -> String {
        self.told.node.rsplit('_').next().unwrap_or_default().to_owned()
    }
}

type Refusal = Box<dyn FnOnce(&Visitor) -> HttpResponse>;

async fn read(dashboard: &Dashboard, id: &str, row: Option<usize>) -> Result<(Recorded, usize), Refusal> {
    let found = match events_of(dashboard, id).await {
        Ok(found) => found,
        Err(trouble) => return Err(Box::new(move |visitor| trouble.page(visitor))),
    };
    let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
    let drawn = Waterfall::of(&events);
    let at = row.or_else(|| drawn.rows.iter().position(|row| row.span.is_request())).unwrap_or(0);
    let is_request = |row: &&Row<'_>| row.span.told().is_some_and(|told| !told.request.method.is_empty());
    match drawn.rows.get(at).filter(is_request).and_then(|row| Some((row, row.span.told()?.clone()))) {
        Some((row, told)) => {
            let status = row.span.end.and_then(|end| end.status);
            let is_failed = row.outcome == super::waterfall::Outcome::Failed;
            Ok((Recorded { told, status, is_failed, took_ns: row.took_ns }, at))
        }
        None => Err(Box::new(|visitor| {
            let advice = html! { "Only what a gateway or a service was asked over HTTP was recorded so that it can be sent again." };
            problem(StatusCode::NOT_FOUND, visitor, "This cannot be sent again", &advice)
        })),
    }
}

/// What is sent, if all is filled in.
fn checked(filled: &Filled) -> Result<Sent, String> {
    let mut headers = Vec::new();
    for line in filled.headers.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is no header; write `Name: value`"))?;
        if is_redacted(value) {
            return Err(format!("header `{name}` was redacted: write its value, or take the line away"));
        }
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    if is_redacted(&filled.target) {
        return Err("a part of the query was redacted: write it".to_owned());
    }
    if is_redacted(&filled.body) {
        return Err("a part of the body was redacted: write it".to_owned());
    }
    if needs_yes(&filled.method) && filled.sure.is_none() {
        return Err(format!("a {} may change something: say that it may be sent", filled.method));
    }
    let (method, target) = (filled.method.clone(), filled.target.clone());
    Ok(Sent { method, target, headers, body: filled.body.replace("\r\n", "\n") })
}

fn needs_yes(method: &str) -> bool {
    !matches!(method, "GET" | "HEAD")
}

fn crumbs(id: &str, last: &str) -> Markup {
    html! {
        nav.crumbs aria-label="Where this is" {
            a href="/traces" { "Traces" } " / " a.mono href={ "/traces/" (segment(id)) } { (told(id)) } " / " (last)
        }
    }
}

fn form_page(
    dashboard: &Dashboard,
    visitor: &Visitor,
    id: &str,
    recorded: &Recorded,
    first: &Again,
    filled: &Filled,
    fault: Option<&str>,
) -> HttpResponse {
    let service = &recorded.told.service_name;
    let nodes = targets(dashboard, service);
    let main = html! {
        (crumbs(id, "Send again"))
        h1 { "Send again" }
        @if let Some(fault) = fault { p.notice.bad role="alert" { (fault) } }
        @if visitor.is_read_only { p.notice.warn { "You may read only: somebody with a full login can send it." } }
        @if nodes.is_empty() { p.notice.warn { "No node of " (told(service)) " is there now." } }
        @for note in &first.notes { p.notice { (told(note)) } }
        section.card { div.body { (form(visitor, id, service, &nodes, filled)) } }
    };
    page(visitor, Section::Traces, "Send again", &main)
}

fn form(visitor: &Visitor, id: &str, service: &str, nodes: &[Target], filled: &Filled) -> Markup {
    html! {
        form.replay method="post" action={ "/traces/" (segment(id)) "/replay" } {
            (visitor.csrf_field())
            input type="hidden" name="row" value=(filled.row);
            div.filters {
                div {
                    label for="node" { "Node of " (told(service)) }
                    select id="node" name="node" {
                        @for node in nodes {
                            option value=(node.address) selected[node.address == filled.node] {
                                (node.address) @if !node.version.is_empty() { " · " (node.version) } @if node.is_draining { " · draining" }
                            }
                        }
                    }
                }
                div { label for="method" { "Method" } input id="method" name="method" value=(filled.method) size="8" required; }
                div.grow { label for="target" { "Path and query" } input id="target" name="target" value=(filled.target) required autocomplete="off"; }
            }
            div { label for="headers" { "Headers" } textarea id="headers" name="headers" rows="8" spellcheck="false" { (filled.headers) } }
            div { label for="body" { "Body" } textarea id="body" name="body" rows="10" spellcheck="false" { (filled.body) } }
            @if service != GATEWAY { p.soft { "It goes to the service itself, with this cluster's call key, past the gateway's limits." } }
            @if needs_yes(&filled.method) {
                p.pick { input type="checkbox" id="sure" name="sure" value="yes"; " "
                    label for="sure" { "Send it although it may change something" } }
            }
            button.primary type="submit" disabled[visitor.is_read_only || nodes.is_empty()] { "Send" }
        }
    }
}

fn answered(id: &str, recorded: &Recorded, filled: &Filled, answer: &Answer) -> Markup {
    let new_id = answer.header("x-request-id").unwrap_or_default();
    html! {
        (crumbs(id, "Sent again"))
        div.head {
            h1 { "Sent again" }
            div.end.downloads {
                @if !new_id.is_empty() {
                    a.button href={ "/traces/" (segment(new_id)) } { "Its trace" }
                    a.button href={ "/traces/compare?a=" (segment(id)) "&b=" (segment(new_id)) } { "Compare both" }
                }
            }
        }
        p.soft { (filled.method) " " (told(&filled.target)) " to " (told(&filled.node)) ". Its events take a second to arrive." }
        div.columns.sides {
            (side("Recorded", &badge(recorded.status, recorded.is_failed), recorded.took_ns))
            (side("Now", &badge(Some(answer.status), answer.status >= 500), u64::try_from(answer.took.as_nanos()).ok()))
        }
        section.card {
            header { h2 { "Answer" } span.soft { "answers are not recorded, so there is no older one beside it" } }
            div.body.inside {
                h3 { "Headers" }
                dl.pairs.mono {
                    @for (name, value) in answer.headers.iter().take(SHOWN_HEADERS) { dt { (told(name)) } dd { (told(value)) } }
                }
                h3 { "Body" }
                (answer_body(answer))
            }
        }
    }
}

fn side(name: &str, status: &Markup, took_ns: Option<u64>) -> Markup {
    html! {
        section.card aria-label=(name) {
            header { h2 { (name) } }
            div.body { p { (status) " " (took_ns.map_or_else(|| "no end".to_owned(), duration)) } }
        }
    }
}

fn answer_body(answer: &Answer) -> Markup {
    let body = match &answer.body {
        Ok(body) if body.is_empty() => return html! { p.soft { "empty" } },
        Ok(body) => body,
        Err(reason) => return html! { p.warn { "It could not be read: " (reason) } },
    };
    let text = String::from_utf8_lossy(body);
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    let (shown, is_cut) = if is_json {
        pretty(&text, SHOWN_BYTES)
    } else {
        let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= SHOWN_BYTES).last().unwrap_or(0);
        if text.len() <= SHOWN_BYTES { (text.to_string(), false) } else { (text[..end].to_owned(), true) }
    };
    html! {
        pre tabindex="0" { (shown) }
        @if is_cut { p.soft { "the first part of " (bytes(body.len() as u64)) } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn filled(headers: &str) -> Filled {
        Filled { method: "GET".into(), target: "/a".into(), headers: headers.into(), ..Filled::default() }
    }

    #[test]
    fn nothing_redacted_is_sent_and_nobody_changes_something_unasked() {
        let sent = checked(&filled("A: b:c\r\n\r\n X : y \n")).expect("all is filled in");
        assert_eq!(sent.headers, [("A".to_owned(), "b:c".to_owned()), ("X".to_owned(), "y".to_owned())]);
        let cases = [
            (filled("Authorization: [redacted]"), "header `Authorization`"),
            (filled("no colon"), "`Name: value`"),
            (Filled { target: "/a?token=%5Bredacted%5D".into(), ..filled("") }, "query"),
            (Filled { body: "{\"a\":\"[redacted]\"}".into(), ..filled("") }, "body"),
            (Filled { method: "DELETE".into(), ..filled("") }, "may change something"),
        ];
        for (filled, says) in cases {
            let fault = checked(&filled).expect_err(says);
            assert!(fault.contains(says), "{fault}");
        }
        let post = Filled { method: "POST".into(), sure: Some("yes".into()), ..filled("") };
        assert!(checked(&post).is_ok());
    }
}
