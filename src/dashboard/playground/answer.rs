//! What came back.

use std::time::Duration;

use maud::{Markup, html};

use crate::dashboard::Told;
use crate::dashboard::page::{cut, encoded, told};
use crate::dashboard::send::Answer;
use crate::dashboard::traces::body::pretty;
use crate::figures::{bytes, duration};

/// Of an answer's body on the page.
const SHOWN_BYTES: usize = 64_000;

/// What a method by RPC answered.
pub fn called(answer: &Told) -> Markup {
    let class = if answer.is_ok { "badge good" } else { "badge bad" };
    let mut left = SHOWN_BYTES;
    let mut texts = Vec::new();
    for message in &answer.messages {
        if left == 0 {
            break;
        }
        let (text, _) = pretty(message, left);
        left = left.saturating_sub(text.len());
        texts.push(text);
    }
    html! {
        section.card aria-label="Answer" id="answer" {
            header {
                h2 { "Answer" }
                span class=(class) { @if answer.is_ok { "OK" } @else { "failed" } }
                span.soft { (duration(nanos(answer.took))) }
                @if answer.is_ok && answer.messages.len() != 1 { span.soft { (answer.messages.len()) " messages" } }
                a.end.button href={ "/traces/" (encoded(&answer.request_id)) } { "Its trace" }
            }
            div.body.answers {
                @if !answer.is_ok { p { (told(&answer.status)) } }
                @for text in &texts { pre tabindex="0" aria-label="Message" { (text) } }
                @if answer.is_cut || left == 0 { p.soft { "There is more, which is not shown." } }
            }
        }
    }
}

/// What a server answered.
pub fn answered(answer: &Answer) -> Markup {
    let class = match answer.status {
        500.. => "badge bad",
        400.. => "badge warn",
        _ => "badge good",
    };
    let is_json = answer.header("content-type").is_some_and(|kind| kind.contains("json"));
    html! {
        section.card aria-label="Answer" id="answer" {
            header {
                h2 { "Answer" }
                span class=(class) { (answer.status) }
                span.soft { (duration(nanos(answer.took))) }
                @if let Some(id) = answer.header("x-request-id") {
                    a.end.button href={ "/traces/" (encoded(id)) } { "Its trace" }
                }
            }
            @if let Some(note) = answer.note { p.notice.warn { (note) } }
            dl.pairs.body { @for (name, value) in answer.headers.iter().take(60) { dt { (told(name)) } dd.mono { (told(value)) } } }
            @match &answer.body {
                Err(why) => p.body.soft { "Its body is not shown: " (told(why)) },
                Ok(body) if body.is_empty() => p.body.soft { "It has no body." },
                Ok(body) => (content(body, is_json)),
            }
        }
    }
}

fn content(body: &[u8], is_json: bool) -> Markup {
    let text = String::from_utf8_lossy(body);
    let (text, is_cut) = match is_json {
        true => pretty(&text, SHOWN_BYTES),
        false => (cut(&text, SHOWN_BYTES).to_owned(), text.chars().nth(SHOWN_BYTES).is_some()),
    };
    html! {
        div.body {
            pre tabindex="0" aria-label="Body" { (text) }
            @if is_cut { p.soft { "cut; it has " (bytes(body.len() as u64)) } }
        }
    }
}

fn nanos(took: Duration) -> u64 {
    u64::try_from(took.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_only_text() {
        let answer = Answer {
            status: 200,
            headers: vec![("x-request-id".into(), "a/b".into()), ("x-<b>".into(), "<script>".into())],
            body: Ok(b"<script>alert(1)</script>".to_vec()),
            took: Duration::from_millis(2),
            note: Some("it was sent on"),
        };
        let shown = answered(&answer).into_string();
        assert!(!shown.contains("<script>") && shown.contains("/traces/a%2Fb") && shown.contains("2.00ms"), "{shown}");
        assert!(shown.contains("it was sent on"), "{shown}");
    }

    #[test]
    fn messages_are_only_text_and_bounded() {
        let messages = vec!["{\"a\":\"<b>\"}".to_owned(), "x".repeat(100_000), "y".to_owned()];
        let answer = Told { is_ok: true, messages, request_id: "a/b".into(), ..Told::default() };
        let shown = called(&answer).into_string();
        assert!(!shown.contains("<b>") && shown.contains("/traces/a%2Fb") && shown.contains("3 messages"));
        assert!(shown.len() < 80_000 && shown.contains("not shown"), "{}", shown.len());
    }
}
