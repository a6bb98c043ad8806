//! The whole cluster in a few numbers.

use maud::{Markup, html};

use super::{GATEWAY, Look};
use crate::dashboard::cluster::State;
use crate::figures::{duration, grouped, pace, share};

pub(super) fn part(look: &Look) -> Markup {
    let door = look.stats.as_ref().ok().and_then(|stats| stats.groups.iter().find(|group| group.service == GATEWAY));
    let (nodes, ready, in_flight) = look.services.iter().flat_map(|services| services.values()).fold(
        (0, 0, 0),
        |(nodes, ready, in_flight), row| {
            let working: u64 = row.nodes.iter().filter_map(|node| node.in_flight).sum();
            (nodes + row.nodes.len(), ready + row.count(State::Ready), in_flight + working)
        },
    );
    let services = look.services.as_ref().map_or(0, |services| services.len());
    html! {
        @if let Err(why) = &look.stats {
            p.notice.warn role="status" { "No numbers of requests: " (why) }
        }
        dl.figures {
            div { dt { "Requests at gateways" } dd {
                (pace(door.map_or(0, |door| door.total.count), look.range.seconds()))
            } }
            div { dt { "Failed" } dd.bad[door.is_some_and(|door| door.total.errors > 0)] {
                (door.map_or_else(|| "0%".to_owned(), |door| share(door.total.errors, door.total.count)))
            } }
            div { dt { "p95 at gateways" } dd {
                (door.filter(|door| door.total.p95_ns > 0).map_or_else(|| "–".to_owned(), |door| duration(door.total.p95_ns)))
            } }
            div { dt { "Services" } dd { (grouped(services as u64)) } }
            div { dt { "Nodes ready" } dd { (grouped(ready as u64)) " " small { "of " (grouped(nodes as u64)) } } }
            div { dt { "In flight here" } dd { (grouped(in_flight)) } }
        }
    }
}
