//! YAML as a tree that knows its lines.
//!
//! Bounded whatever the bytes: at most [`MAX_DEPTH`] levels and [`MAX_NODES`] values, counted after aliases are followed,
//! so a small file cannot stand for a huge one. Nothing here recurses.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, ScanError, Tag};

/// A config is some five levels deep.
const MAX_DEPTH: usize = 64;
/// A config of 10,000 actions has some 50,000 values.
const MAX_NODES: usize = 200_000;

/// A value and where it begins.
#[derive(Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    pub(super) value: Value,
    size: usize,
    depth: usize,
}

#[derive(Debug)]
pub(super) enum Value {
    /// Also numbers, booleans and null: what it means is for the reader to say.
    Scalar {
        text: String,
        quoted: bool,
    },
    List(Vec<Rc<Node>>),
    /// In order; the same key may stand twice.
    Map(Vec<Entry>),
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: String,
    pub(super) line: usize,
    pub(super) node: Rc<Node>,
}

/// Why there is no tree.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) line: usize,
    pub(super) message: String,
}

impl Node {
    /// Nothing was written, or `~` or `null`.
    pub(super) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar { text, quoted: false } if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// What it is, for messages.
    pub(super) fn kind(&self) -> &'static str {
        match &self.value {
            _ if self.is_null() => "nothing",
            Value::Scalar { .. } => "a single value",
            Value::List(_) => "a list",
            Value::Map(_) => "a mapping",
        }
    }
}

/// Reads a file's text; a file without any value is a null.
pub(super) fn parse(text: &str) -> Result<Rc<Node>, Problem> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    // What is missing at the end of the text is missing on its last line, not after it.
    let last = text.lines().count().max(1);
    let problem = |line: usize, message| Problem { line: line.clamp(1, last), message };
    let mut builder = Builder::default();
    let mut parser = Parser::new_from_str(text);
    while let Some(event) = parser.next_event() {
        let (event, span) =
            event.map_err(|error| problem(error_line(text, &error), format!("no YAML: {}", error.info())))?;
        let end = event == Event::StreamEnd;
        let line = span.start.line();
        builder.take(event, line).map_err(|message| problem(line, message))?;
        if end {
            break;
        }
    }
    Ok(builder.root.unwrap_or_else(|| scalar(1, String::new(), false)))
}

/// The parser's line; of a tab in an indentation, which it tells at the start of the value before, the tab's.
fn error_line(text: &str, error: &ScanError) -> usize {
    let line = error.marker().line();
    let indented = |text: &str| text[..text.len() - text.trim_start().len()].contains('\t');
    let tab = || text.lines().enumerate().skip(line.saturating_sub(1)).find(|(_, text)| indented(text));
    match error.info().contains("found a tab").then(tab).flatten() {
        Some((index, _)) => index + 1,
        None => line,
    }
}

#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, Rc<Node>>,
    root: Option<Rc<Node>>,
    nodes: usize,
}

/// A list or mapping that has begun.
struct Open {
    line: usize,
    anchor: usize,
    kind: OpenKind,
}

enum OpenKind {
    List(Vec<Rc<Node>>),
    Map(Vec<Entry>, Option<(String, usize)>),
}

impl Builder {
    fn take(&mut self, event: Event<'_>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let quoted = style != ScalarStyle::Plain || check_tag(tag.as_deref())?;
                self.close(anchor, scalar(line, text.into_owned(), quoted))
            }
            Event::Alias(anchor) => {
                let node = self.anchors.get(&anchor).cloned().ok_or("an alias must not stand inside what it names")?;
                self.count(node.size)?;
                self.place(node)
            }
            Event::SequenceStart(anchor, tag) => self.begin(line, anchor, tag.as_deref(), OpenKind::List(Vec::new())),
            Event::MappingStart(anchor, tag) => {
                self.begin(line, anchor, tag.as_deref(), OpenKind::Map(Vec::new(), None))
            }
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(open) => {
                    let (value, children) = match open.kind {
                        OpenKind::List(list) => (Value::List(list.clone()), list),
                        OpenKind::Map(map, _) => {
                            let children = map.iter().map(|entry| Rc::clone(&entry.node)).collect();
                            (Value::Map(map), children)
                        }
                    };
                    let size = children.iter().map(|node| node.size).sum::<usize>() + 1;
                    let depth = children.iter().map(|node| node.depth).max().unwrap_or(0) + 1;
                    self.close(open.anchor, Rc::new(Node { line: open.line, value, size, depth }))
                }
                None => Err("no YAML: something ends that never began".to_owned()),
            },
            Event::DocumentStart(_) if self.root.is_some() => {
                Err("a config is one YAML document; a second one begins here (`---`)".to_owned())
            }
            _ => Ok(()),
        }
    }

    fn begin(&mut self, line: usize, anchor: usize, tag: Option<&Tag>, kind: OpenKind) -> Result<(), String> {
        check_tag(tag)?;
        if self.open.len() >= MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels deep"));
        }
        self.open.push(Open { line, anchor, kind });
        Ok(())
    }

    fn close(&mut self, anchor: usize, node: Rc<Node>) -> Result<(), String> {
        if anchor != 0 {
            self.anchors.insert(anchor, Rc::clone(&node));
        }
        self.count(1)?;
        self.place(node)
    }

    fn count(&mut self, nodes: usize) -> Result<(), String> {
        self.nodes = self.nodes.saturating_add(nodes);
        if self.nodes > MAX_NODES {
            Err(format!("more than {MAX_NODES} values, with aliases followed"))
        } else {
            Ok(())
        }
    }

    fn place(&mut self, node: Rc<Node>) -> Result<(), String> {
        if self.open.len() + node.depth > MAX_DEPTH {
            return Err(format!("more than {MAX_DEPTH} levels deep"));
        }
        match self.open.last_mut().map(|open| &mut open.kind) {
            None => self.root = Some(node),
            Some(OpenKind::List(list)) => list.push(node),
            Some(OpenKind::Map(map, waiting)) => match waiting.take() {
                Some((key, line)) => map.push(Entry { key, line, node }),
                None => match &node.value {
                    Value::Scalar { text, .. } => *waiting = Some((text.clone(), node.line)),
                    _ => return Err(format!("a key must be a single value, got {}", node.kind())),
                },
            },
        }
        Ok(())
    }
}

fn scalar(line: usize, text: String, quoted: bool) -> Rc<Node> {
    Rc::new(Node { line, value: Value::Scalar { text, quoted }, size: 1, depth: 0 })
}

/// Whether the tag makes a text of what follows; other tags mean nothing in a config.
fn check_tag(tag: Option<&Tag>) -> Result<bool, String> {
    match tag {
        None => Ok(false),
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix == "str" => Ok(true),
        Some(tag) if tag.is_yaml_core_schema() => Ok(false),
        Some(tag) => Err(format!("unknown tag `{tag}`; leave it out")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line_of(text: &str) -> usize {
        parse(text).expect_err(&text.chars().take(60).collect::<String>()).line
    }

    #[test]
    fn a_tree_knows_its_lines() {
        let root = parse("# comment\na: 1\nb:\n  - x\n  - {c: &d [y], e: *d}\n").expect("good YAML");
        let Value::Map(map) = &root.value else { panic!("{root:?}") };
        assert_eq!(map.iter().map(|entry| (entry.key.as_str(), entry.line)).collect::<Vec<_>>(), [("a", 2), ("b", 3)]);
        let Value::List(list) = &map[1].node.value else { panic!("{root:?}") };
        assert_eq!(list.iter().map(|node| node.line).collect::<Vec<_>>(), [4, 5]);
        let Value::Map(inner) = &list[1].value else { panic!("{root:?}") };
        assert!(Rc::ptr_eq(&inner[0].node, &inner[1].node));
        assert!(parse("").expect("empty").is_null());
        assert!(parse("\u{feff}# only a comment").expect("empty").is_null());
    }

    #[test]
    fn what_is_no_tree_names_its_line() {
        assert_eq!(line_of("a: 1\nb: [1, 2\nc: 3\n"), 3);
        assert_eq!(line_of("a: 1\n\tb: 2\n"), 2);
        assert_eq!(line_of("a: 1\n---\nb: 2\n"), 2);
        assert_eq!(line_of("a: 1\n? [x]\n: 2\n"), 2);
        assert_eq!(line_of("a: *nobody\n"), 1);
        assert_eq!(line_of("a: &a [*a]\n"), 1);
        assert_eq!(line_of("a: 1\nb: !mine 2\n"), 2);
    }

    #[test]
    fn bombs_are_refused() {
        assert!(parse(&"[".repeat(100_000)).is_err());
        assert!(parse(&"a: {".repeat(100_000)).is_err());
        assert!(parse(&"- ".repeat(50_000)).is_err());
        let mut bomb = "a0: &a0 [x]\n".to_owned();
        for level in 1..60 {
            bomb += &format!("a{level}: &a{level} [*a{0},*a{0}]\n", level - 1);
        }
        assert!(parse(&bomb).expect_err("a bomb").message.contains("values"));
        let mut deep = "a0: &a0 [x]\n".to_owned();
        for level in 1..100 {
            deep += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
        }
        assert!(parse(&deep).expect_err("deep").message.contains("deep"));
    }
}
