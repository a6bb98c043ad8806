//! Handler `event`: a request is published, and answered once the broker keeps it.

use actix_web::HttpResponse;
use actix_web::http::{Method, StatusCode};
use bytes::Bytes;
use url::form_urlencoded;
use uuid::Uuid;

use super::error::MicroError;
use super::message::{self, Event};
use super::{Asked, Micro, path};
use crate::broker::Message;
use crate::causes::chain;
use crate::gateway::answer::{Answer, Body};
use crate::trace::event::now_ms;
use crate::trace::header_form;

/// Publishes a request; the answer is an empty 200.
///
/// # Errors
/// 500 where nothing was published.
pub(super) async fn publish(asked: &Asked<'_>, micro: &Micro, body: &Bytes) -> Result<Answer, MicroError> {
    let failed = |detail: String| MicroError::new(StatusCode::INTERNAL_SERVER_ERROR, detail);
    let broker = asked.worker.broker.as_ref();
    let broker = broker.ok_or_else(|| failed("this gateway began without a broker; restart it".to_owned()))?;
    let (topic, name) = path::topic(asked.path).ok_or_else(|| failed("the path names no topic".to_owned()))?;
    let topic = micro.full(&topic);
    let id = format!("{topic}-{name}-{}", Uuid::new_v4());
    let mut event = Event { name, id, timestamp: now_ms() / 1000, ..Event::default() };
    for (field, value) in asked.passage.headers(asked.request.headers()) {
        if crate::upstream::headers::passes_down(field, std::iter::empty()) {
            message::add(&mut event.header, &header_form(field), String::from_utf8_lossy(value).into_owned());
        }
    }
    event.data = if asked.request.method() == Method::GET {
        let mut fields: std::collections::BTreeMap<String, Vec<String>> = std::collections::BTreeMap::new();
        for (field, value) in form_urlencoded::parse(asked.passage.query.as_bytes()) {
            fields.entry(field.into_owned()).or_default().push(value.into_owned());
        }
        serde_json::to_string(&fields).unwrap_or_default() // texts always become JSON
    } else {
        String::from_utf8_lossy(body).into_owned()
    };
    let body = serde_json::to_vec(&event).unwrap_or_default(); // texts and a number
    let mut message = Message::new(topic, body);
    // a subscriber in Go would read protobuf otherwise
    message.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    broker.publish(message).await.map_err(|error| failed(chain(&error)))?;
    Ok(Answer { head: HttpResponse::new(StatusCode::OK), body: Body::Whole(Bytes::new()) })
}
