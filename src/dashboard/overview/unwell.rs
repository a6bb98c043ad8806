//! How many nodes are in which state, and those that do not take requests.

use maud::{Markup, html};

use super::Look;
use crate::dashboard::cluster::{NodeRow, STATES, State};
use crate::dashboard::page::{encoded, told};
use crate::figures::{age, grouped};

/// Nodes that are listed; the page of their service has the rest.
const MOST: usize = 12;

pub(super) fn part(look: &Look) -> Markup {
    let all = || {
        look.services.iter().flatten().flat_map(|(name, row)| row.nodes.iter().map(move |node| (name.as_str(), node)))
    };
    let mut out: Vec<(&str, &NodeRow)> = all().filter(|(_, node)| node.state != State::Ready).collect();
    out.sort_by_key(|(_, node)| node.state);
    html! {
        header {
            h2 { "Nodes" }
            @for state in STATES {
                @let count = all().filter(|(_, node)| node.state == state).count();
                @if count > 0 { span class=(state.class()) title=(state.meaning()) { (grouped(count as u64)) " " (state.word()) } }
            }
        }
        @if out.is_empty() {
            div.body.soft {
                @if all().next().is_none() { "No node is registered." } @else { "Every node takes requests." }
                @if !look.has_gateway { " Whether nodes are ejected or unwell, a gateway's dashboard tells." }
            }
        } @else {
            div.scroll { table {
                thead { tr { th scope="col" { "Node" } th scope="col" { "State" } th.num scope="col" { "In flight" } th.num scope="col" { "Age" } } }
                tbody {
                    @for (service, node) in out.iter().take(MOST) {
                        tr {
                            td { a href={ "/services/" (encoded(service)) } { (told(service)) } " " span.mono { (node.address) } }
                            td { span class=(node.state.class()) title=(node.state.meaning()) { (node.state.word()) } }
                            td.num { (node.in_flight.map_or_else(|| "–".to_owned(), grouped)) }
                            td.num { (age(node.started_ms, look.now_ms)) }
                        }
                    }
                }
            } }
            @if out.len() > MOST { p.pager { "and " (grouped((out.len() - MOST) as u64)) " more; a service's page lists its own" } }
        }
    }
}
