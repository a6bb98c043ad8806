//! The drawing: boxes of services, and between them arrows with what happened on the way.

use std::fmt::Write as _;

use maud::{Markup, html};

use super::layout::{Edge, GAP, Layout, NODE_HEIGHT, NODE_WIDTH};
use super::{Calls, name, traces};
use crate::dashboard::page::{cut, encoded};
use crate::dashboard::range::Range;
use crate::figures::{duration, pace, share};
use crate::store::Group;

/// Letters of a name that fit into a box.
const LETTERS: usize = 20;

/// Up to this width a drawing may be made as narrow as a page; the text of a wider one would be too small to read.
const WIDEST: f64 = 1_700.0;

/// The whole as SVG. Each arrow leads to the traces behind it, each box to its service.
pub(super) fn draw(calls: &Calls<'_>, layout: &Layout, range: Range) -> Markup {
    let told = format!("{} services and who calls whom; the table below says the same", calls.names.len());
    html! {
        svg.graph.fits[layout.width <= WIDEST] viewBox={ "0 0 " (layout.width.ceil()) " " (layout.height.ceil()) } width=(layout.width.ceil())
            height=(layout.height.ceil()) role="group" aria-label=(told) {
            defs {
                @for (id, class) in [("arrow", "tip"), ("arrow-bad", "tip bad")] {
                    marker id=(id) viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8"
                        markerUnits="userSpaceOnUse" orient="auto-start-reverse" { path class=(class) d="M0 0L8 4L0 8Z" {} }
                }
            }
            @for (group, edge) in calls.edges.iter().zip(&layout.edges) { (arrow(group, edge, layout, calls, range)) }
            @for (at, (name, (x, y))) in calls.names.iter().zip(&layout.nodes).enumerate() { (node(*name, *x, *y, calls, at, range)) }
        }
    }
}

fn arrow(group: &Group, edge: &Edge, layout: &Layout, calls: &Calls<'_>, range: Range) -> Markup {
    let total = &group.total;
    let (marker, class) = if total.errors > 0 { ("url(#arrow-bad)", " bad") } else { ("url(#arrow)", "") };
    let (start, end) = if edge.is_turned { (Some(marker), None) } else { (None, Some(marker)) };
    let path = match edge.points.is_empty() {
        true => own(layout.nodes.get(calls.place(Some(&group.service))).copied().unwrap_or_default()),
        false => curve(&edge.points),
    };
    // each class has ten times as many requests a second as the one before
    let weight = (total.count as f64 / range.seconds() * 10.0).max(1.0).log10().clamp(0.0, 3.0).floor() + 1.0;
    let (x, y) = edge.label;
    let failed = share(total.errors, total.count);
    let numbers = format!("{} · {}", pace(total.count, range.seconds()), took(total.p95_ns));
    html! {
        a.edge href=(traces(group, range)) {
            title { (name(group.caller.as_deref())) " → " (cut(&group.service, 200)) ": " (pace(total.count, range.seconds())) ", " (failed) " failed, p95 " (took(total.p95_ns)) }
            path class={ "way w" (weight) (class) } d=(path) marker-start=[start] marker-end=[end] {}
            path.reach d=(path) {}
            text.halo x=(format!("{x:.1}")) y=(format!("{:.1}", y - 6.0)) text-anchor="middle" { (numbers) }
            @if total.errors > 0 {
                text.halo.bad x=(format!("{x:.1}")) y=(format!("{:.1}", y + 14.0)) text-anchor="middle" { (failed) " failed" }
            }
        }
    }
}

fn node(of: Option<&str>, x: f64, y: f64, calls: &Calls<'_>, at: usize, range: Range) -> Markup {
    let all = name(of);
    let shown = if cut(&all, LETTERS).len() < all.len() { format!("{}…", cut(&all, LETTERS)) } else { all.clone() };
    let answered = calls.answered.get(at).copied().unwrap_or_default();
    let middle = x + NODE_WIDTH / 2.0;
    let inside = html! {
        title { (cut(&all, 400)) }
        rect class=(if of.is_some() { "box" } else { "box outside" }) x=(x) y=(format!("{y:.1}")) width=(NODE_WIDTH) height=(NODE_HEIGHT) rx="8" {}
        text.who x=(middle) y=(format!("{:.1}", y + if of.is_some() { 22.0 } else { 31.0 })) text-anchor="middle" { (shown) }
        @if of.is_some() {
            text.sum x=(middle) y=(format!("{:.1}", y + 40.0)) text-anchor="middle" { (pace(answered, range.seconds())) }
        }
    };
    html! {
        @match of {
            Some(service) => a.node href={ "/services/" (encoded(service)) "?range=" (range.word()) } { (inside) },
            None => g.node { (inside) },
        }
    }
}

/// Level at both ends of each gap, straight where it passes a layer.
fn curve(points: &[(f64, f64)]) -> String {
    let mut path = String::new();
    for (at, (x, y)) in points.iter().enumerate() {
        // writing into a String cannot fail
        match at {
            0 => write!(path, "M{x:.1} {y:.1}"),
            _ if at % 2 == 0 => write!(path, "L{x:.1} {y:.1}"),
            _ => {
                let before = points[at - 1];
                let bend = GAP / 2.0;
                write!(path, "C{:.1} {:.1} {:.1} {y:.1} {x:.1} {y:.1}", before.0 + bend, before.1, x - bend)
            }
        }
        .unwrap_or_default();
    }
    path
}

/// From the top of a box back to it.
fn own((x, y): (f64, f64)) -> String {
    let (left, right, above) = (x + NODE_WIDTH * 0.4, x + NODE_WIDTH * 0.6, y - 26.0);
    format!("M{left:.1} {y:.1}C{left:.1} {above:.1} {right:.1} {above:.1} {right:.1} {y:.1}")
}

fn took(ns: u64) -> String {
    if ns == 0 { "–".to_owned() } else { duration(ns) }
}
