//! A request that a visitor writes, sent through the gateway or to a node of any service; or a call of a method by RPC. What
//! is known of an operation (`openapi`) fills it in, and gives its body a form; the answer leads to its trace.
//!
//! The body's JSON is what is sent. Where a visitor changed fields of the form and not the JSON, they are written into it first.

mod answer;
mod fields;
mod form;

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde_json::Value;

use self::answer::{answered, called};
use self::fields::Form;
use self::form::{choose, form, nodes};
use super::openapi::document::{ANY, Document, Operation};
use super::openapi::{self, schema};
use super::page::{Section, page, told};
use super::send::{Answer, GATEWAY, Sent, send, targets};
use super::traces::body::pretty;
use super::{Asked, Dashboard, Told, Visitor};

/// Of the form: a body of a megabyte, what its encoding adds, and the same body as it was.
const FORM_BYTES: usize = 2 << 20;
/// How long a call by RPC may take, and bytes of its answer.
const RPC_TIMEOUT: Duration = Duration::from_secs(30);
const RPC_BYTES: usize = 1 << 20;
/// Of an example.
const EXAMPLE_BYTES: usize = 60_000;

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// What the form brings.
#[derive(Clone, Debug, Default)]
struct Filled {
    /// The service whose operations are offered.
    service: String,
    /// An operation's name.
    op: String,
    /// `service address`.
    to: String,
    method: String,
    target: String,
    /// `Name: value`, a line each.
    headers: String,
    body: String,
    /// The body as it was when the fields were shown.
    was: String,
    /// Which button: empty (send), `fields`, `more:POINTER`, `less:POINTER`.
    button: String,
    /// Fields of the body, by pointer.
    fields: Vec<(String, String)>,
}

impl Filled {
    fn of(pairs: Vec<(String, String)>) -> Self {
        let mut filled = Self::default();
        for (name, value) in pairs {
            let place = match name.as_str() {
                "service" => &mut filled.service,
                "op" => &mut filled.op,
                "to" => &mut filled.to,
                "method" => &mut filled.method,
                "target" => &mut filled.target,
                "headers" => &mut filled.headers,
                "body" => &mut filled.body,
                "was" => &mut filled.was,
                "do" => &mut filled.button,
                _ => {
                    let pointer = name.strip_prefix(fields::PREFIX).map(str::to_owned);
                    filled.fields.extend(pointer.map(|pointer| (pointer, value)));
                    continue;
                }
            };
            *place = value.replace("\r\n", "\n");
        }
        filled
    }
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.service(
        web::resource("/playground")
            .app_data(web::FormConfig::default().limit(FORM_BYTES))
            .route(web::get().to(show))
            .route(web::post().to(run)),
    );
}

/// What became of what was sent.
enum Outcome {
    Http(Answer),
    Rpc(Told),
}

async fn show(
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
    asked: web::Query<Vec<(String, String)>>,
) -> HttpResponse {
    let mut filled = Filled::of(asked.into_inner());
    let document = openapi::current(&dashboard).await;
    if let Some(operation) = chosen(&document, &mut filled).filter(|_| filled.target.is_empty()) {
        fill(&dashboard, &document, operation, &mut filled);
    }
    page(&visitor, Section::Playground, "Playground", &shown(&dashboard, &document, &visitor, &filled, None))
}

async fn run(
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
    posted: web::Form<Vec<(String, String)>>,
) -> HttpResponse {
    let mut filled = Filled::of(posted.into_inner());
    let document = openapi::current(&dashboard).await;
    let operation = chosen(&document, &mut filled).cloned();
    let settled = settle(&document, operation.as_ref(), &mut filled);
    let outcome = match settled {
        Err(fault) => Some(Err(fault)),
        Ok(()) if !filled.button.is_empty() => None,
        Ok(()) => Some(match operation.as_ref().and_then(by_rpc) {
            Some(method) => call(&dashboard, method, &filled).await.map(Outcome::Rpc),
            None => request(&dashboard, &filled).await.map(Outcome::Http),
        }),
    };
    let status = if matches!(outcome, Some(Err(_))) { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::OK };
    let main = shown(&dashboard, &document, &visitor, &filled, outcome.as_ref());
    let mut response = page(&visitor, Section::Playground, "Playground", &main);
    response.head_mut().status = status;
    response
}

/// The operation that was chosen; of another service than the chosen one it is none.
fn chosen<'a>(document: &'a Document, filled: &mut Filled) -> Option<&'a Operation> {
    let operation = document.operation(&filled.op);
    if filled.service.is_empty() {
        filled.service = operation.map(|one| one.service.clone()).unwrap_or_default();
    }
    let found = operation.filter(|one| one.service == filled.service);
    if found.is_none() {
        filled.op.clear();
    }
    found
}

/// The service's own path of a method by RPC, where that is the operation, and not a path of HTTP that leads there.
fn by_rpc(operation: &Operation) -> Option<&str> {
    operation.rpc.as_deref().filter(|rpc| *rpc == operation.path)
}

/// What is known of an operation, as a request to begin with.
fn fill(dashboard: &Dashboard, document: &Document, operation: &Operation, filled: &mut Filled) {
    let is_http = by_rpc(operation).is_none();
    let body = operation.detail.get("requestBody").map(|body| document.resolve(body));
    let content = body.and_then(openapi::document::content);
    if let Some((_, schema)) = content {
        let example = schema::example(document, schema).to_string();
        (filled.body, _) = pretty(&example, EXAMPLE_BYTES);
    }
    if !is_http {
        return;
    }
    filled.headers = content.map(|(kind, _)| format!("content-type: {kind}\n")).unwrap_or_default();
    filled.method = match operation.method.as_str() {
        ANY => "POST".to_owned(),
        method => method.to_uppercase(),
    };
    let to = if operation.is_routed { GATEWAY } else { &operation.service };
    let path = if operation.is_routed { &operation.path } else { &operation.own_path };
    filled.target.clone_from(path);
    let first = targets(dashboard, to).into_iter().next();
    filled.to = first.map(|target| format!("{to} {}", target.address)).unwrap_or_default();
}

/// Writes changed fields into the body, and does what a button of the form says.
fn settle(document: &Document, operation: Option<&Operation>, filled: &mut Filled) -> Result<(), String> {
    let Some((_, schema)) = operation.and_then(|one| one.body_in(document)) else { return Ok(()) };
    if filled.body == filled.was
        && let Some(form) = Form::of(document, schema, &filled.was)
        && let Some(changed) = form.changed(&filled.fields)?
    {
        filled.body = written(&changed);
    }
    let resized = filled.button.split_once(':').filter(|(what, _)| matches!(*what, "more" | "less"));
    if let Some((what, pointer)) = resized {
        let mut value: Value = match filled.body.trim() {
            "" => serde_json::json!({}),
            body => crate::json::value(body.as_bytes()).map_err(|error| format!("the body is no JSON: {error}"))?,
        };
        fields::resize(document, schema, &mut value, pointer, what == "more");
        filled.body = written(&value);
    }
    Ok(())
}

fn written(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default()
}

async fn request(dashboard: &Dashboard, filled: &Filled) -> Result<Answer, String> {
    let sent = sent(filled)?;
    let (service, address) = filled.to.split_once(' ').unwrap_or_default();
    send(dashboard, service, address, &sent).await
}

async fn call(dashboard: &Dashboard, method: &str, filled: &Filled) -> Result<Told, String> {
    let gateway = dashboard.inner.gateway.get().ok_or("this process runs no gateway, which could call by RPC")?;
    let metadata = sent(filled)?.headers.into_iter().map(|(name, value)| (name.to_lowercase(), value)).collect();
    let asked = Asked {
        service: filled.service.clone(),
        method: method.to_owned(),
        metadata,
        messages: filled.body.clone(),
        timeout: RPC_TIMEOUT,
        most_bytes: RPC_BYTES,
    };
    (gateway.rpc.call)(asked).await
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
    document: &Arc<Document>,
    visitor: &Visitor,
    filled: &Filled,
    outcome: Option<&Result<Outcome, String>>,
) -> Markup {
    let nodes = nodes(dashboard);
    let operation = document.operation(&filled.op);
    html! {
        div.head { h1 { "Playground" } span.soft { "send a request, see its answer and its trace" } }
        @if visitor.is_read_only { p.notice.warn { "This login only reads; one with the full token can send." } }
        section.card aria-label="Operation" { div.body { (choose(document, filled)) } }
        section.card aria-label="Request" { div.body { (form(visitor, document, filled, operation, &nodes)) } }
        @match outcome {
            None => {},
            Some(Err(fault)) => p.notice.bad id="fault" role="alert" { (told(fault)) },
            Some(Ok(Outcome::Http(answer))) => (answered(answer)),
            Some(Ok(Outcome::Rpc(answer))) => (called(answer)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
