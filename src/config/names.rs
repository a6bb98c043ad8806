//! Words and names: which there are, and the nearest one to what was written.

use crate::balance::Selector;
use crate::gateway::micro::{HANDLERS, Handler};
use crate::registry::Format;

/// ``unknown kind `wrod`; did you mean `word`?``, or the list where nothing is near.
pub(super) fn unknown(kind: &str, word: &str, known: &[&str]) -> String {
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("unknown {kind} `{}`; did you mean `{near}`?", shown(word)),
        None => format!("unknown {kind} `{}`; known: {}", shown(word), list(known)),
    }
}

/// A value for a message: on one line, and not without end.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    let mut shown: String = text.chars().take(LONGEST).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(LONGEST).is_some() {
        shown.push('…');
    }
    shown
}

/// `` `a`, `b`, `c` ``
pub(super) fn list(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}

/// The known word that `word` was probably meant to be.
pub(super) fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    /// Below this, clap also finds words unlike.
    const ALIKE: f64 = 0.7;
    let plain = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let word = plain(&word.chars().take(64).collect::<String>());
    known
        .map(|candidate| (strsim::jaro_winkler(&word, &plain(candidate)), candidate))
        .filter(|(likeness, _)| *likeness > ALIKE)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| candidate)
}

/// The words of [`Selector`].
pub(super) const SELECTORS: [(&str, Selector); 5] = [
    ("round-robin", Selector::RoundRobin),
    ("random", Selector::Random),
    ("least-conn", Selector::LeastConn),
    ("p2c", Selector::P2c),
    ("source-hash", Selector::SourceHash),
];

/// Reads a selector's word.
pub(super) fn selector(text: &str) -> Result<Selector, String> {
    let found = SELECTORS.iter().find(|(word, _)| *word == text);
    found.map(|(_, selector)| *selector).ok_or_else(|| unknown("selector", text, &SELECTORS.map(|(word, _)| word)))
}

/// As [`selector`]; `cache`, which is Go Micro's, keeps the default: the catalog is always cached.
pub(super) fn selector_flag(text: &str) -> Result<Selector, String> {
    if text == "cache" { Ok(Selector::default()) } else { selector(text) }
}

/// The words of [`Format`].
pub(super) const FORMATS: [(&str, Format); 2] = [("goms", Format::Goms), ("go-micro", Format::GoMicro)];

/// Reads the word of a registry's format.
pub(super) fn registry_format(text: &str) -> Result<Format, String> {
    let found = FORMATS.iter().find(|(word, _)| *word == text);
    found.map(|(_, format)| *format).ok_or_else(|| unknown("format", text, &FORMATS.map(|(word, _)| word)))
}

/// Reads the word of a handler of Go Micro's gateway.
pub(super) fn handler(text: &str) -> Result<Handler, String> {
    Handler::named(text).ok_or_else(|| unknown("handler", text, &HANDLERS.map(|(word, _)| word)))
}

/// A namespace stands before the first `_` of a node's key and names a folder.
pub(super) fn namespace(text: &str) -> Result<String, String> {
    plain_name("namespace", text, &['-'])
}

/// One of Go Micro's services has dots: `go.micro.api`.
pub(super) fn micro_namespace(text: &str) -> Result<String, String> {
    plain_name("namespace", text, &['-', '.'])
}

/// A service's name stands between two `_` of a node's key, in URLs and in file names. The originals' metadata key has a
/// `/` after it.
pub fn service_name(text: &str) -> Result<String, String> {
    plain_name("service name", text, &['-', '.'])
}

/// An action's name is one segment of a URL.
pub(super) fn action_name(text: &str) -> Result<String, String> {
    plain_name("action name", text, &['-', '_', '.'])
}

fn plain_name(kind: &str, text: &str, also: &[char]) -> Result<String, String> {
    /// A file name's limit is 255 bytes, and a node's key holds two addresses besides.
    const LONGEST: usize = 100;
    if text.is_empty() {
        return Err(format!("a {kind} must not be empty"));
    }
    if text.len() > LONGEST {
        return Err(format!("a {kind} has at most {LONGEST} bytes, this one has {}", text.len()));
    }
    if !text.starts_with(|c: char| c.is_alphanumeric()) {
        return Err(format!("{kind} `{}` must begin with a letter or digit", shown(text)));
    }
    match text.chars().find(|c| !c.is_alphanumeric() && !also.contains(c)) {
        Some(bad) => {
            let also = also.iter().map(|c| format!(", `{c}`")).collect::<String>();
            Err(format!("{kind} `{}` must not contain `{bad}`; use letters, digits{also}", shown(text)))
        }
        None => Ok(text.to_owned()),
    }
}
