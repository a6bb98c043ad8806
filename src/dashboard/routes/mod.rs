//! The routes that a gateway of this process has in force: which, from where, with which policies and what they count;
//! and a form that says which of them takes a request, as `goms explain` does.

mod explain;

use actix_web::{HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::page::{Section, encoded, page, told};
use super::{Dashboard, Gateway, Visitor};
use crate::figures::{grouped, share};
use crate::gateway::{Condition, Outcome, Protocol, Rule, Settings, Taken};
use crate::metrics::Reading;

/// Routes of one page.
const PAGE: usize = 100;

/// The service under which gateways register.
const GATEWAY: &str = "gateway";

/// What stands after `?`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    /// A part of a route's name, path or service.
    q: String,
    /// From 1 on.
    page: usize,
    /// What `explain` is asked.
    method: String,
    url: String,
    headers: String,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/routes", web::get().to(table));
}

async fn table(dashboard: web::Data<Dashboard>, visitor: Visitor, asked: web::Query<Asked>) -> HttpResponse {
    let main = match dashboard.inner.gateway.get() {
        Some(gateway) => shown(gateway, &dashboard.settings(), &asked, &dashboard.inner.admin.metrics().read()),
        None => elsewhere(&dashboard),
    };
    page(&visitor, Section::Routes, "Routes", &main)
}

fn shown(gateway: &Gateway, settings: &Settings, asked: &Asked, reading: &Reading) -> Markup {
    let all: Vec<Line> = settings.rules().into_iter().map(|rule| Line::new(rule, settings)).collect();
    let found: Vec<&Line> = all.iter().filter(|line| line.has(asked.q.trim())).collect();
    let pages = found.len().div_ceil(PAGE).max(1);
    let number = asked.page.clamp(1, pages);
    let address = |number: usize| format!("/routes?q={}&page={number}", encoded(&asked.q));
    html! {
        div.head {
            h1 { "Routes" }
            span.soft { (grouped(all.len() as u64)) " in force, of " code { (gateway.config) } }
        }
        (explain::part(settings, &asked.method, &asked.url, &asked.headers))
        section.card aria-label="Routes in force" {
            header {
                h2 { "In force" }
                span.soft { "in the order in which they are tried" }
                form.filters.end method="get" action="/routes" {
                    input type="search" name="q" value=(asked.q) placeholder="name, path or service" aria-label="Name, path or service";
                    button { "Filter" }
                }
            }
            @if found.is_empty() {
                div.empty {
                    @if all.is_empty() { h2 { "No routes" } p { "Write them into the config:" } code { "services: { user: { login: /login } }" } }
                    @else { p { "No route is like that." } p { a href="/routes" { "Show every route" } } }
                }
            } @else {
                div.scroll { table.routes {
                    thead { tr {
                        th scope="col" { "Route" } th scope="col" { "Takes" } th scope="col" { "Does" } th scope="col" { "Asks" }
                        th.num scope="col" { "Requests" } th.num scope="col" { "Failed" } th.num scope="col" { "Refused" }
                    } }
                    tbody { @for line in found.iter().skip((number - 1) * PAGE).take(PAGE) { (tr(line, reading)) } }
                } }
                @if pages > 1 {
                    nav.pager aria-label="Pages" {
                        @if number > 1 { a href=(address(number - 1)) rel="prev" { "← Previous" } }
                        span { "Page " (number) " of " (pages) ", " (grouped(found.len() as u64)) " routes" }
                        @if number < pages { a href=(address(number + 1)) rel="next" { "Next →" } }
                    }
                }
            }
        }
    }
}

/// A route as it is shown.
struct Line {
    name: String,
    /// Where in the config it stands.
    from: String,
    when: Condition,
    taken: Taken,
    /// Its labels in the metrics.
    labels: (String, String),
}

impl Line {
    fn new(rule: Rule, settings: &Settings) -> Self {
        let of_service = rule.name.split_once('/').filter(|(service, action)| {
            settings.services.get(*service).is_some_and(|known| known.actions.contains_key(*action))
        });
        let from = match of_service {
            Some((service, action)) => format!("services: {service}: {action}"),
            None if matches!(rule.then, Outcome::Micro(_)) => "--handler, or `micro`".to_owned(),
            None => "routes".to_owned(),
        };
        let target = match &rule.then {
            Outcome::Call(call) => Some(match (&call.rpc, &call.rewrite) {
                (Some(method), _) => method.clone(),
                (None, Some(rewrite)) => rewrite.as_str().to_owned(),
                (None, None) => "the path that was asked for".to_owned(),
            }),
            Outcome::Redirect(redirect) => Some(redirect.to.as_str().to_owned()),
            Outcome::Respond(_) | Outcome::Micro(_) => None,
        };
        let service = match &rule.then {
            Outcome::Call(call) => call.services.first().map(|share| share.service().to_owned()).unwrap_or_default(),
            _ => String::new(),
        };
        let own = rule.name.strip_prefix(&service).and_then(|name| name.strip_prefix('/'));
        let action = own.filter(|_| !service.is_empty()).unwrap_or(&rule.name).to_owned();
        let taken = Taken { protocol: Protocol::of(&rule.then), outcome: rule.then, target, terms: rule.terms };
        Self { name: rule.name, from, when: rule.when, taken, labels: (service, action) }
    }

    fn has(&self, sought: &str) -> bool {
        sought.is_empty()
            || [self.name.as_str(), self.when.path.as_str(), &self.labels.0].iter().any(|text| text.contains(sought))
    }

    fn count(&self, reading: &Reading, name: &str, more: &[(&str, &str)]) -> u64 {
        let mut labels = vec![("service", self.labels.0.as_str()), ("action", self.labels.1.as_str())];
        labels.extend(more);
        reading.matching(name, &labels).max(0.0) as u64
    }
}

fn tr(line: &Line, reading: &Reading) -> Markup {
    let requests = line.count(reading, "requests_total", &[]);
    let failed = line.count(reading, "requests_total", &[("status", "5xx")]);
    let limited = line.count(reading, "rate_limited_total", &[]);
    let denied = line.count(reading, "denied_total", &[]);
    let lines = line.taken.shown();
    let terms = line.taken.terms.shown();
    let does: Vec<&str> = lines.iter().take(2).map(|(_, how)| how.as_str()).collect();
    html! {
        tr {
            td {
                details {
                    summary { (told(&line.name)) }
                    dl.pairs {
                        dt { "stands in" } dd { code { (line.from) } }
                        @for (what, how) in &lines { dt { (what) } dd { (told(how)) } }
                    }
                }
            }
            td { (takes(&line.when)) }
            td { (told(&does.join(" "))) }
            td { @for (key, how) in &terms { span.badge title=(how) { (key) } " " } @if terms.is_empty() { span.soft { "–" } } }
            td.num { (grouped(requests)) }
            td.num.bad[failed > 0] { (share(failed, requests)) }
            td.num title={ (limited) " over a rate limit, " (denied) " of who may not" } { (grouped(limited + denied)) }
        }
    }
}

fn takes(when: &Condition) -> Markup {
    html! {
        @for method in &when.methods { span.badge.accent { (method) } " " }
        code { @if let Some(host) = &when.host { (host) } (when.path.as_str()) }
        @for (kind, fields) in [("header", &when.headers), ("query", &when.query)] {
            @for field in fields { " " span.badge { (kind) " " (field.name) @if let Some(value) = &field.value { "=" (told(value)) } } }
        }
    }
}

/// The page of a process without a gateway.
fn elsewhere(dashboard: &Dashboard) -> Markup {
    let catalog = dashboard.inner.catalog.borrow().clone();
    let gateways = catalog.iter().flat_map(|catalog| catalog.nodes(GATEWAY).to_vec()).collect::<Vec<_>>();
    html! {
        div.head { h1 { "Routes" } }
        section.card { div.empty {
            h2 { "This process runs no gateway" }
            @if gateways.is_empty() {
                p { "Start one:" } code { "goms gateway" }
            } @else {
                p { "The routes that a gateway has in force are shown by its own dashboard:" }
                @for admin in gateways.iter().filter_map(|node| node.meta.admin).take(20) { p { a href={ "http://" (admin) "/routes" } { (admin) } } }
                p { "or by " code { "goms cluster routes" } }
            }
        } }
    }
}
