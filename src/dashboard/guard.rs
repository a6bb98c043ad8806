//! What stands before every page: who the visitor is, whether they may, and what browsers are told of safety.
//!
//! Who changes something must send it from a page of this port: the request brings the visitor's `csrf` (a field of the
//! form, or the header `X-CSRF-Token` of a script), and where the browser says from which site it comes, it is this one. It
//! is checked here, before any page, so none can forget it.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use actix_web::body::{BoxBody, MessageBody};
use actix_web::dev::{Payload, ServiceRequest, ServiceResponse};
use actix_web::http::header::{
    ACCEPT, CACHE_CONTROL, CONTENT_TYPE, HOST, HeaderName, HeaderValue, LOCATION, ORIGIN, RETRY_AFTER, WWW_AUTHENTICATE,
};
use actix_web::http::{Method, StatusCode};
use actix_web::middleware::Next;
use actix_web::{Error, FromRequest, HttpMessage, HttpRequest, HttpResponse, web};
use subtle::ConstantTimeEq;

use super::Dashboard;
use super::login::{self, Known, Refusal, Stay};

/// No inline script or style, nothing from elsewhere, no frame: what a page shows of a request can do nothing.
/// <https://www.w3.org/TR/CSP3/>
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; \
                      form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// The path that anybody may post to.
const LOGIN: &str = "/login";

const SAFETY: [(&str, &str); 5] = [
    ("content-security-policy", POLICY),
    ("x-content-type-options", "nosniff"),
    ("x-frame-options", "DENY"),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
];

/// What a form may hold, the playground's body included, and how long it may take.
const MOST_POSTED: usize = 2 << 20;
const POST_TIMEOUT: Duration = Duration::from_secs(60);
/// The same of the login, which anybody may send: a name and a password.
const MOST_OF_LOGIN: usize = 16 << 10;
const LOGIN_TIMEOUT: Duration = Duration::from_secs(10);

/// Who reads a page.
#[derive(Clone, Debug, Default)]
pub struct Visitor {
    /// Only reads: is shown no button that changes something, and each POST is refused.
    pub is_read_only: bool,
    /// What a form brings back as `csrf`, so that no other site's page can send it.
    pub csrf: String,
    /// Came in by the form, and may log out.
    pub has_session: bool,
    /// How long they are let in: streams end then.
    pub stay: Stay,
}

impl Visitor {
    /// The hidden field that every form with `method="post"` has.
    #[must_use]
    pub fn csrf_field(&self) -> maud::Markup {
        maud::html! { input type="hidden" name="csrf" value=(self.csrf); }
    }
}

/// What the guard found out.
impl FromRequest for Visitor {
    type Error = Infallible;
    type Future = Ready<Result<Self, Infallible>>;

    fn from_request(request: &HttpRequest, _payload: &mut Payload) -> Self::Future {
        ready(Ok(request.extensions().get::<Self>().cloned().unwrap_or_default()))
    }
}

/// The middleware of every page.
pub(super) async fn guard(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<BoxBody>, Error> {
    let mut response = match admit(&mut request).await {
        Ok(visitor) => {
            request.extensions_mut().insert(visitor);
            next.call(request).await?.map_into_boxed_body()
        }
        Err(refused) => request.into_response(refused),
    };
    let headers = response.headers_mut();
    for (name, value) in SAFETY {
        headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    if !headers.contains_key(CACHE_CONTROL) {
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
    Ok(response)
}

/// Who it is, if they may do what they ask for; or what they are told.
async fn admit(request: &mut ServiceRequest) -> Result<Visitor, HttpResponse> {
    let Some(dashboard) = request.app_data::<web::Data<Dashboard>>().cloned() else {
        return Err(HttpResponse::InternalServerError().finish()); // `mount` puts it there
    };
    let keeper = &dashboard.inner.doorkeeper;
    let is_open = request.path() == LOGIN || request.path().starts_with("/assets/");
    let known = match keeper.identify(request.request()).await {
        Ok(known) => known,
        // who is not in yet may fill in the form
        Err(Refusal::Anonymous | Refusal::Wrong | Refusal::Later(_)) if is_open => {
            let csrf = Some(keeper.csrf().to_owned());
            Known { is_read_only: false, csrf, has_session: false, stay: Stay::default() }
        }
        Err(refusal) => return Err(refused(request, refusal)),
    };
    if !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS) {
        may_change(request, &known).await?;
    }
    Ok(Visitor {
        is_read_only: known.is_read_only,
        csrf: known.csrf.unwrap_or_default(),
        has_session: known.has_session,
        stay: known.stay,
    })
}

async fn may_change(request: &mut ServiceRequest, known: &Known) -> Result<(), HttpResponse> {
    if known.is_read_only && request.path() != "/logout" {
        return Err(text(
            StatusCode::FORBIDDEN,
            "this login only reads; `admin.token` of the config may change things\n",
        ));
    }
    let Some(csrf) = &known.csrf else { return Ok(()) };
    if is_foreign(request) {
        return Err(text(StatusCode::FORBIDDEN, "another site's page sent this\n"));
    }
    // the login's form is always read here, within its bounds
    let header = request
        .headers()
        .get("x-csrf-token")
        .filter(|_| request.path() != LOGIN)
        .map(|token| token.as_bytes().to_vec());
    let token = match header {
        Some(token) => token,
        None => posted(request).await?.into_bytes(),
    };
    match bool::from(token.ct_eq(csrf.as_bytes())) {
        true => Ok(()),
        false => Err(text(StatusCode::FORBIDDEN, "this page is too old; load it again, and send it then\n")),
    }
}

/// Whether the browser says that another site's page sent it.
fn is_foreign(request: &ServiceRequest) -> bool {
    let of = |name: &HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    let site = of(&HeaderName::from_static("sec-fetch-site"));
    let origin = of(&ORIGIN).map(|origin| origin.split_once("://").map_or("", |(_, host)| host));
    site.is_some_and(|site| !matches!(site, "same-origin" | "none"))
        || origin.is_some_and(|origin| of(&HOST) != Some(origin))
}

/// The field `csrf` of the form; its body is put back.
async fn posted(request: &mut ServiceRequest) -> Result<String, HttpResponse> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    if !kind.starts_with("application/x-www-form-urlencoded") {
        return Ok(String::new());
    }
    let (most, time, words) = match request.path() {
        LOGIN => (MOST_OF_LOGIN, LOGIN_TIMEOUT, "a login holds 16 KiB at most\n"),
        _ => (MOST_POSTED, POST_TIMEOUT, "a form holds 2 MiB at most\n"),
    };
    let body = request.extract::<web::Payload>().await.map_err(|_| HttpResponse::BadRequest().finish())?;
    let body = match tokio::time::timeout(time, body.to_bytes_limited(most)).await {
        Ok(Ok(Ok(body))) => body,
        Ok(Ok(Err(_))) => return Err(HttpResponse::BadRequest().finish()),
        Ok(Err(_)) => return Err(text(StatusCode::PAYLOAD_TOO_LARGE, words)),
        Err(_) => return Err(text(StatusCode::REQUEST_TIMEOUT, "this took too long to send\n")),
    };
    let token = url::form_urlencoded::parse(&body).find(|(key, _)| key == "csrf").map(|(_, token)| token.into_owned());
    request.set_payload(Payload::from(body));
    Ok(token.unwrap_or_default())
}

fn refused(request: &ServiceRequest, refusal: Refusal) -> HttpResponse {
    let is_page = request
        .headers()
        .get(ACCEPT)
        .and_then(|accept| accept.to_str().ok())
        .is_some_and(|accept| accept.contains("text/html"));
    match refusal {
        Refusal::Closed => text(
            StatusCode::FORBIDDEN,
            "this admin port is open to other machines, and nobody may read it before the config has a login; write for example \
             `admin: { token: … }` with 16 letters or more, or bind it to 127.0.0.1. /healthz, /readyz and /metrics are open.\n",
        ),
        Refusal::ForeignHost => text(
            StatusCode::MISDIRECTED_REQUEST,
            "this admin port is asked by its address or as `localhost`; other names stand in the config under `admin: { hosts: […] }`\n",
        ),
        Refusal::Anonymous | Refusal::Wrong if is_page => {
            // what a form sent is not sent again by going there
            let path = request.uri().path_and_query().filter(|_| request.method() == Method::GET);
            let path = path.map_or("/", |path| path.as_str());
            HttpResponse::SeeOther().insert_header((LOCATION, login::form_address(path))).finish()
        }
        Refusal::Anonymous | Refusal::Wrong => {
            let mut answer = text(
                StatusCode::UNAUTHORIZED,
                "say who you are: `Authorization: Bearer` with `admin.token` of the config\n",
            );
            answer
                .headers_mut()
                .insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"goms\", Basic realm=\"goms\""));
            answer
        }
        Refusal::Later(seconds) => {
            let mut answer = text(StatusCode::TOO_MANY_REQUESTS, "too many wrong logins; try again later\n");
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            answer
        }
    }
}

fn text(status: StatusCode, words: &'static str) -> HttpResponse {
    HttpResponse::build(status).content_type("text/plain; charset=utf-8").body(words)
}
