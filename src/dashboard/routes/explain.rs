//! Which route takes a request, and why the ones before it do not.

use maud::{Markup, html};

use crate::dashboard::page::told;
use crate::gateway::{self, Explanation, Question, Settings};

const METHODS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];

/// Routes that are told of although the path is none of theirs; the rest is like them.
const MOST: usize = 60;

/// The form, and what it was asked.
pub(super) fn part(settings: &Settings, method: &str, url: &str, headers: &str) -> Markup {
    let method = METHODS.into_iter().find(|known| known.eq_ignore_ascii_case(method)).unwrap_or("GET");
    html! {
        section.card aria-label="Explain" {
            header { h2 { "Which route takes a request?" } span.soft { "as " code { "goms explain" } " says it; nothing is sent" } }
            form.filters.body method="get" action="/routes" {
                div { label for="method" { "Method" } select id="method" name="method" {
                    @for known in METHODS { option selected[known == method] { (known) } }
                } }
                div.grow { label for="url" { "Path or address" }
                    input id="url" name="url" value=(url) placeholder="/api/user/login?a=1" required spellcheck="false" autocomplete="off"; }
                div.grow { label for="headers" { "Headers, one a line" }
                    textarea id="headers" name="headers" rows="1" placeholder="name: value" spellcheck="false" { (headers) } }
                button.primary { "Explain" }
            }
            @if !url.is_empty() { div.body id="explained" { (answer(settings, method, url, headers)) } }
        }
    }
}

fn answer(settings: &Settings, method: &str, url: &str, headers: &str) -> Markup {
    let fields: Vec<String> =
        headers.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    let explained =
        Question::parse(method, url.trim(), &fields).and_then(|question| gateway::explain(settings, &question));
    match explained {
        Ok(explanation) => explained_as(&explanation),
        Err(why) => html! { p.notice.bad role="status" { (told(&why)) } },
    }
}

fn explained_as(explanation: &Explanation) -> Markup {
    let near = explanation.tried.iter().filter(|tried| tried.is_near).count();
    let far = explanation.tried.len() - near;
    html! {
        @match &explanation.outcome {
            Ok(taken) => {
                p { span.badge.good { "taken" } " by " b { (told(explanation.tried.last().map_or("", |tried| tried.name.as_str()))) } }
                dl.pairs { @for (what, how) in taken.shown() { dt { (what) } dd { (told(&how)) } } }
            },
            Err(why) => p role="status" { span.badge.bad { "refused" } " " (told(why)) },
        }
        @if near > 0 {
            div.scroll { table {
                thead { tr { th scope="col" { "Tried" } th scope="col" { "Path" } th scope="col" { "Takes it" } } }
                tbody { @for tried in explanation.tried.iter().filter(|tried| tried.is_near).take(MOST) {
                    tr {
                        td { (told(&tried.name)) } td { code { (tried.path) } }
                        td { @match &tried.refusal { None => span.good { "yes" }, Some(why) => { "no, " (told(why)) } } }
                    }
                } }
            } }
        }
        @if far > 0 { p.soft { (far) " other routes have another path." } }
    }
}
