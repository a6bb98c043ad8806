//! A request that a visitor writes, sent through the gateway or to a node of any service; the answer, and the way to its
//! trace. A method of RPC is called through the route that names it, with JSON.

use std::fmt::Write as _;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{Section, cut, encoded, page, told};
use super::send::{Answer, GATEWAY, Sent, send, targets};
use super::traces::body::pretty;
use super::{Dashboard, Visitor};
use crate::figures::{bytes, duration};

/// Of the form: a body of a megabyte, and what its encoding adds.
const FORM_BYTES: usize = 2 << 20;
/// Of an answer's body on the page.
const SHOWN_BYTES: usize = 64_000;
/// Nodes to choose from.
const MOST_NODES: usize = 200;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// What the form brings.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Filled {
    /// `service address`.
    to: String,
    method: String,
    target: String,
    /// `Name: value`, a line each.
    headers: String,
    body: String,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/playground")
            .app_data(web::FormConfig::default().limit(FORM_BYTES))
            .route(web::get().to(show))
            .route(web::post().to(run)),
    );
}

async fn show(dashboard: web::Data<Dashboard>, visitor: Visitor, filled: web::Query<Filled>) -> HttpResponse {
    page(&visitor, Section::Playground, "Playground", &shown(&dashboard, &visitor, &filled, None))
}

async fn run(dashboard: web::Data<Dashboard>, visitor: Visitor, filled: web::Form<Filled>) -> HttpResponse {
    let outcome = match sent(&filled) {
        Ok(sent) => {
            let (service, address) = filled.to.split_once(' ').unwrap_or_default();
            send(&dashboard, service, address, &sent).await
        }
        Err(fault) => Err(fault),
    };
    let status = if outcome.is_ok() { StatusCode::OK } else { StatusCode::UNPROCESSABLE_ENTITY };
    let mut response =
        page(&visitor, Section::Playground, "Playground", &shown(&dashboard, &visitor, &filled, Some(&outcome)));
    response.head_mut().status = status;
    response
}

fn sent(filled: &Filled) -> Result<Sent, String> {
    let mut headers = Vec::new();
    for line in filled.headers.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is no header field; write `name: value`"))?;
        headers.push((name.trim().to_owned(), value.trim().to_owned()));
    }
    let (method, target) = (filled.method.clone(), spelt(filled.target.trim()));
    Ok(Sent { method, target, headers, body: filled.body.replace("\r\n", "\n") })
}

/// A path and query as people write them, with what no address may hold as `%3C` (RFC 3986, section 2.1). The rest stays, `..` too.
fn spelt(target: &str) -> String {
    let mut spelt = String::with_capacity(target.len());
    for byte in target.bytes() {
        if byte.is_ascii_graphic() && !b"<>\"{}|\\^`#".contains(&byte) {
            spelt.push(char::from(byte));
        } else {
            // writing into a String cannot fail
            write!(spelt, "%{byte:02X}").unwrap_or_default();
        }
    }
    spelt
}

fn shown(
    dashboard: &Dashboard,
    visitor: &Visitor,
    filled: &Filled,
    outcome: Option<&Result<Answer, String>>,
) -> Markup {
    let nodes = nodes(dashboard);
    html! {
        div.head { h1 { "Playground" } span.soft { "send a request, see its answer and its trace" } }
        @if visitor.is_read_only { p.notice.warn { "This login only reads; one with the full token can send." } }
        section.card aria-label="Request" { div.body { (form(visitor, filled, &nodes)) } }
        @match outcome {
            None => {},
            Some(Err(fault)) => p.notice.bad id="fault" role="alert" { (told(fault)) },
            Some(Ok(answer)) => (answered(answer)),
        }
    }
}

/// Service and address of each node, the gateways first.
fn nodes(dashboard: &Dashboard) -> Vec<(String, String)> {
    let catalog = dashboard.inner.catalog.borrow().clone();
    let mut services: Vec<String> =
        catalog.iter().flat_map(|catalog| catalog.services().map(|(name, _)| name.to_owned())).collect();
    services.sort_by_key(|name| name != GATEWAY);
    let of = |service: String| {
        targets(dashboard, &service)
            .into_iter()
            .map(move |target| (service.clone(), target.address))
            .collect::<Vec<_>>()
    };
    services.into_iter().flat_map(of).take(MOST_NODES).collect()
}

fn form(visitor: &Visitor, filled: &Filled, nodes: &[(String, String)]) -> Markup {
    html! {
        form.playground method="post" action="/playground" {
            (visitor.csrf_field())
            div.filters {
                div { label for="to" { "To" } select id="to" name="to" {
                    @for (service, address) in nodes {
                        @let value = format!("{service} {address}");
                        option value=(value) selected[value == filled.to] { (cut(service, 60)) " " (address) }
                    }
                } }
                div { label for="method" { "Method" } select id="method" name="method" {
                    @for method in METHODS { option selected[method == filled.method] { (method) } }
                } }
                div.grow { label for="target" { "Path and query" }
                    input id="target" name="target" value=(filled.target) placeholder="/api/user/login?a=1" required spellcheck="false" autocomplete="off"; }
            }
            div.columns {
                div { label for="headers" { "Headers, one a line" }
                    textarea id="headers" name="headers" rows="6" placeholder="content-type: application/json" spellcheck="false" { (filled.headers) } }
                div { label for="body" { "Body" }
                    textarea id="body" name="body" rows="6" placeholder="{\"username\": \"test\"}" spellcheck="false" { (filled.body) } }
            }
            @if nodes.is_empty() { p.soft { "No node is there to send to; start one: " code { "goms gateway" } } }
            div.filters {
                button.primary disabled[visitor.is_read_only || nodes.is_empty()] { "Send" }
                span.soft { "What goes to a gateway is a client's request like any other; to another service it goes past the gateway, with the call key." }
            }
        }
    }
}

fn answered(answer: &Answer) -> Markup {
    let class = match answer.status {
        500.. => "badge bad",
        400.. => "badge warn",
        _ => "badge good",
    };
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    html! {
        section.card aria-label="Answer" id="answer" {
            header {
                h2 { "Answer" }
                span class=(class) { (answer.status) }
                span.soft { (duration(nanos(answer.took))) }
                @if let Some(id) = answer.header("x-request-id") {
                    a.end.button href={ "/traces/" (encoded(id)) } { "Its trace" }
                }
            }
            dl.pairs.body { @for (name, value) in answer.headers.iter().take(60) { dt { (told(name)) } dd.mono { (told(value)) } } }
            @match &answer.body {
                Err(why) => p.body.soft { "Its body is not shown: " (told(why)) },
                Ok(body) if body.is_empty() => p.body.soft { "It has no body." },
                Ok(body) => (content(body, is_json)),
            }
        }
    }
}

fn content(body: &[u8], is_json: bool) -> Markup {
    let text = String::from_utf8_lossy(body);
    let (text, is_cut) = match is_json {
        true => pretty(&text, SHOWN_BYTES),
        false => (cut(&text, SHOWN_BYTES).to_owned(), text.chars().nth(SHOWN_BYTES).is_some()),
    };
    html! {
        div.body {
            pre tabindex="0" aria-label="Body" { (text) }
            @if is_cut { p.soft { "cut; it has " (bytes(body.len() as u64)) } }
        }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_only_text() {
        let answer = Answer {
            status: 200,
            headers: vec![("x-request-id".into(), "a/b".into()), ("x-<b>".into(), "<script>".into())],
            body: Ok(b"<script>alert(1)</script>".to_vec()),
            took: Duration::from_millis(2),
        };
        let shown = answered(&answer).into_string();
        assert!(!shown.contains("<script>") && shown.contains("/traces/a%2Fb") && shown.contains("2.00ms"), "{shown}");
    }

    #[test]
    fn an_address_is_spelt_as_it_must_be() {
        assert_eq!(spelt("/a/../b?q=<é> %20&x={1}"), "/a/../b?q=%3C%C3%A9%3E%20%20&x=%7B1%7D");
    }

    #[test]
    fn a_line_that_is_no_header_is_told() {
        let filled = |headers: &str| Filled { headers: headers.into(), ..Filled::default() };
        assert_eq!(sent(&filled(" a: b:c \n\n")).expect("good").headers, [("a".to_owned(), "b:c".to_owned())]);
        assert!(sent(&filled("nonsense")).expect_err("bad").contains("`nonsense` is no header field"));
    }
}
