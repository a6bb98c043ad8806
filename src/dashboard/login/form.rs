//! The form at `/login`, and the cookie that it sets.

use actix_web::http::StatusCode;
use actix_web::http::header::{COOKIE, LOCATION, RETRY_AFTER, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};
use maud::{Markup, html};
use serde::Deserialize;

use super::{Refusal, address_of, sessions};
use crate::dashboard::page::{alone, encoded};
use crate::dashboard::{Dashboard, Visitor};

pub(in crate::dashboard) fn routes(config: &mut web::ServiceConfig) {
    config
        .route("/login", web::get().to(form))
        .route("/login", web::post().to(log_in))
        .route("/logout", web::post().to(log_out));
}

/// The cookie's name: that of the port, as browsers bring each cookie of a host to all its ports
/// (<https://www.rfc-editor.org/rfc/rfc6265#section-8.5>), and each process of a machine has sessions of its own.
fn name(request: &HttpRequest) -> String {
    format!("goms-session-{}", request.app_config().local_addr().port())
}

/// The session that a browser says.
pub(super) fn session_of(request: &HttpRequest) -> Option<String> {
    let session = name(request);
    let cookies = request.headers().get_all(COOKIE).filter_map(|cookies| cookies.to_str().ok());
    let mut pairs = cookies.flat_map(|cookies| cookies.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == session).map(|(_, id)| id.to_owned())
}

/// Where to go once logged in.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Asked {
    next: String,
}

#[derive(Deserialize)]
struct Filled {
    #[serde(default)]
    user: String,
    secret: String,
    #[serde(default)]
    next: String,
}

async fn form(dashboard: web::Data<Dashboard>, visitor: Visitor, asked: web::Query<Asked>) -> HttpResponse {
    shown(&dashboard, &visitor, StatusCode::OK, &asked.next, None)
}

async fn log_in(
    request: HttpRequest,
    dashboard: web::Data<Dashboard>,
    visitor: Visitor,
    filled: web::Form<Filled>,
) -> HttpResponse {
    let keeper = &dashboard.inner.doorkeeper;
    match keeper.log_in(address_of(&request), &filled.user, &filled.secret).await {
        Ok(id) => {
            let mut answer = HttpResponse::SeeOther();
            answer.insert_header((SET_COOKIE, cookie(&name(&request), &id, sessions::LIFETIME.as_secs())));
            answer.insert_header((LOCATION, own(&filled.next))).finish()
        }
        Err(Refusal::Later(seconds)) => {
            let why = html! { "Too many wrong attempts; try again in " (seconds) " seconds." };
            let status = StatusCode::TOO_MANY_REQUESTS;
            let mut answer = shown(&dashboard, &visitor, status, &filled.next, Some(&why));
            answer.headers_mut().insert(RETRY_AFTER, seconds.into());
            answer
        }
        Err(_) => {
            let why = html! { "That is neither a token nor a user's password." };
            shown(&dashboard, &visitor, StatusCode::UNAUTHORIZED, &filled.next, Some(&why))
        }
    }
}

async fn log_out(request: HttpRequest, dashboard: web::Data<Dashboard>) -> HttpResponse {
    if let Some(id) = session_of(&request) {
        dashboard.inner.doorkeeper.log_out(&id);
    }
    let mut answer = HttpResponse::SeeOther();
    answer.insert_header((SET_COOKIE, cookie(&name(&request), "", 0))).insert_header((LOCATION, "/login")).finish()
}

/// No script reads it. Another site's link leads in; what its pages send otherwise comes without it, and the guard asks
/// more of what changes something. <https://www.rfc-editor.org/rfc/rfc6265>
fn cookie(name: &str, id: &str, seconds: u64) -> String {
    format!("{name}={id}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax")
}

/// A path of this port; anything else is the first page, as nobody shall be led elsewhere. Browsers leave tabs and ends of
/// lines out of an address, wherever they stand (<https://url.spec.whatwg.org/#concept-basic-url-parser>).
fn own(next: &str) -> String {
    let is_plain = |byte: u8| byte.is_ascii() && !byte.is_ascii_control() && byte != b'\\';
    let is_path = next.starts_with('/') && !next.starts_with("//") && next.bytes().all(is_plain);
    if is_path { next.to_owned() } else { "/".to_owned() }
}

/// Where the form is, to come back to this path.
pub(in crate::dashboard) fn address(path_and_query: &str) -> String {
    format!("/login?next={}", encoded(&own(path_and_query)))
}

fn shown(
    dashboard: &Dashboard,
    visitor: &Visitor,
    status: StatusCode,
    next: &str,
    why: Option<&Markup>,
) -> HttpResponse {
    let has_users = dashboard.inner.doorkeeper.has_users();
    let main = html! {
        section.card.login {
            form method="post" action="/login" {
                h1 { "Log in" }
                @if let Some(why) = why { p.notice.bad role="alert" { (why) } }
                (visitor.csrf_field())
                input type="hidden" name="next" value=(own(next));
                @if has_users {
                    label for="user" { "User (none for a token)" }
                    input id="user" name="user" autocomplete="username" spellcheck="false";
                }
                label for="secret" { @if has_users { "Password or token" } @else { "Token" } }
                input id="secret" name="secret" type="password" autocomplete="current-password" required autofocus;
                button.primary { "Log in" }
                p.soft { "Tokens and users stand in the config under " code { "admin" } "." }
            }
        }
    };
    alone(status, visitor, "Log in", &main)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        for (next, goes) in [
            ("/graph?range=1h", "/graph?range=1h"),
            ("//evil.com", "/"),
            ("/\\evil.com", "/"),
            ("https://evil.com", "/"),
            ("/a\r\nSet-Cookie: a=b", "/"),
            ("/\t/evil.com", "/"),
            ("/a\u{7f}", "/"),
            ("", "/"),
        ] {
            assert_eq!(own(next), goes, "{next:?}");
        }
    }
}
