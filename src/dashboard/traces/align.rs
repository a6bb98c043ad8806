//! Two traces side by side: which span of the one is which of the other, and in which lines two texts differ.

use std::collections::HashMap;

use super::waterfall::{Row, Waterfall};

/// A span of the one, of the other, or of both: their places among the rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    pub a: Option<usize>,
    pub b: Option<usize>,
}

/// The nth span of a service, kind and action in the one is the nth in the other. In the order of the first; what only the
/// second has stands behind what stands before it there.
pub fn align(a: &Waterfall<'_>, b: &Waterfall<'_>) -> Vec<Pair> {
    let (keys_a, keys_b) = (keys(&a.rows), keys(&b.rows));
    let place_of: HashMap<&Key<'_>, usize> = keys_b.iter().enumerate().map(|(at, key)| (key, at)).collect();
    let mut is_met = vec![false; keys_b.len()];
    let mut pairs: Vec<Pair> = Vec::with_capacity(keys_a.len());
    for (at, key) in keys_a.iter().enumerate() {
        let twin = place_of.get(key).copied();
        if let Some(twin) = twin {
            is_met[twin] = true;
        }
        pairs.push(Pair { a: Some(at), b: twin });
    }
    let mut aligned = Vec::with_capacity(pairs.len() + keys_b.len());
    // what only the second has, before the first span that both have
    let alone_from = |from: usize| (from..keys_b.len()).take_while(|at| !is_met[*at]);
    aligned.extend(alone_from(0).map(|at| Pair { a: None, b: Some(at) }));
    for pair in pairs {
        aligned.push(pair);
        if let Some(twin) = pair.b {
            aligned.extend(alone_from(twin + 1).map(|at| Pair { a: None, b: Some(at) }));
        }
    }
    aligned
}

/// Kind, service, what was asked, and the how manyth of these.
type Key<'a> = (&'a str, &'a str, String, usize);

fn keys<'a>(rows: &[Row<'a>]) -> Vec<Key<'a>> {
    let mut counts: HashMap<(&str, &str, String), usize> = HashMap::new();
    let mut keys = Vec::with_capacity(rows.len());
    for row in rows {
        let (kind, service, asked) = row.span.told().map_or_else(Default::default, |told| {
            let kind = told.event.split('.').next().unwrap_or_default();
            let asked = if told.action.is_empty() { told.line() } else { told.action.clone() };
            (kind, told.service_name.as_str(), asked)
        });
        let count = counts.entry((kind, service, asked.clone())).or_default();
        keys.push((kind, service, asked, *count));
        *count += 1;
    }
    keys
}

/// A line of two texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line<'a> {
    Both(&'a str),
    OnlyA(&'a str),
    OnlyB(&'a str),
}

/// Lines of the middle part that are compared one by one; longer ones are shown as taken away and put in.
const MOST: usize = 1_000;

/// The fewest lines taken away and put in that make the one text the other (the longest common subsequence, between the
/// lines that are the same at the begin and at the end).
pub fn lines<'a>(a: &'a str, b: &'a str) -> Vec<Line<'a>> {
    let (a, b): (Vec<&str>, Vec<&str>) = (a.lines().collect(), b.lines().collect());
    let head = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let tail = a[head..].iter().rev().zip(b[head..].iter().rev()).take_while(|(a, b)| a == b).count();
    let (middle_a, middle_b) = (&a[head..a.len() - tail], &b[head..b.len() - tail]);
    let mut out: Vec<Line<'a>> = a[..head].iter().map(|line| Line::Both(line)).collect();
    if middle_a.len() > MOST || middle_b.len() > MOST {
        out.extend(middle_a.iter().map(|line| Line::OnlyA(line)));
        out.extend(middle_b.iter().map(|line| Line::OnlyB(line)));
    } else {
        common(middle_a, middle_b, &mut out);
    }
    out.extend(a[a.len() - tail..].iter().map(|line| Line::Both(line)));
    out
}

fn common<'a>(a: &[&'a str], b: &[&'a str], out: &mut Vec<Line<'a>>) {
    let width = b.len() + 1;
    // how many lines are common from here to the end
    let mut left = vec![0_u16; (a.len() + 1) * width];
    for i in (0..a.len()).rev() {
        for j in (0..b.len()).rev() {
            left[i * width + j] = if a[i] == b[j] {
                left[(i + 1) * width + j + 1] + 1
            } else {
                left[(i + 1) * width + j].max(left[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j) = (0, 0);
    while i < a.len() || j < b.len() {
        if i < a.len() && j < b.len() && a[i] == b[j] {
            out.push(Line::Both(a[i]));
            (i, j) = (i + 1, j + 1);
        } else if j >= b.len() || (i < a.len() && left[(i + 1) * width + j] >= left[i * width + j + 1]) {
            out.push(Line::OnlyA(a[i]));
            i += 1;
        } else {
            out.push(Line::OnlyB(b[j]));
            j += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::waterfall::tests::event;
    use super::*;
    use crate::reading::Shown;

    fn trace(services: &[&str]) -> Vec<Shown> {
        let mut events = vec![event("request.end", "gateway", "g", "", 1_100, Some((200, 100)))];
        for (at, service) in services.iter().enumerate() {
            let time_ms = 1_010 + at as i64;
            events.push(event("service.end", service, &format!("s{at}"), "g", time_ms, Some((200, 1))));
        }
        events
    }

    #[test]
    fn spans_meet_by_service_and_action() {
        let (a, b) = (trace(&["user", "order", "user"]), trace(&["stock", "user", "mail", "order", "pay"]));
        let (a, b) = (Waterfall::of(&a), Waterfall::of(&b));
        let pairs = align(&a, &b);
        let places: Vec<_> = pairs.iter().map(|pair| (pair.a, pair.b)).collect();
        // gateway; stock; user; mail; order; pay; the second user
        let wanted = [
            (Some(0), Some(0)),
            (None, Some(1)),
            (Some(1), Some(2)),
            (None, Some(3)),
            (Some(2), Some(4)),
            (None, Some(5)),
            (Some(3), None),
        ];
        assert_eq!(places, wanted);
    }

    #[test]
    fn lines_differ_as_little_as_they_can() {
        let found = lines("{\na\nb\nc\n}", "{\nb\nx\nc\n}");
        use Line::{Both, OnlyA, OnlyB};
        assert_eq!(found, [Both("{"), OnlyA("a"), Both("b"), OnlyB("x"), Both("c"), Both("}")]);
        assert_eq!(lines("", "a"), [OnlyB("a")]);
        assert!(lines("a\nb", "a\nb").iter().all(|line| matches!(line, Both(_))));
        let long = |text: &str| (0..5_000).map(|number| format!("{text}{number}\n")).collect::<String>();
        assert_eq!(lines(&long("a"), &long("b")).len(), 10_000);
    }
}
