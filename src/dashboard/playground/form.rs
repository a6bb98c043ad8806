//! The forms of the playground: what to choose from, and the request.

use maud::{Markup, html};

use super::fields::Form;
use super::{Filled, METHODS, by_rpc};
use crate::dashboard::openapi;
use crate::dashboard::openapi::document::{Document, Operation};
use crate::dashboard::page::{cut, encoded, told};
use crate::dashboard::send::{GATEWAY, targets};
use crate::dashboard::{Dashboard, Visitor};

/// Nodes and operations to choose from.
const MOST_NODES: usize = 200;
const MOST_CHOICES: usize = 500;

/// The lists of services and of what they answer.
pub(super) fn choose(document: &Document, filled: &Filled) -> Markup {
    html! {
        form.filters method="get" action="/playground" data-submit="change" {
            div { label for="service" { "Service" } select id="service" name="service" {
                option value="" { "–" }
                @for service in openapi::services(document).into_iter().take(MOST_CHOICES) {
                    option value=(service) selected[service == filled.service] { (cut(service, 60)) }
                }
            } }
            @if !filled.service.is_empty() {
                div.grow { label for="op" { "Operation" } select id="op" name="op" {
                    option value="" { "–" }
                    @for one in document.of_service(&filled.service).take(MOST_CHOICES) {
                        @let name = one.name();
                        option value=(name) selected[name == filled.op] {
                            @if by_rpc(one).is_some() { "RPC " } @else { (one.method.to_uppercase()) " " } (cut(&one.path, 120))
                        }
                    }
                } }
            }
            button { "Choose" }
            @if !filled.op.is_empty() { a href={ "/openapi?op=" (encoded(&filled.op)) } { "About it" } }
        }
    }
}

/// Service and address of each node, the gateways first.
pub(super) fn nodes(dashboard: &Dashboard) -> Vec<(String, String)> {
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

/// The request itself.
pub(super) fn form(
    visitor: &Visitor,
    document: &Document,
    filled: &Filled,
    operation: Option<&Operation>,
    nodes: &[(String, String)],
) -> Markup {
    let method = operation.and_then(by_rpc);
    let schema = operation.and_then(|one| one.body_in(document)).map(|(_, schema)| schema);
    let fields = schema.and_then(|schema| Form::of(document, schema, &filled.body));
    let can_send = !visitor.is_read_only && (method.is_some() || !nodes.is_empty());
    html! {
        form.playground method="post" action="/playground" {
            // Enter presses the first button of a form
            button.visually-hidden tabindex="-1" disabled[!can_send] { "Send" }
            (visitor.csrf_field())
            input type="hidden" name="op" value=(filled.op);
            input type="hidden" name="service" value=(filled.service);
            @match method {
                Some(method) => p { "Calls " code { (told(method)) } " of " strong { (told(&filled.service)) } " by RPC, on a node that the gateway would choose, with the call key." },
                None => (line(filled, nodes)),
            }
            div.columns {
                div {
                    label for="headers" { @if method.is_some() { "Metadata, one a line" } @else { "Headers, one a line" } }
                    textarea id="headers" name="headers" rows="4" placeholder="content-type: application/json" spellcheck="false" { (filled.headers) }
                    @if let Some(fields) = &fields { (fields.markup()) }
                }
                div {
                    label for="body" { @if method.is_some() { "Message in JSON; several for a stream" } @else { "Body" } }
                    textarea id="body" name="body" rows=(rows(&filled.body)) placeholder="{\"username\": \"test\"}" spellcheck="false" { (filled.body) }
                    @if fields.is_some() {
                        textarea name="was" hidden aria-hidden="true" aria-label="As it was" { (filled.body) }
                        div.filters { button name="do" value="fields" { "Update" } span.soft { "the JSON from changed fields, or the fields from a changed JSON" } }
                    }
                }
            }
            @if nodes.is_empty() { p.soft { "No node is there to send to; start one: " code { "goms gateway" } } }
            div.filters {
                button.primary id="send" disabled[!can_send] { "Send" }
                @if method.is_none() { span.soft { "What goes to a gateway is a client's request like any other; to another service it goes past the gateway, with the call key." } }
            }
        }
    }
}

/// To whom, and what.
fn line(filled: &Filled, nodes: &[(String, String)]) -> Markup {
    html! {
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
    }
}

/// As many as a body has lines, within reason.
fn rows(body: &str) -> usize {
    body.lines().count().clamp(6, 24)
}
