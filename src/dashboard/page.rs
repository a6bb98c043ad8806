//! The frame of every page, and the small parts that pages share.

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::ContentType;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use maud::{DOCTYPE, Markup, html};

use super::Visitor;
use super::assets;

/// The parts of the dashboard, in the order of its navigation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Section {
    /// Services, nodes, what happened.
    Overview,
    /// Who calls whom.
    Graph,
    /// Requests.
    Traces,
    /// What a gateway has in force.
    Routes,
    /// What clients can ask for.
    Api,
    /// A request of one's own.
    Playground,
}

const SECTIONS: [(Section, &str, &str); 6] = [
    (Section::Overview, "Overview", "/"),
    (Section::Graph, "Graph", "/graph"),
    (Section::Traces, "Traces", "/traces"),
    (Section::Routes, "Routes", "/routes"),
    (Section::Api, "API", "/openapi"),
    (Section::Playground, "Playground", "/playground"),
];

/// A page: its `title` (of the browser's tab, and its heading's words are the page's own matter), the section that the
/// navigation marks, and what stands in `main`.
#[must_use]
pub fn page(visitor: &Visitor, section: Section, title: &str, main: &Markup) -> HttpResponse {
    framed(StatusCode::OK, visitor, Some(section), title, main)
}

/// A page that says what went wrong and what to do.
#[must_use]
pub fn problem(status: StatusCode, visitor: &Visitor, title: &str, advice: &Markup) -> HttpResponse {
    let main = html! { div.empty.problem { h1 { (title) } p { (advice) } p { a href="/" { "Go to the overview" } } } };
    framed(status, visitor, None, title, &main)
}

/// A page outside of every section.
pub(super) fn alone(status: StatusCode, visitor: &Visitor, title: &str, main: &Markup) -> HttpResponse {
    framed(status, visitor, None, title, main)
}

/// The page of an address that is none.
pub(super) async fn not_found(visitor: Visitor) -> HttpResponse {
    let advice = html! { "Nothing is at this address; it may be of another version of goms." };
    problem(StatusCode::NOT_FOUND, &visitor, "Not found", &advice)
}

fn framed(status: StatusCode, visitor: &Visitor, section: Option<Section>, title: &str, main: &Markup) -> HttpResponse {
    let document = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                @if !visitor.csrf.is_empty() { meta name="csrf" content=(visitor.csrf); }
                title { (title) " · goms" }
                (assets::links())
            }
            body {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href="/" { "goms" }
                    nav aria-label="Sections" {
                        @for (of, name, address) in SECTIONS {
                            a href=(address) aria-current=[(section == Some(of)).then_some("page")] { (name) }
                        }
                    }
                    span.live-state id="live-state" role="status" {}
                    @if visitor.is_read_only { span.badge { "read only" } }
                    @if visitor.has_session {
                        form method="post" action="/logout" { (visitor.csrf_field()) button.quiet { "Log out" } }
                    }
                }
                main id="main" tabindex="-1" { (main) }
            }
        }
    };
    HttpResponse::build(status).content_type(ContentType::html()).body(document.into_string())
}

/// Letters of a name that a page shows; all of them would be 10 KB where someone wants to do harm.
const LONGEST_NAME: usize = 120;

/// A text that came from outside, in one line: isolated from the direction of what stands beside it, cut where it is
/// too long, with more of it as its tooltip.
#[must_use]
pub fn told(text: &str) -> Markup {
    let shown = cut(text, LONGEST_NAME);
    html! {
        @if shown.len() == text.len() { bdi { (text) } } @else { bdi title=(cut(text, 1_000)) { (shown) "…" } }
    }
}

/// A moment as this process's clock shows it, to the second; the whole of it is its tooltip.
#[must_use]
pub fn moment(at_ms: i64) -> Markup {
    let at = Timestamp::from_millisecond(at_ms).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(TimeZone::system());
    html! {
        time datetime=(at.timestamp()) title=(at.strftime("%Y-%m-%d %H:%M:%S %Z")) { (at.strftime("%H:%M:%S")) }
    }
}

/// A text as a part of an address, in its path or its query.
#[must_use]
pub fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

/// The first letters of a text.
pub(super) fn cut(text: &str, letters: usize) -> &str {
    text.char_indices().nth(letters).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_from_outside_is_text() {
        assert_eq!(told("<b>\"").into_string(), "<bdi>&lt;b&gt;&quot;</bdi>");
        assert_eq!(encoded("a b/c?d&e"), "a%20b%2Fc%3Fd%26e");
        let long = "é".repeat(5_000);
        let shown = told(&long).into_string();
        assert!(shown.len() < 2_400 && shown.ends_with("é…</bdi>"), "{}", shown.len());
    }
}
