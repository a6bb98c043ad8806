//! The first page: how every service does.

use actix_web::http::header::ACCEPT;
use actix_web::{HttpRequest, HttpResponse, web};
use maud::html;

use super::page::{Section, page};
use super::{Dashboard, Visitor};
use crate::admin;

pub(super) fn routes(config: &mut web::ServiceConfig) {
    config.route("/", web::get().to(overview));
}

async fn overview(request: HttpRequest, dashboard: web::Data<Dashboard>, visitor: Visitor) -> HttpResponse {
    // curl and scripts get what the admin port has always said
    let accept = request.headers().get(ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/html") {
        return admin::index().await;
    }
    let catalog = dashboard.inner.catalog.borrow().clone();
    let services = catalog.as_deref().into_iter().flat_map(|catalog| catalog.services());
    let main = html! {
        h1 { "Overview" }
        ul { @for (service, nodes) in services { li { (service) " " (nodes.len()) } } }
    };
    page(&visitor, Section::Overview, "Overview", &main)
}
