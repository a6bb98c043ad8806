//! Walks a tree and collects every fault: the tools that `raw` reads the keys with.

use std::collections::HashMap;
use std::fmt::Display;

use super::fault::Fault;
use super::names::{shown, unknown};
use super::schema::{Record, Seen};
use super::units::parse_size;
use super::yaml::{Node, Value};

/// Where something was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) path: String,
}

/// A value with its place, for checks that look at several.
#[derive(Clone, Debug)]
pub(super) struct At<T> {
    pub(super) value: T,
    pub(super) place: Place,
}

/// A node with its place.
#[derive(Clone)]
pub(super) struct Field<'a> {
    node: &'a Node,
    pub(super) place: Place,
}

/// The keys of a mapping.
#[derive(Default)]
pub(super) struct Table<'a> {
    fields: Vec<(String, Field<'a>)>,
    /// The line on which each stands first.
    lines: HashMap<String, usize>,
}

/// Collects faults.
pub(super) struct Decoder {
    file: String,
    pub(super) faults: Vec<Fault>,
    /// What was looked for and where, if `schema` asks.
    pub(super) record: Option<Record>,
}

impl<'a> Table<'a> {
    /// What stands under a key; `None` when nothing does.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        self.fields.iter().find(|(name, field)| name == key && !field.node.is_null()).map(|(_, field)| field.clone())
    }

    /// Every key with what stands under it, in order.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Field<'a>)> {
        self.fields.iter().map(|(key, field)| (key.as_str(), field))
    }
}

impl<'a> Field<'a> {
    pub(super) fn root(node: &'a Node) -> Self {
        Self { node, place: Place { line: node.line, path: String::new() } }
    }

    pub(super) fn is_null(&self) -> bool {
        self.node.is_null()
    }

    pub(super) fn is_table(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    pub(super) fn is_scalar(&self) -> bool {
        matches!(self.node.value, Value::Scalar { .. })
    }
}

impl Decoder {
    pub(super) fn new(file: &str) -> Self {
        Self { file: file.to_owned(), faults: Vec::new(), record: None }
    }

    /// The file's folder; empty for the working folder.
    pub(super) fn folder(&self) -> std::path::PathBuf {
        std::path::Path::new(&self.file).parent().unwrap_or(std::path::Path::new("")).to_owned()
    }

    fn note(&mut self, place: &Place, note: impl FnOnce(&mut Seen)) {
        if let Some(record) = &mut self.record {
            note(record.entry(place.path.clone()).or_default());
        }
    }

    /// Notes a fault at a place of the file.
    pub(super) fn fault(&mut self, place: &Place, message: impl Display) {
        self.faults.push(Fault {
            file: Some(self.file.clone()),
            line: Some(place.line),
            path: place.path.clone(),
            message: one_line(&message),
        });
    }

    /// Notes a fault of a flag or variable.
    pub(super) fn flag_fault(&mut self, flag: &str, message: impl Display) {
        self.faults.push(Fault { file: None, line: None, path: flag.to_owned(), message: one_line(&message) });
    }

    /// A mapping with the known keys; at the top level of a file their case does not matter.
    pub(super) fn table<'a>(&mut self, field: &Field<'a>, known: &[&str]) -> Table<'a> {
        self.note(&field.place, |seen| seen.keys = Some(known.iter().map(|key| (*key).to_owned()).collect()));
        let top = field.place.path.is_empty();
        let mut table = Table::default();
        for (key, inner, line) in self.entries(field) {
            let found = known.iter().find(|name| **name == key || (top && name.eq_ignore_ascii_case(&key)));
            match found {
                Some(name) => self.add(&mut table, field, name, inner, line),
                None => {
                    let place = Place { line, path: field.place.path.clone() };
                    self.fault(&place, unknown("key", &key, known));
                }
            }
        }
        table
    }

    /// A mapping whose keys are names of the user's.
    pub(super) fn names<'a>(&mut self, field: &Field<'a>, check: fn(&str) -> Result<String, String>) -> Table<'a> {
        self.note(&field.place, |seen| seen.names = true);
        let mut table = Table::default();
        for (key, inner, line) in self.entries(field) {
            match check(&key) {
                Ok(name) => self.add(&mut table, field, &name, inner, line),
                Err(message) => self.fault(&Place { line, path: field.place.path.clone() }, message),
            }
        }
        table
    }

    fn entries<'a>(&mut self, field: &Field<'a>) -> Vec<(String, &'a Node, usize)> {
        match &field.node.value {
            Value::Map(map) => map.iter().map(|entry| (entry.key.clone(), &*entry.node, entry.line)).collect(),
            _ if field.is_null() => Vec::new(),
            _ => {
                let message = format!("must be a mapping (`key: value`), got {}", field.node.kind());
                self.fault(&field.place, message);
                Vec::new()
            }
        }
    }

    fn add<'a>(&mut self, table: &mut Table<'a>, outer: &Field<'a>, name: &str, node: &'a Node, line: usize) {
        let path = match outer.place.path.as_str() {
            "" => name.to_owned(),
            outer => format!("{outer}.{name}"),
        };
        let place = Place { line, path };
        match table.lines.get(name) {
            Some(first) => self.fault(&place, format!("stands here a second time; the first is on line {first}")),
            None => {
                table.lines.insert(name.to_owned(), line);
                table.fields.push((name.to_owned(), Field { node, place }));
            }
        }
    }

    /// A list, or one value alone.
    pub(super) fn list<'a>(&mut self, field: &Field<'a>) -> Vec<Field<'a>> {
        self.note(&field.place, |seen| seen.list = true);
        match &field.node.value {
            Value::List(list) => list
                .iter()
                .enumerate()
                .map(|(index, node)| {
                    let path = format!("{}[{index}]", field.place.path);
                    Field { node, place: Place { line: node.line, path } }
                })
                .collect(),
            Value::Scalar { .. } => vec![field.clone()],
            Value::Map(_) => {
                self.fault(&field.place, "must be a list (`[a, b]`) or a single value, got a mapping");
                Vec::new()
            }
        }
    }

    /// A single value, read with `parse`.
    pub(super) fn read<T>(&mut self, field: &Field<'_>, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        self.note(&field.place, |seen| seen.value = true);
        let Value::Scalar { text, .. } = &field.node.value else {
            let message = format!("must be a single value, got {}", field.node.kind());
            self.fault(&field.place, message);
            return None;
        };
        parse(text).map_err(|message| self.fault(&field.place, message)).ok()
    }

    /// As [`Decoder::read`], with the place.
    pub(super) fn read_at<T>(
        &mut self,
        field: &Field<'_>,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<At<T>> {
        self.read(field, parse).map(|value| At { value, place: field.place.clone() })
    }

    /// Text. Says nothing of what it found, since it may be a secret; a number or boolean without quotes is none, since
    /// other readers of the same file would change it (`007`).
    pub(super) fn text(&mut self, field: &Field<'_>) -> Option<String> {
        if let Value::Scalar { text, quoted: false } = &field.node.value {
            let kind = match text.as_str() {
                "true" | "false" => Some("a boolean"),
                _ if text.parse::<f64>().is_ok() && text.starts_with(|c: char| !c.is_alphabetic()) => Some("a number"),
                "" | "~" | "null" => Some("nothing"),
                _ => None,
            };
            if let Some(kind) = kind {
                self.note(&field.place, |seen| seen.value = true);
                self.fault(&field.place, format!("must be text, got {kind}; put it in quotes"));
                return None;
            }
        }
        self.read(field, |text| Ok(text.to_owned()))
    }

    /// Text that is not empty.
    pub(super) fn some_text(&mut self, field: &Field<'_>) -> Option<String> {
        let text = self.text(field)?;
        if text.is_empty() {
            self.fault(&field.place, "must not be empty");
            return None;
        }
        Some(text)
    }
}

/// A message quotes what the file said, which may be long and hold anything.
fn one_line(message: &impl Display) -> String {
    const LONGEST: usize = 400;
    let message = message.to_string();
    let mut line: String = message.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if message.chars().nth(LONGEST).is_some() {
        line.push('…');
    }
    line
}

/// `true` or `false`.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "True" | "TRUE" => Ok(true),
        "false" | "False" | "FALSE" => Ok(false),
        _ => Err(format!("must be `true` or `false`, got `{}`", shown(text))),
    }
}

/// A whole number in a range.
pub(super) fn number<T>(least: T, most: T) -> impl FnOnce(&str) -> Result<T, String>
where
    T: std::str::FromStr + PartialOrd + Display,
{
    move |text| match text.parse::<T>() {
        Ok(number) if number >= least && number <= most => Ok(number),
        _ => Err(format!("must be a number from {least} to {most}, got `{}`", shown(text))),
    }
}

/// A size within these bounds, both in bytes and included.
pub(super) fn size(least: u64, most: u64) -> impl FnOnce(&str) -> Result<u64, String> {
    move |text| match parse_size(text)? {
        bytes if bytes < least => Err(format!("must be at least `{least}` bytes, got `{text}`")),
        bytes if bytes > most => Err(format!("must be at most `{most}` bytes, got `{text}`")),
        bytes => Ok(bytes),
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(kind: &'static str, words: &'static [(&str, T)]) -> impl Fn(&str) -> Result<T, String> {
    move |text| match words.iter().find(|(word, _)| *word == text) {
        Some((_, value)) => Ok(*value),
        None => Err(unknown(kind, text, &words.iter().map(|(word, _)| *word).collect::<Vec<_>>())),
    }
}
