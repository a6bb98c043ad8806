//! Who came and left, and configs that were read again.

use maud::{Markup, html};

use super::Look;
use crate::dashboard::feed::{Change, Entry, What};
use crate::dashboard::page::{encoded, moment, told};
use crate::figures::grouped;

/// Letters of a line that the config's reader said; it names keys, which may be of any length.
const LONGEST: usize = 400;

/// Entries that are shown.
pub(super) const MOST: usize = 20;

pub(super) fn part(look: &Look) -> Markup {
    html! {
        header { h2 { "What happened" } span.soft { "since this process started" } }
        @if look.feed.is_empty() {
            div.body.soft { "Nothing yet: nodes that join or leave and configs that are reloaded show here." }
        } @else {
            ol.feed { @for entry in &look.feed { (line(entry)) } }
        }
    }
}

fn line(entry: &Entry) -> Markup {
    html! {
        li {
            (moment(entry.at_ms))
            @match &entry.what {
                What::Nodes { service, change, node, count } => {
                    (word(*change))
                    span {
                        a href={ "/services/" (encoded(service)) } { (told(service)) } " "
                        @match node {
                            Some(node) => span.mono.soft title=(node) { (short(node)) },
                            None => { (grouped(*count as u64)) " nodes" },
                        }
                    }
                },
                What::Reload { is_taken, told: lines } => {
                    @if *is_taken { span.badge.accent { "config" } } @else { span.badge.bad { "config" } }
                    span {
                        @if *is_taken { "reloaded" } @else { "refused, the one before stays in force" }
                        @for line in lines { br; span.soft { (line.chars().take(LONGEST).collect::<String>()) } }
                    }
                },
            }
        }
    }
}

/// The address by HTTP, where a node has one.
fn short(node: &str) -> &str {
    node.rsplit_once('_').map(|(_, http)| http).filter(|http| !http.ends_with(':')).unwrap_or(node)
}

fn word(change: Change) -> Markup {
    let (class, word) = match change {
        Change::Joined => ("badge good", "join"),
        Change::Left => ("badge", "leave"),
        Change::Ready => ("badge good", "ready"),
        Change::Draining => ("badge warn", "draining"),
        Change::Stale => ("badge warn", "stale"),
    };
    html! { span class=(class) { (word) } }
}
