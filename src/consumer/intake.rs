//! Events and searches over HTTP, for nodes without a broker and for processes that read another one's store.
//!
//! ```text
//! POST /goms/events          [{event},…] or {event}   200 {"status":true,"stored":n,"refused":n} once stored
//!                                                     400 no event · 413 over 16 MiB · 503 the store is away
//! POST /goms/traces/search   {query}                  200 {page} · 400 · 503
//! POST /goms/traces/stats    {stats query}            200 {stats} · 400 · 503
//! ```
//! All want `Call-Service-Key` where keys are configured; 403 otherwise. Failures are
//! `{"status":false,"code":…,"msg":…}`.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix_web::http::StatusCode;
use actix_web::web::{self, Bytes, BytesMut, Data, Payload, ServiceConfig};
use actix_web::{App, HttpRequest, HttpResponse, HttpServer};
use futures_util::StreamExt;
use prometheus::IntCounter;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ConsumerError;
use super::pipeline::{Pipeline, Verdict, document};
use crate::call_key::CallKeys;
use crate::causes::chain;
use crate::shutdown::Shutdown;
use crate::store::{Query, SEARCH_PATH, STATS_PATH, StatsQuery, StoreError, TraceStore};
use crate::trace::CALL_KEY_HEADER;
use crate::trace::dead_letter::DeadLetters;
use crate::trace::event::parse;
use crate::trace::transport::EVENTS_PATH;

/// Of one request; senders of ours stay under 12 MiB.
pub(super) const MAX_BODY_BYTES: usize = 16 << 20;
/// Within a sender's deadline of 10 s, so that it hears a 503 and not nothing.
pub(super) const STORE_TIMEOUT: Duration = Duration::from_secs(8);
/// While the store is known to be away nobody waits long for it.
pub(super) const AWAY_TIMEOUT: Duration = Duration::from_secs(1);
/// Of the HTTP server when it ends, in seconds.
const STOP_SECONDS: u64 = 5;

/// What the handlers share.
#[derive(Clone)]
pub struct Intake {
    pub(super) pipeline: Pipeline,
    pub(super) store: Arc<dyn TraceStore>,
    pub(super) call_keys: CallKeys,
    pub(super) dead_letters: Arc<DeadLetters>,
    pub(super) refused: IntCounter,
}

impl Intake {
    /// Adds the routes to an app: `App::new().configure(intake.routes())`.
    pub fn routes(self) -> impl FnOnce(&mut ServiceConfig) {
        move |config| {
            config
                .app_data(Data::new(self))
                .route(EVENTS_PATH, web::post().to(take_events))
                .route(SEARCH_PATH, web::post().to(search))
                .route(STATS_PATH, web::post().to(stats));
        }
    }

    fn lets_in(&self, request: &HttpRequest) -> bool {
        knows_key(&self.call_keys, request)
    }
}

/// Whether the request brings one of the keys, where there are any.
pub(super) fn knows_key(call_keys: &CallKeys, request: &HttpRequest) -> bool {
    let brought = request.headers().get(CALL_KEY_HEADER).map_or(&b""[..], |value| value.as_bytes());
    call_keys.is_empty() || call_keys.knows(brought)
}

/// Serves an intake on a listener that is already bound, until the end is asked for.
pub(super) fn serve(intake: Intake, listener: TcpListener, shutdown: &Shutdown) -> Result<(), ConsumerError> {
    serve_routes(move |config| intake.clone().routes()(config), listener, shutdown)
}

/// Serves any routes so.
pub(super) fn serve_routes(
    routes: impl Fn(&mut ServiceConfig) + Clone + Send + 'static,
    listener: TcpListener,
    shutdown: &Shutdown,
) -> Result<(), ConsumerError> {
    let server = HttpServer::new(move || App::new().configure(routes.clone()))
        .workers(1)
        .disable_signals()
        .shutdown_timeout(STOP_SECONDS)
        .listen(listener)
        .map_err(ConsumerError::Listen)?
        .run();
    let handle = server.handle();
    shutdown.spawn(async move {
        if let Err(error) = server.await {
            log::error!("the trace consumer's HTTP server failed: {error}");
        }
    });
    let ending = shutdown.clone();
    shutdown.spawn(async move {
        ending.begun().await;
        handle.stop(true).await;
    });
    Ok(())
}

/// The body of a request that is let in. Of any other nothing is kept: it is read away, so that its sender hears why.
async fn body_of(request: &HttpRequest, mut payload: Payload, intake: &Intake) -> Result<Bytes, HttpResponse> {
    let lets_in = intake.lets_in(request);
    let (mut body, mut bytes) = (BytesMut::new(), 0);
    while let Some(chunk) = payload.next().await {
        let chunk =
            chunk.map_err(|error| failure(StatusCode::BAD_REQUEST, &format!("cannot read the body: {error}")))?;
        bytes += chunk.len();
        if bytes > MAX_BODY_BYTES {
            break;
        }
        if lets_in {
            body.extend_from_slice(&chunk);
        }
    }
    match (lets_in, bytes) {
        (false, _) => Err(forbidden()),
        (true, 0..=MAX_BODY_BYTES) => Ok(body.freeze()),
        (true, _) => Err(failure(
            StatusCode::PAYLOAD_TOO_LARGE,
            &format!("the body is over {MAX_BODY_BYTES} bytes; send less at once"),
        )),
    }
}

async fn take_events(request: HttpRequest, payload: Payload, intake: Data<Intake>) -> HttpResponse {
    let body = match body_of(&request, payload, &intake).await {
        Ok(body) => body,
        Err(answer) => return answer,
    };
    let received = match parse(&body) {
        Ok(received) => received,
        Err(error) => return failure(StatusCode::BAD_REQUEST, &chain(&error)),
    };
    let mut refused = received.refused.len();
    intake.refused.inc_by(refused as u64); // the pipeline counts those that the store refuses
    for (json, error) in received.refused {
        let reason = chain(&error);
        log::warn!("refused what is no trace event reason={reason}");
        if let Ok(json) = serde_json::value::RawValue::from_string(json) {
            intake.dead_letters.keep(&json, &reason);
        }
    }
    let documents: Vec<_> = received.events.into_iter().map(document).collect();
    let mut stored = documents.len();
    if stored > 0 {
        let Ok(reply) = intake.pipeline.try_submit(documents) else {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "the trace consumer is busy or ends; send again");
        };
        let wait = if intake.pipeline.store_is_away() { AWAY_TIMEOUT } else { STORE_TIMEOUT };
        // when the wait is over the reply is dropped, and with it what waits in the pipeline
        let Ok(Ok(verdicts)) = tokio::time::timeout(wait, reply).await else {
            return failure(StatusCode::SERVICE_UNAVAILABLE, "the trace store is away; send again");
        };
        for verdict in verdicts {
            if let Verdict::Refused(json, reason) = verdict {
                (refused, stored) = (refused + 1, stored - 1);
                intake.dead_letters.keep(&json, &reason);
            }
        }
    }
    HttpResponse::Ok()
        .content_type("application/json")
        .body(format!("{{\"status\":true,\"stored\":{stored},\"refused\":{refused}}}"))
}

async fn search(request: HttpRequest, payload: Payload, intake: Data<Intake>) -> HttpResponse {
    match question::<Query>(&request, payload, &intake).await {
        Ok(query) => answer(intake.store.query(&query).await),
        Err(answer) => answer,
    }
}

async fn stats(request: HttpRequest, payload: Payload, intake: Data<Intake>) -> HttpResponse {
    match question::<StatsQuery>(&request, payload, &intake).await {
        Ok(query) => answer(intake.store.stats(&query).await),
        Err(answer) => answer,
    }
}

async fn question<T: DeserializeOwned>(
    request: &HttpRequest,
    payload: Payload,
    intake: &Intake,
) -> Result<T, HttpResponse> {
    let body = body_of(request, payload, intake).await?;
    let read = serde_json::from_slice(&body);
    read.map_err(|error| failure(StatusCode::BAD_REQUEST, &format!("cannot read the query: {error}")))
}

fn answer(found: Result<impl Serialize, StoreError>) -> HttpResponse {
    match found {
        Ok(found) => match serde_json::to_vec(&found) {
            Ok(json) => HttpResponse::Ok().content_type("application/json").body(json),
            Err(error) => failure(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
        },
        Err(error @ StoreError::Query(_)) => failure(StatusCode::BAD_REQUEST, &error.to_string()),
        Err(error) => failure(StatusCode::SERVICE_UNAVAILABLE, &chain(&error)),
    }
}

fn forbidden() -> HttpResponse {
    failure(StatusCode::FORBIDDEN, "wrong or missing call key; set the same `callServiceKey` on every node")
}

fn failure(status: StatusCode, message: &str) -> HttpResponse {
    let message = serde_json::Value::from(message);
    HttpResponse::build(status)
        .content_type("application/json")
        .body(format!("{{\"status\":false,\"code\":{},\"msg\":{message}}}", status.as_u16()))
}
