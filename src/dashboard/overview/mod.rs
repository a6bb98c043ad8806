//! The first page: how every service does, which nodes are not well, what happened, and whether traces arrive.
//!
//! A `Look` is all that is shown, gathered once; each part of the page is a fragment made of it. The page itself and its
//! stream make the same fragments.

mod happened;
mod pipeline;
mod services;
mod summary;
mod unwell;

use std::collections::BTreeMap;

use actix_web::http::header::ACCEPT;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, PreEscaped, html};
use serde::Deserialize;

use super::cluster::{self, ServiceRow};
use super::feed::Entry;
use super::live::Fragment;
use super::page::{Section, page};
use super::range::Range;
use super::{Dashboard, Visitor, counted};
use crate::admin;
use crate::metrics::Reading;
use crate::store::{Query, Stats};

/// The service whose numbers are those of the whole: everything from outside goes through it.
const GATEWAY: &str = "gateway";

/// What stands after `?`.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Asked {
    #[serde(default)]
    range: Range,
}

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/", web::get().to(overview)).route("/live/overview", web::get().to(live));
}

async fn overview(
    request: HttpRequest,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
    asked: web::Query<Asked>,
) -> HttpResponse {
    // curl and scripts get what the admin port has always said
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/html") {
        return admin::index().await;
    }
    let range = asked.range;
    let parts: BTreeMap<&str, String> = fragments(&dashboard, range).await.into_iter().collect();
    let part = |id: &str| PreEscaped(parts.get(id).map(String::as_str).unwrap_or_default());
    let main = html! {
        div.head data-live={ "/live/overview?range=" (range.word()) } {
            h1 { "Overview" }
            div.end { (range.choice("/", "")) }
        }
        div id="summary" { (part("summary")) }
        section.card aria-label="Services" id="services" { (part("services")) }
        div.columns {
            section.card aria-label="Nodes" id="nodes" { (part("nodes")) }
            section.card aria-label="What happened" id="happened" { (part("happened")) }
            section.card aria-label="Trace pipeline" id="pipeline" { (part("pipeline")) }
        }
    };
    page(&visitor, Section::Overview, "Overview", &main)
}

async fn live(request: HttpRequest, dashboard: web::Data<Dashboard>, asked: web::Query<Asked>) -> HttpResponse {
    let range = asked.range;
    let of = dashboard.clone();
    dashboard.inner.live.answer(&request, format!("overview {}", range.word()), &dashboard.inner.shutdown, move || {
        Box::new(move || {
            let dashboard = of.clone();
            Box::pin(async move { fragments(&dashboard, range).await })
        })
    })
}

/// All that the page shows.
struct Look {
    now_ms: i64,
    range: Range,
    since_ms: i64,
    /// `None` while the registry is not known.
    services: Option<BTreeMap<String, ServiceRow>>,
    /// What the traces say, or why they say nothing.
    stats: Result<Stats, String>,
    feed: Vec<Entry>,
    reading: Reading,
    has_gateway: bool,
}

async fn fragments(dashboard: &Dashboard, range: Range) -> Vec<Fragment> {
    let look = look(dashboard, range).await;
    let parts: [(&'static str, Markup); 5] = [
        ("summary", summary::part(&look)),
        ("services", services::part(&look)),
        ("nodes", unwell::part(&look)),
        ("happened", happened::part(&look)),
        ("pipeline", pipeline::part(&look)),
    ];
    parts.into_iter().map(|(id, part)| (id, part.into_string())).collect()
}

async fn look(dashboard: &Dashboard, range: Range) -> Look {
    let now_ms = jiff::Timestamp::now().as_millisecond();
    Look {
        now_ms,
        range,
        since_ms: range.at(now_ms).0,
        services: cluster::services(dashboard),
        stats: counted(dashboard, range, now_ms, Query::default()).await,
        feed: dashboard.inner.feed.newest(happened::MOST),
        reading: dashboard.inner.admin.metrics().read(),
        has_gateway: dashboard.inner.gateway.get().is_some(),
    }
}
