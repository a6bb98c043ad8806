//! The pages that read the document.

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::Value;

use super::document::{ANY, Document, Operation, Source, content};
use super::schema::{Room, kind, shown};
use super::{current, services};
use crate::dashboard::page::{Section, cut, encoded, page, problem, told};
use crate::dashboard::traces::body::pretty;
use crate::dashboard::{Dashboard, Visitor};
use crate::figures::grouped;

/// Operations of one page.
const PAGE: usize = 100;
/// Letters of a description, and of an example.
const LONGEST_TEXT: usize = 4_000;
const LONGEST_EXAMPLE: usize = 20_000;

const SOURCES: [Source; 3] = [Source::Config, Source::Served, Source::Learnt];

/// What stands after `?`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Asked {
    /// Words that all stand in a path, a summary or a service's name.
    q: String,
    service: String,
    source: String,
    /// From 1 on.
    page: usize,
    /// One operation, by its name.
    op: String,
}

impl Asked {
    fn takes(&self, operation: &Operation) -> bool {
        let text = format!(
            "{} {} {} {}",
            operation.name(),
            operation.service,
            operation.text("summary"),
            operation.rpc.as_deref().unwrap_or_default()
        );
        let text = text.to_lowercase();
        let is_of = |source: &Source| source.word() == self.source;
        (self.service.is_empty() || operation.service == self.service)
            && (self.source.is_empty() || operation.sources.iter().any(is_of))
            && self.q.to_lowercase().split_whitespace().all(|word| text.contains(word))
    }

    fn link(&self, number: usize) -> String {
        let [q, service, source] = [&self.q, &self.service, &self.source].map(|text| encoded(text));
        format!("/openapi?q={q}&service={service}&source={source}&page={number}")
    }
}

/// `GET /openapi`.
pub async fn show(dashboard: web::Data<Dashboard>, visitor: Visitor, asked: web::Query<Asked>) -> HttpResponse {
    let document = current(&dashboard).await;
    if asked.op.is_empty() {
        return page(&visitor, Section::Api, "API", &list(&document, &asked));
    }
    match document.operation(&asked.op) {
        Some(operation) => page(&visitor, Section::Api, cut(&operation.name(), 60), &one(&document, operation)),
        None => {
            let advice =
                html! { "Nothing is known of " (told(&asked.op)) " now. " a href="/openapi" { "All operations" } };
            problem(StatusCode::NOT_FOUND, &visitor, "No such operation", &advice)
        }
    }
}

fn list(document: &Document, asked: &Asked) -> Markup {
    let all = document.operations().count();
    let found: Vec<&Operation> = document.operations().filter(|operation| asked.takes(operation)).collect();
    let pages = found.len().div_ceil(PAGE).max(1);
    let number = asked.page.clamp(1, pages);
    html! {
        div.head {
            h1 { "API" }
            span.soft { (grouped(all as u64)) " operations of all services" }
            div.end { a.button href="/openapi.json" download="openapi.json" { "OpenAPI JSON" } " " a.button href="/openapi.yaml" { "YAML" } }
        }
        (problems(document))
        section.card aria-label="Operations" {
            header { (search(document, asked)) }
            @if found.is_empty() {
                div.empty {
                    @if all == 0 { h2 { "Nothing is known yet" } p { "Routes of a gateway, documents and methods of services, and requests in traces are shown here." } }
                    @else { p { "No operation is like that." } p { a href="/openapi" { "Show every operation" } } }
                }
            } @else {
                div.scroll { table.operations {
                    thead { tr {
                        th scope="col" { "Operation" } th scope="col" { "Service" } th scope="col" { "Known from" } th scope="col" { "What it does" }
                    } }
                    tbody { @for operation in found.iter().skip((number - 1) * PAGE).take(PAGE) { (tr(operation)) } }
                } }
                @if pages > 1 {
                    nav.pager aria-label="Pages" {
                        @if number > 1 { a href=(asked.link(number - 1)) rel="prev" { "← Previous" } }
                        span { "Page " (number) " of " (pages) ", " (grouped(found.len() as u64)) " operations" }
                        @if number < pages { a href=(asked.link(number + 1)) rel="next" { "Next →" } }
                    }
                }
            }
        }
        p.soft {
            "Known from " strong { "config" } ": the gateway has a route. " strong { "served" } ": the service says so itself. "
            strong { "learnt" } ": requests in traces look so; nobody promises it."
        }
    }
}

/// What is not here, and why.
fn problems(document: &Document) -> Markup {
    let all = &document.problems;
    html! {
        @if !all.is_empty() {
            details.notice.warn open[all.len() <= 3] {
                summary { (grouped(all.len() as u64)) @if all.len() == 1 { " thing is not here" } @else { " things are not here" } }
                ul {
                    @for (service, why) in all.iter().take(50) { li { strong { (told(service)) } ": " (told(why)) } }
                    @if all.len() > 50 { li { "and more, which the document itself has" } }
                }
            }
        }
    }
}

fn search(document: &Document, asked: &Asked) -> Markup {
    html! {
        form.filters method="get" action="/openapi" {
            div.grow { input type="search" name="q" value=(asked.q) placeholder="path, method, or what it does" aria-label="Path, method, or what it does"; }
            select name="service" aria-label="Service" {
                option value="" { "every service" }
                @for service in services(document).into_iter().take(500) {
                    option value=(service) selected[service == asked.service] { (cut(service, 60)) }
                }
            }
            select name="source" aria-label="Known from" {
                option value="" { "every source" }
                @for source in SOURCES { option selected[source.word() == asked.source] { (source.word()) } }
            }
            button { "Search" }
        }
    }
}

fn tr(operation: &Operation) -> Markup {
    html! {
        tr {
            td { a.operation href={ "/openapi?op=" (encoded(&operation.name())) } { (method(operation)) " " span.mono { (told(&operation.path)) } } }
            td { (told(&operation.service)) }
            td { (sources(operation)) }
            td.soft { @if !operation.text("summary").is_empty() { (told(operation.text("summary"))) } }
        }
    }
}

fn method(operation: &Operation) -> Markup {
    let word = if operation.rpc.as_ref() == Some(&operation.path) {
        "RPC".to_owned()
    } else {
        operation.method.to_uppercase()
    };
    html! { span.badge.accent.method { (word) } }
}

fn sources(operation: &Operation) -> Markup {
    html! {
        @for source in &operation.sources {
            span class={ "badge" @if *source == Source::Learnt { " warn" } @else { " good" } } { (source.word()) } " "
        }
        @if !operation.is_routed { span.badge title="no route of a gateway leads there" { "no route" } }
    }
}

fn one(document: &Document, operation: &Operation) -> Markup {
    let learnt = operation.detail.get("x-goms-learnt");
    let of_learnt = |key: &str| learnt.and_then(|learnt| learnt[key].as_str()).unwrap_or_default();
    let asks = operation.detail.get("x-goms-asks").and_then(Value::as_object);
    html! {
        nav.crumbs aria-label="Where this is" { a href="/openapi" { "API" } " / " a href={ "/openapi?service=" (encoded(&operation.service)) } { (told(&operation.service)) } }
        div.head {
            (method(operation))
            h1.mono { (told(&operation.path)) }
            (sources(operation))
            div.end { a.button.primary href={ "/playground?op=" (encoded(&operation.name())) } { "Try it" } }
        }
        section.card aria-label="About" { div.body {
            @if !operation.text("summary").is_empty() { p { strong { (told(operation.text("summary"))) } } }
            @if !operation.text("description").is_empty() { p.said { bdi { (cut(operation.text("description"), LONGEST_TEXT)) } } }
            dl.pairs {
                dt { "Service" } dd { (told(&operation.service)) }
                @if operation.detail.get("deprecated").is_some() { dt { "Deprecated" } dd { "do not begin to use it" } }
                @if let Some(rpc) = &operation.rpc { dt { "Method by RPC" } dd.mono { (told(rpc)) } }
                @if operation.own_path != operation.path { dt { "Path at the service" } dd.mono { (told(&operation.own_path)) } }
                @if operation.method == ANY { dt { "Methods" } dd { "any" } }
                @if operation.text("x-goms-route").is_empty() {
                    @if operation.rpc.is_none() { dt { "Route" } dd { "none: no gateway of this process leads there" } }
                } @else {
                    dt { "Route" } dd { a href={ "/routes?q=" (encoded(operation.text("x-goms-route"))) } { (told(operation.text("x-goms-route"))) } }
                }
                @if !operation.text("x-goms-host").is_empty() { dt { "Host" } dd.mono { (told(operation.text("x-goms-host"))) } }
                @for (key, how) in asks.into_iter().flatten() { dt { (key) } dd { (told(how.as_str().unwrap_or_default())) } }
                @if let Some(learnt) = learnt {
                    dt { "In traces" }
                    dd { (learnt["count"]) " of the newest requests, from " (told(of_learnt("firstSeen"))) " to " (told(of_learnt("lastSeen"))) ". "
                        a href={ "/traces?service=" (encoded(&operation.service)) } { "Traces" } }
                }
            }
        } }
        (parameters(document, operation))
        (body(document, operation))
        (answers(document, operation))
    }
}

fn parameters(document: &Document, operation: &Operation) -> Markup {
    let all = operation.detail.get("parameters").and_then(Value::as_array);
    let all: Vec<&Value> = all.into_iter().flatten().take(PAGE).map(|one| document.resolve(one)).collect();
    let text = |one: &Value, key: &str| one.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
    html! {
        @if !all.is_empty() {
            section.card aria-label="Parameters" {
                header { h2 { "Parameters" } }
                div.scroll { table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "In" } th scope="col" { "Type" } th scope="col" { "" span.visually-hidden { "About" } } } }
                    tbody { @for one in all { tr {
                        td { code { (told(&text(one, "name"))) } @if one.get("required") == Some(&Value::Bool(true)) { " " span.badge.accent { "required" } } }
                        td { (told(&text(one, "in"))) }
                        td.kind { @if let Some(schema) = one.get("schema") { (kind(schema)) } }
                        td.soft { (told(&text(one, "description"))) }
                    } } }
                } }
            }
        }
    }
}

fn body(document: &Document, operation: &Operation) -> Markup {
    let Some((media, schema)) = operation.body_in(document) else { return html! {} };
    let body = operation.detail.get("requestBody").map(|body| document.resolve(body)).unwrap_or(schema);
    let example = serde_json::to_string(&super::schema::example(document, schema)).unwrap_or_default();
    html! {
        section.card aria-label="Body" {
            header { h2 { "Body" } span.soft { (told(media)) } span.kind { (kind(schema)) } }
            div.body.columns {
                div {
                    @if let Some(words) = body.get("description").and_then(Value::as_str) { p.soft { (told(words)) } }
                    (shown(document, schema, &mut Room::default()))
                }
                pre tabindex="0" aria-label="An example" { (pretty(&example, LONGEST_EXAMPLE).0) }
            }
        }
    }
}

fn answers(document: &Document, operation: &Operation) -> Markup {
    let all = operation.detail.get("responses").and_then(Value::as_object);
    let mut room = Room::default();
    html! {
        @if let Some(all) = all.filter(|all| !all.is_empty()) {
            section.card aria-label="Answers" {
                header { h2 { "Answers" } }
                div.body.answers {
                    @for (status, answer) in all.iter().take(30) {
                        @let answer = document.resolve(answer);
                        div {
                            h3 { (told(status)) " " @if let Some((media, schema)) = content(answer) { span.soft { (told(media)) " " (kind(schema)) } } }
                            @if let Some(words) = answer.get("description").and_then(Value::as_str).filter(|words| !words.is_empty()) { p.soft { (told(words)) } }
                            @if let Some((_, schema)) = content(answer) { (shown(document, schema, &mut room)) }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_services_say_is_only_text() {
        let mut document = Document::default();
        let mut hostile = Operation::new("<i>shop", "get", "/api/<script>", Source::Served);
        for key in ["summary", "description", "x-goms-route", "x-goms-host"] {
            hostile.detail.insert(key.into(), "<script>alert(1)</script>".into());
        }
        let answers = serde_json::json!({"200": {"description": "<img>", "content": {"<b>": {"schema": {"title": "<u>", "type": "<u>"}}}}});
        hostile.detail.insert("responses".into(), answers);
        hostile.detail.insert(
            "parameters".into(),
            serde_json::json!([{"name": "<u>", "in": "query", "schema": {"$ref": "<s>"}}]),
        );
        document.add(hostile.clone());
        document.problems.push(("<i>".into(), "<em>".into()));
        let text = list(&document, &Asked::default()).into_string() + &one(&document, &hostile).into_string();
        for tag in ["<script", "<i>", "<img", "<b>", "<u>", "<s>", "<em>"] {
            assert!(!text.contains(tag), "{tag}: {text}");
        }
    }

    #[test]
    fn a_search_looks_at_words_and_sources() {
        let operation = Operation::new("shop", "post", "/api/shop/Items", Source::Learnt);
        let asked = |q: &str, source: &str| Asked { q: q.into(), source: source.into(), ..Asked::default() };
        assert!(asked("ITEMS post", "").takes(&operation) && asked("", "learnt").takes(&operation));
        assert!(!asked("get", "").takes(&operation) && !asked("", "config").takes(&operation));
    }

    #[test]
    fn many_operations_are_paged_and_small() {
        let mut document = Document::default();
        for at in 0..2_000 {
            document.add(Operation::new("shop", "get", &format!("/api/shop/{at}/{}", "x".repeat(200)), Source::Served));
        }
        let text = list(&document, &Asked { page: 3, ..Asked::default() }).into_string();
        assert!(text.contains("Page 3 of 20") && text.len() < 150_000, "{}", text.len());
    }
}
