//! A request or trace as a file for other tools, and one event as it is stored.

use actix_web::http::header::{CONTENT_DISPOSITION, ContentType};
use actix_web::{HttpResponse, web};

use super::{Trouble, events_of};
use crate::dashboard::{Dashboard, Visitor};
use crate::reading::Shown;
use crate::reading::export::{Format, whole};

/// `GET /traces/{id}/download/{format}`.
pub async fn file(
    path: web::Path<(String, String)>,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
) -> HttpResponse {
    let (id, word) = path.into_inner();
    let (format, ending, content_type) = match word.as_str() {
        "otlp" => (Some(Format::Otlp), "otlp.json", "application/json"),
        "har" => (Some(Format::Har), "har", "application/json"),
        "curl" => (Some(Format::Curl), "sh", "text/plain; charset=utf-8"),
        "json" => (None, "json", "application/json"),
        _ => return Trouble::Unknown(id).page(&visitor),
    };
    let found = match events_of(&dashboard, &id).await {
        Ok(found) => found,
        Err(trouble) => return trouble.page(&visitor),
    };
    // who gets a part of it sees that by its name
    let cut = if found.is_cut { format!("-first-{}-events", found.events.len()) } else { String::new() };
    let mut out = Vec::new();
    let written = match format {
        Some(format) => {
            let events: Vec<Shown> = found.events.into_iter().map(|(shown, _)| shown).collect();
            whole(events, format, &mut *format.writer(None), &mut out)
        }
        None => {
            let events: Vec<_> = found.events.into_iter().map(|(_, event)| event).collect();
            serde_json::to_writer_pretty(&mut out, &events).map_err(std::io::Error::from)
        }
    };
    if let Err(error) = written {
        return HttpResponse::InternalServerError().content_type(ContentType::plaintext()).body(format!("{error}\n"));
    }
    let name: String = id.chars().filter(|letter| letter.is_ascii_alphanumeric() || *letter == '-').take(64).collect();
    HttpResponse::Ok()
        .content_type(content_type)
        .insert_header((CONTENT_DISPOSITION, format!("attachment; filename=\"trace-{name}{cut}.{ending}\"")))
        .body(out)
}

/// `GET /traces/{id}/events/{event}`.
pub async fn event(
    path: web::Path<(String, String)>,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
) -> HttpResponse {
    let (id, event_id) = path.into_inner();
    let found = match events_of(&dashboard, &id).await {
        Ok(found) => found,
        Err(trouble) => return trouble.page(&visitor),
    };
    match found.events.into_iter().find(|(shown, _)| shown.event_id == event_id) {
        Some((_, event)) => HttpResponse::Ok().content_type(ContentType::json()).body(event.get().to_owned()),
        None => Trouble::Unknown(event_id).page(&visitor),
    }
}
