//! Where the nodes and edges of a drawing go: in layers from the callers to the called, as Sugiyama, Tagawa and Toda have it
//! ("Methods for Visual Understanding of Hierarchical System Structures", 1981).
//!
//! Edges of circles are turned round for the layout (and drawn as they are); an edge over several layers gets a place in
//! each of them, so that it leads around nodes. The result depends on what calls what alone, in the order given, so a
//! drawing stays as it is while its numbers change.

use std::collections::BTreeSet;

/// Units of the drawing, which are pixels of a screen.
pub(super) const NODE_WIDTH: f64 = 172.0;
/// The same.
pub(super) const NODE_HEIGHT: f64 = 52.0;
/// Between two layers: room for what stands on an edge.
pub(super) const GAP: f64 = 176.0;
/// Between two nodes of a layer.
const SPACE: f64 = 38.0;
/// What an edge takes that passes a layer.
const PASSAGE: f64 = 26.0;
/// Around all.
const MARGIN: f64 = 28.0;
/// What stands on an edge: half of its width, and of its height.
const LABEL: (f64, f64) = (56.0, 19.0);
/// There and back; more changes nothing that one sees.
const SWEEPS: usize = 6;

/// A finished layout.
#[derive(Clone, Debug, Default)]
pub(super) struct Layout {
    pub width: f64,
    pub height: f64,
    /// The left upper corner of each node.
    pub nodes: Vec<(f64, f64)>,
    pub edges: Vec<Edge>,
}

/// The way of an edge.
#[derive(Clone, Debug, Default)]
pub(super) struct Edge {
    /// Middle of the right side of what it leaves, then each passage's left and right, then the middle of the left side of
    /// where it goes; for an edge of a circle the other way round. Empty: the edge leads to its own node.
    pub points: Vec<(f64, f64)>,
    /// It is one that was turned round: its arrow is at the beginning.
    pub is_turned: bool,
    /// Where its label stands, in the middle.
    pub label: (f64, f64),
}

/// A node, or the passage of an edge.
struct Place {
    layer: usize,
    height: f64,
    y: f64,
    before: Vec<usize>,
    after: Vec<usize>,
}

/// Lays out `nodes` nodes and the edges between them (from, to).
pub(super) fn layout(nodes: usize, edges: &[(usize, usize)]) -> Layout {
    let turned = circles(nodes, edges);
    let straight: Vec<(usize, usize)> = edges
        .iter()
        .enumerate()
        .map(|(edge, (from, to))| if turned.contains(&edge) { (*to, *from) } else { (*from, *to) })
        .collect();
    let layers = layers(nodes, &straight);
    let place = |layer: usize, height: f64| Place { layer, height, y: 0.0, before: Vec::new(), after: Vec::new() };
    let mut places: Vec<Place> = layers.iter().map(|layer| place(*layer, NODE_HEIGHT)).collect();
    let mut ways: Vec<Vec<usize>> = Vec::with_capacity(edges.len());
    for (from, to) in &straight {
        let mut way = vec![*from];
        for layer in layers[*from] + 1..layers[*to] {
            places.push(place(layer, PASSAGE));
            way.push(places.len() - 1);
        }
        way.push(*to);
        for pair in way.windows(2).filter(|pair| pair[0] != pair[1]) {
            places[pair[0]].after.push(pair[1]);
            places[pair[1]].before.push(pair[0]);
        }
        ways.push(way);
    }
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); layers.iter().max().map_or(0, |most| most + 1)];
    for (index, place) in places.iter().enumerate() {
        columns[place.layer].push(index);
    }
    arrange(&mut places, &mut columns);
    finish(&places, nodes, &ways, &turned, columns.len())
}

/// The edges that close a circle, found by depth first search from who nobody calls.
fn circles(nodes: usize, edges: &[(usize, usize)]) -> BTreeSet<usize> {
    #[derive(Clone, Copy, PartialEq)]
    enum Seen {
        Not,
        Open,
        Done,
    }
    let mut of: Vec<Vec<(usize, usize)>> = vec![Vec::new(); nodes];
    let mut is_called = vec![false; nodes];
    for (edge, (from, to)) in edges.iter().enumerate() {
        of[*from].push((edge, *to));
        is_called[*to] |= from != to;
    }
    let mut seen = vec![Seen::Not; nodes];
    let mut turned = BTreeSet::new();
    let roots = (0..nodes).filter(|node| !is_called[*node]).chain((0..nodes).filter(|node| is_called[*node]));
    for root in roots.collect::<Vec<_>>() {
        if seen[root] != Seen::Not {
            continue;
        }
        seen[root] = Seen::Open;
        let mut stack = vec![(root, 0)];
        while let Some((node, next)) = stack.pop() {
            let Some((edge, to)) = of[node].get(next).copied() else {
                seen[node] = Seen::Done;
                continue;
            };
            stack.push((node, next + 1));
            match seen[to] {
                Seen::Open if to != node => drop(turned.insert(edge)),
                Seen::Not => {
                    seen[to] = Seen::Open;
                    stack.push((to, 0));
                }
                Seen::Open | Seen::Done => {}
            }
        }
    }
    turned
}

/// The longest way from who nobody calls. `edges` have no circles but those of one node.
fn layers(nodes: usize, edges: &[(usize, usize)]) -> Vec<usize> {
    let mut waits = vec![0_usize; nodes];
    for (from, to) in edges {
        waits[*to] += usize::from(from != to);
    }
    let mut layers = vec![0; nodes];
    let mut ready: Vec<usize> = (0..nodes).filter(|node| waits[*node] == 0).collect();
    while let Some(node) = ready.pop() {
        for (_, to) in edges.iter().filter(|(from, to)| *from == node && from != to) {
            layers[*to] = layers[*to].max(layers[node] + 1);
            waits[*to] -= 1;
            if waits[*to] == 0 {
                ready.push(*to);
            }
        }
    }
    layers
}

/// Puts each column in an order with few crossings, each place near those that it is joined with.
fn arrange(places: &mut [Place], columns: &mut [Vec<usize>]) {
    for column in columns.iter() {
        stack(places, column);
    }
    for sweep in 0..SWEEPS {
        let is_there = sweep % 2 == 0;
        for step in 0..columns.len() {
            let column = if is_there { step } else { columns.len() - 1 - step };
            let wanted: Vec<f64> = columns[column].iter().map(|index| wanted(places, *index, is_there)).collect();
            let mut order: Vec<usize> = (0..wanted.len()).collect();
            order.sort_by(|a, b| wanted[*a].total_cmp(&wanted[*b]));
            let sorted: Vec<(usize, f64)> = order.iter().map(|at| (columns[column][*at], wanted[*at])).collect();
            columns[column] = sorted.iter().map(|(index, _)| *index).collect();
            settle(places, &sorted);
        }
    }
}

fn stack(places: &mut [Place], column: &[usize]) {
    let mut y = 0.0;
    for index in column {
        places[*index].y = y;
        y += places[*index].height + SPACE;
    }
}

fn middle(place: &Place) -> f64 {
    place.y + place.height / 2.0
}

/// The middle of those that a place is joined with on one side; where there are none, its own.
fn wanted(places: &[Place], index: usize, is_there: bool) -> f64 {
    let place = &places[index];
    let near = if is_there { &place.before } else { &place.after };
    if near.is_empty() {
        return middle(place);
    }
    near.iter().map(|other| middle(&places[*other])).sum::<f64>() / near.len() as f64
}

/// Puts the places of a column as near to where they want to be as their heights let them.
fn settle(places: &mut [Place], column: &[(usize, f64)]) {
    let mut end = f64::NEG_INFINITY;
    let mut pushed = 0.0;
    for (index, wanted) in column {
        let place = &mut places[*index];
        let y = wanted - place.height / 2.0;
        place.y = y.max(end);
        pushed += place.y - y;
        end = place.y + place.height + SPACE;
    }
    // as far above as below
    let shift = pushed / column.len().max(1) as f64;
    for (index, _) in column {
        places[*index].y -= shift;
    }
}

fn finish(places: &[Place], nodes: usize, ways: &[Vec<usize>], turned: &BTreeSet<usize>, columns: usize) -> Layout {
    let top = places.iter().map(|place| place.y).fold(f64::INFINITY, f64::min);
    let bottom = places.iter().map(|place| place.y + place.height).fold(f64::NEG_INFINITY, f64::max);
    if places.is_empty() {
        return Layout::default();
    }
    let left = |place: &Place| MARGIN + place.layer as f64 * (NODE_WIDTH + GAP);
    let y = |y: f64| y - top + MARGIN;
    let mut ends = Vec::with_capacity(ways.len());
    let edges = ways.iter().enumerate().map(|(edge, way)| {
        let (first, last) = (&places[way[0]], &places[way[way.len() - 1]]);
        if way[0] == way[way.len() - 1] {
            let label = (left(first) + NODE_WIDTH / 2.0, y(first.y) - 22.0);
            ends.push(true);
            return Edge { label, ..Edge::default() };
        }
        let mut points = vec![(left(first) + NODE_WIDTH, y(middle(first)))];
        for passage in way[1..way.len() - 1].iter().map(|index| &places[*index]) {
            points.push((left(passage), y(middle(passage))));
            points.push((left(passage) + NODE_WIDTH, y(middle(passage))));
        }
        points.push((left(last), y(middle(last))));
        let (from_end, label) = (last.before.len() <= first.after.len(), (0.0, 0.0));
        ends.push(from_end);
        Edge { points, is_turned: turned.contains(&edge), label }
    });
    let mut layout = Layout {
        width: columns as f64 * (NODE_WIDTH + GAP) - GAP + 2.0 * MARGIN,
        height: bottom - top + 2.0 * MARGIN,
        edges: edges.collect(),
        nodes: places[..nodes].iter().map(|place| (left(place), y(place.y))).collect(),
    };
    label(&mut layout, &ends);
    layout
}

/// Puts each label where nothing else stands, if there is such a place on its edge; `ends`: begin to look where it arrives
/// (which fewer edges share), or else where it leaves.
fn label(layout: &mut Layout, ends: &[bool]) {
    let boxed = |(x, y): (f64, f64)| (x + NODE_WIDTH / 2.0, y + NODE_HEIGHT / 2.0, NODE_WIDTH / 2.0, NODE_HEIGHT / 2.0);
    let mut taken: Vec<(f64, f64, f64, f64)> = layout.nodes.iter().map(|node| boxed(*node)).collect();
    for (edge, from_end) in layout.edges.iter_mut().zip(ends) {
        let mut gaps: Vec<_> = edge.points.chunks_exact(2).map(|gap| (gap[0], gap[1])).collect();
        let mut shares = [0.34, 0.5, 0.66, 0.42, 0.58];
        if *from_end {
            gaps.reverse();
            shares = shares.map(|share| 1.0 - share);
        }
        let places = gaps.iter().flat_map(|(from, to)| shares.map(|share| between(*from, *to, share)));
        let hits = |place: &(f64, f64)| {
            let is_hit = |other: &&(f64, f64, f64, f64)| {
                (other.0 - place.0).abs() < other.2 + LABEL.0 && (other.1 - place.1).abs() < other.3 + LABEL.1
            };
            taken.iter().filter(is_hit).count()
        };
        if let Some(best) = places.min_by_key(hits) {
            edge.label = best; // of equal ones the first
        }
        taken.push((edge.label.0, edge.label.1, LABEL.0, LABEL.1));
    }
}

/// A point of the curve that leaves and arrives level.
fn between(from: (f64, f64), to: (f64, f64), share: f64) -> (f64, f64) {
    let (middle, rest) = ((from.0 + to.0) / 2.0, 1.0 - share);
    let bezier = |a: f64, b: f64, c: f64, d: f64| {
        rest.powi(3) * a + 3.0 * rest.powi(2) * share * b + 3.0 * rest * share.powi(2) * c + share.powi(3) * d
    };
    (bezier(from.0, middle, middle, to.0), bezier(from.1, from.1, to.1, to.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn columns(layout: &Layout) -> Vec<usize> {
        layout.nodes.iter().map(|(x, _)| ((x - MARGIN) / (NODE_WIDTH + GAP)).round() as usize).collect()
    }

    fn overlap(layout: &Layout) -> bool {
        let nodes = &layout.nodes;
        nodes.iter().enumerate().any(|(at, a)| {
            nodes[at + 1..]
                .iter()
                .any(|b| (a.0 - b.0).abs() < NODE_WIDTH && (a.1 - b.1).abs() < NODE_HEIGHT + SPACE - 0.1)
        })
    }

    #[test]
    fn callers_stand_before_the_called_and_nothing_overlaps() {
        // client → gateway → a, b, c; a → d; gateway → d over a layer
        let layout = layout(6, &[(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (1, 5)]);
        assert_eq!(columns(&layout), [0, 1, 2, 2, 2, 3]);
        assert!(!overlap(&layout));
        assert_eq!(layout.edges[5].points.len(), 4, "it passes a layer");
        let inside = |(x, y): &(f64, f64)| *x >= 0.0 && *x <= layout.width && *y >= 0.0 && *y <= layout.height;
        assert!(layout.edges.iter().all(|edge| edge.points.iter().all(inside) && inside(&edge.label)), "{layout:?}");
    }

    #[test]
    fn labels_stand_apart() {
        let layout = layout(8, &[(0, 1), (1, 2), (1, 3), (1, 4), (2, 5), (3, 5), (4, 5), (1, 5), (5, 6), (5, 7)]);
        let labels: Vec<(f64, f64)> = layout.edges.iter().map(|edge| edge.label).collect();
        for (at, a) in labels.iter().enumerate() {
            for b in &labels[at + 1..] {
                assert!((a.0 - b.0).abs() >= 2.0 * LABEL.0 || (a.1 - b.1).abs() >= 2.0 * LABEL.1, "{a:?} {b:?}");
            }
        }
    }

    #[test]
    fn circles_are_drawn_and_end() {
        let layout = layout(4, &[(0, 1), (1, 0), (2, 2), (1, 3), (3, 1)]);
        assert_eq!(
            layout.edges.iter().map(|edge| edge.is_turned).collect::<Vec<_>>(),
            [false, true, false, false, true]
        );
        assert!(layout.edges[2].points.is_empty(), "a node that calls itself");
        assert!(!overlap(&layout));
    }

    #[test]
    fn it_is_the_same_each_time_and_nothing_is_nothing() {
        let edges: Vec<(usize, usize)> = (0..40).map(|at| (at % 7, 7 + (at * 5) % 23)).collect();
        let (one, two) = (layout(30, &edges), layout(30, &edges));
        assert_eq!(one.nodes, two.nodes);
        assert!(!overlap(&one));
        assert!(layout(0, &[]).nodes.is_empty());
        assert_eq!(layout(1, &[]).nodes.len(), 1);
    }
}
