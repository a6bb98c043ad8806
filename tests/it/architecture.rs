//! Holds each room of `src/` to what its `mod.rs` says it may import.
//!
//! The rule is a line of a room's doc: ``May import: `registry`, `trace::context` (why), `metrics`.`` A path names a module
//! and all below it; a room may always use itself. A room that is one file needs the line only if it imports something.
//! No room imports `app` or `config`; `app` imports everything, and so does `config` (every room's settings), but not `app`.
//! Tests inside a room count as the room.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const ROOTS: [&str; 3] = ["lib.rs", "main.rs", "cli.rs"]; // the map and the command line see everything
const NO_NOUNS: [&str; 4] = ["utils", "common", "helpers", "types"];

/// A source file: its path below `src/` and its text.
type Source = (PathBuf, String);

#[test]
fn rooms_import_only_what_they_say() {
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), Path::new(""), &mut sources);
    assert!(sources.len() > 10, "found only {} files in src/", sources.len());
    let faults = faults(&sources);
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

fn collect(folder: &Path, below: &Path, sources: &mut Vec<Source>) {
    let mut entries: Vec<_> =
        std::fs::read_dir(folder).expect("src/ can be read").collect::<Result<_, _>>().expect("src/ can be read");
    entries.sort_by_key(std::fs::DirEntry::path);
    for entry in entries {
        let path = below.join(entry.file_name());
        if entry.path().is_dir() {
            collect(&entry.path(), &path, sources);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            sources.push((path, std::fs::read_to_string(entry.path()).expect("a source can be read")));
        }
    }
}

/// Every fault of these sources, as `src/file.rs:line: what`.
fn faults(sources: &[Source]) -> Vec<String> {
    let map = sources.iter().filter(|(path, _)| path == Path::new("lib.rs"));
    let rooms: BTreeSet<String> = map.flat_map(|(_, text)| modules(text)).collect();
    let mut faults = Vec::new();
    for room in &rooms {
        match rule_of(room, sources) {
            Err(fault) => faults.push(fault),
            Ok(rule) => {
                for (path, text) in sources.iter().filter(|(path, _)| room_of(path).as_ref() == Some(room)) {
                    faults.extend(faults_of_file(room, &rule, &rooms, path, text));
                }
            }
        }
    }
    for (path, text) in sources {
        let named = path.iter().map(|part| part.to_string_lossy().trim_end_matches(".rs").to_owned());
        let bad: Vec<String> = named.chain(modules(text)).filter(|name| NO_NOUNS.contains(&name.as_str())).collect();
        faults.extend(bad.iter().map(|name| format!("src/{}: `{name}` is not a noun of the field", path.display())));
    }
    faults
}

/// The modules that a text declares.
fn modules(text: &str) -> Vec<String> {
    let code = tokens(text);
    let declared = code.windows(2).filter_map(|pair| match (&pair[0].1, &pair[1].1) {
        (Token::Word(keyword), Token::Word(name)) if keyword == "mod" => Some(name.clone()),
        _ => None,
    });
    declared.collect()
}

/// The first folder, or the file itself where it stands directly in `src/`; `None` for the roots.
fn room_of(path: &Path) -> Option<String> {
    let first = path.iter().next()?.to_str()?;
    (!ROOTS.contains(&path.to_str()?)).then(|| first.trim_end_matches(".rs").to_owned())
}

/// What a room may import.
#[derive(Debug, PartialEq, Eq)]
enum Rule {
    Everything,
    Only(Vec<Vec<String>>),
}

fn rule_of(room: &str, sources: &[Source]) -> Result<Rule, String> {
    if matches!(room, "app" | "config") {
        return Ok(Rule::Everything);
    }
    let in_folder = PathBuf::from(room).join("mod.rs");
    let alone = PathBuf::from(format!("{room}.rs"));
    let text_of = |wanted: &Path| sources.iter().find(|(path, _)| path == wanted).map(|(_, text)| text);
    match (text_of(&in_folder), text_of(&alone)) {
        (Some(text), _) => parse_rule(text).ok_or_else(|| {
            format!("src/{room}/mod.rs: no line ``//! May import: `a`, `b`.``; say `nothing` if that is so")
        }),
        (None, Some(text)) => Ok(parse_rule(text).unwrap_or(Rule::Only(Vec::new()))),
        (None, None) => Err(format!("src/{room}: has no mod.rs")),
    }
}

/// The backticked names between `May import:` and the end of the sentence, without what stands in parentheses.
fn parse_rule(text: &str) -> Option<Rule> {
    let doc: Vec<&str> = text.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
    let first = doc.iter().position(|line| line.starts_with("May import:"))?;
    let paragraph = doc[first..].iter().take_while(|line| !line.is_empty()).copied().collect::<Vec<_>>().join(" ");
    let mut names = Vec::new();
    let (mut name, mut quoted, mut depth) = (String::new(), false, 0_usize);
    for character in paragraph["May import:".len()..].chars() {
        match character {
            '`' if quoted => {
                let path = std::mem::take(&mut name);
                if depth == 0 {
                    names.push(path.trim_start_matches("crate::").split("::").map(str::to_owned).collect());
                }
                quoted = false;
            }
            '`' => quoted = true,
            _ if quoted => name.push(character),
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            '.' | ';' if depth == 0 => break,
            _ => {}
        }
    }
    Some(Rule::Only(names))
}

fn faults_of_file(room: &str, rule: &Rule, rooms: &BTreeSet<String>, path: &Path, text: &str) -> Vec<String> {
    let mut faults = Vec::new();
    for (line, used) in crate_paths(text, depth_of(path)) {
        let first = used.first().map_or("", String::as_str);
        let name = used.join("::");
        let allowed = match rule {
            _ if first == room => true,
            _ if first == "app" || (first == "config" && !matches!(room, "app" | "cli")) => false,
            Rule::Everything => true,
            Rule::Only(paths) => paths.iter().any(|path| used.starts_with(path)),
        };
        if !allowed {
            let why = match rooms.contains(first) {
                true => format!("room `{room}` may not import `{name}`"),
                false => format!("`{name}` is no room: name the room it comes from"),
            };
            faults.push(format!("src/{}:{line}: {why}", path.display()));
        }
    }
    faults
}

/// How deep a file's module is: 1 for `room/mod.rs` and `room.rs`, 2 for `room/file.rs`.
fn depth_of(path: &Path) -> usize {
    let parts = path.iter().count();
    if parts > 1 && path.ends_with("mod.rs") { parts - 1 } else { parts }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Colons,
    Other(char),
}

/// The code without comments, strings and characters, each token with its line.
fn tokens(text: &str) -> Vec<(usize, Token)> {
    let bytes = text.as_bytes();
    let mut found = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &text[at..];
        let first = rest.chars().next().unwrap_or(' ');
        let length = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = literal(rest) {
            length
        } else if first.is_alphabetic() || first == '_' {
            let length = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
            found.push((line, Token::Word(rest[..length].to_owned())));
            length
        } else if first.is_ascii_digit() {
            rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            found.push((line, Token::Colons));
            2
        } else {
            if !first.is_whitespace() {
                found.push((line, Token::Other(first)));
            }
            first.len_utf8()
        };
        line += bytes[at..at + length].iter().filter(|byte| **byte == b'\n').count();
        at += length;
    }
    found
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    rest.len()
}

/// The length of a string or character literal that `rest` begins with; a lifetime is none.
fn literal(rest: &str) -> Option<usize> {
    let raw = ["r", "br", "cr"].iter().find_map(|prefix| {
        let after = rest.strip_prefix(prefix)?;
        let hashes = after.len() - after.trim_start_matches('#').len();
        after[hashes..].starts_with('"').then_some((prefix.len() + hashes + 1, hashes))
    });
    if let Some((start, hashes)) = raw {
        let end = format!("\"{}", "#".repeat(hashes));
        return Some(rest[start..].find(&end).map_or(rest.len(), |at| start + at + end.len()));
    }
    let start = ["\"", "b\"", "c\""].iter().find(|prefix| rest.starts_with(**prefix)).map(|prefix| prefix.len());
    let (start, quote) = match start {
        Some(start) => (start, '"'),
        None => {
            let start = if rest.starts_with("b'") { 2 } else { 1 };
            let mut inside = rest.strip_prefix('\'').or_else(|| rest.strip_prefix("b'"))?.chars();
            let (first, second) = (inside.next()?, inside.next()?);
            if first != '\\' && second != '\'' {
                return None;
            }
            (start, '\'')
        }
    };
    let mut escaped = false;
    for (at, character) in rest[start..].char_indices() {
        match character {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if character == quote => return Some(start + at + 1),
            _ => {}
        }
    }
    Some(rest.len())
}

/// Every path from the crate's root that the text uses, with its line: `crate::a::{b, c::d}` gives `a::b` and `a::c::d`,
/// and so does a chain of `super` that leaves the room. `depth` is that of the file's own module.
fn crate_paths(text: &str, depth: usize) -> Vec<(usize, Vec<String>)> {
    let tokens = tokens(text);
    let word = |at: usize, wanted: &str| matches!(tokens.get(at), Some((_, Token::Word(word))) if word == wanted);
    let other = |at: usize, wanted: char| matches!(tokens.get(at), Some((_, Token::Other(found))) if *found == wanted);
    let mut found = Vec::new();
    let mut braces = Vec::new(); // whether each open one is of a module
    let mut at = 0;
    while at < tokens.len() {
        if other(at, '{') {
            braces.push(at >= 2 && word(at - 2, "mod"));
        } else if other(at, '}') {
            braces.pop();
        } else if word(at, "crate") && colons(&tokens, at + 1) && (at == 0 || !colons(&tokens, at - 1)) {
            at = tree(&tokens, at + 2, &[], &mut found);
            continue;
        } else if word(at, "super") && (at == 0 || !colons(&tokens, at - 1)) {
            let from = at;
            let mut left = depth + braces.iter().filter(|module| **module).count();
            while word(at, "super") && colons(&tokens, at + 1) {
                (left, at) = (left.saturating_sub(1), at + 2);
            }
            if left == 0 {
                at = tree(&tokens, at, &[], &mut found);
            }
            if at > from {
                continue;
            }
        }
        at += 1;
    }
    found
}

fn colons(tokens: &[(usize, Token)], at: usize) -> bool {
    matches!(tokens.get(at), Some((_, Token::Colons)))
}

/// Reads one use tree or path that begins at `at`; returns where it ends.
fn tree(tokens: &[(usize, Token)], mut at: usize, prefix: &[String], found: &mut Vec<(usize, Vec<String>)>) -> usize {
    let mut path = prefix.to_vec();
    let line = tokens.get(at).map_or(0, |token| token.0);
    loop {
        match tokens.get(at).map(|token| &token.1) {
            Some(Token::Word(name)) => {
                if name != "self" {
                    path.push(name.clone());
                }
                at += 1;
            }
            Some(Token::Other('{')) => {
                at += 1;
                while let Some((_, token)) = tokens.get(at) {
                    match token {
                        Token::Other('}') => return at + 1,
                        Token::Other(',') => at += 1,
                        Token::Word(keyword) if keyword == "as" => at += 2, // a new name, not a path
                        Token::Word(_) | Token::Other('{') => at = tree(tokens, at, &path, found),
                        _ => at += 1,
                    }
                }
                return at;
            }
            _ => break, // `*`: all of `path`
        }
        if !colons(tokens, at) {
            break;
        }
        at += 1;
    }
    found.push((line, path));
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(files: &[(&str, &str)]) -> Vec<Source> {
        files.iter().map(|(path, text)| (PathBuf::from(path), (*text).to_owned())).collect()
    }

    /// The faults of `room/file.rs` with this text, where `room` may import `registry` and `trace::context`.
    fn faults_of(text: &str) -> Vec<String> {
        let rule = "//! A room.\n//!\n//! May import: `registry` (who is\n//! where, not `config`), `trace::context`. Not `store`.\n";
        faults(&sources(&[
            ("lib.rs", "pub mod room; mod registry; mod trace; mod store; mod config; mod app; mod metrics;"),
            ("room/mod.rs", rule),
            ("room/file.rs", text),
            ("registry/mod.rs", "//! May import: nothing."),
            ("trace/mod.rs", "//! May import: nothing."),
            ("store/mod.rs", "//! May import: nothing."),
            ("config/mod.rs", "use crate::room::Settings;\nuse crate::store::Settings as S;"),
            ("app/mod.rs", "use crate::config::Config;"),
            ("metrics.rs", ""),
        ]))
    }

    #[test]
    fn what_is_allowed_passes() {
        for text in [
            "use crate::registry::Node;",
            "use crate::{registry::{self, Node as N}, trace::context::{Context, Id}};",
            "use crate::room::other; use super::Thing; use super::other::{self};",
            "mod tests { use super::super::Thing; fn f() { let x = crate::trace::context::new(); } }",
            "// use crate::store::A;\n/* crate::store /* nested */ crate::store */ const A: &str = \"crate::store::A\";",
            "const A: &str = r#\"crate::store\"#; fn f<'a>(x: &'a str) -> char { '\"' } const B: char = '\\'';",
            "pub(crate) fn f() {} pub(in crate::room) fn g() {} pub(super) fn h() {} pub(in super::super) fn i() {}",
            "use other::crate_store; use tokio::store::registry;",
        ] {
            assert_eq!(faults_of(text), [""; 0], "{text}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_found_with_its_line() {
        for (text, fault) in [
            ("\nuse crate::store::A;", "src/room/file.rs:2: room `room` may not import `store::A`"),
            ("use crate::{registry::Node, store::A};", "src/room/file.rs:1: room `room` may not import `store::A`"),
            ("use crate::trace::Recorder;", "src/room/file.rs:1: room `room` may not import `trace::Recorder`"),
            ("use crate::trace::{self, context};", "src/room/file.rs:1: room `room` may not import `trace`"),
            ("use crate::trace::*;", "src/room/file.rs:1: room `room` may not import `trace`"),
            ("use crate::trace;", "src/room/file.rs:1: room `room` may not import `trace`"),
            ("fn f() { crate::store::open(); }", "src/room/file.rs:1: room `room` may not import `store::open`"),
            ("fn f() { m!(x, crate::store::open()); }", "src/room/file.rs:1: room `room` may not import `store::open`"),
            ("use crate::config::Config;", "src/room/file.rs:1: room `room` may not import `config::Config`"),
            ("use crate::app::up;", "src/room/file.rs:1: room `room` may not import `app::up`"),
            ("use super::super::store::A;", "src/room/file.rs:1: room `room` may not import `store::A`"),
            ("mod t { use super::super::super::store; }", "src/room/file.rs:1: room `room` may not import `store`"),
            ("#[cfg(test)] mod t {\nuse crate::store; }", "src/room/file.rs:2: room `room` may not import `store`"),
            ("use crate::Thing;", "src/room/file.rs:1: `Thing` is no room: name the room it comes from"),
            ("mod helpers {}", "src/room/file.rs: `helpers` is not a noun of the field"),
        ] {
            assert_eq!(faults_of(text), [fault], "{text}");
        }
    }

    #[test]
    fn a_room_without_the_line_is_a_fault_and_a_lone_file_without_it_may_import_nothing() {
        let found = faults(&sources(&[
            ("lib.rs", "mod a; mod b;"),
            ("a/mod.rs", "//! Says nothing."),
            ("b.rs", "use crate::a;"),
            ("common/mod.rs", ""),
        ]));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found[0].starts_with("src/a/mod.rs: no line"), "{found:?}");
        assert_eq!(found[1], "src/b.rs:1: room `b` may not import `a`");
        assert_eq!(found[2], "src/common/mod.rs: `common` is not a noun of the field");
    }

    #[test]
    fn config_sees_every_room_but_app() {
        let found = faults(&sources(&[("lib.rs", "mod config; mod app;"), ("config/mod.rs", "use crate::app::up;")]));
        assert_eq!(found, ["src/config/mod.rs:1: room `config` may not import `app::up`"]);
    }
}
