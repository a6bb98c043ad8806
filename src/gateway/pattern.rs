//! Patterns of paths.
//!
//! ```text
//! /files/report.pdf     this path
//! /files/*              /files and all below it
//! /users/{id}/orders    one segment of any content
//! ```

use std::borrow::Cow;
use std::cmp::Ordering;

/// A part of a path between two slashes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Segment {
    Literal(String),
    /// Any, that is not empty; its name.
    Named(String),
}

/// Which paths are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathPattern {
    text: String,
    segments: Vec<Segment>,
    /// Ends with `/*`.
    open: bool,
}

/// What a pattern found in a path: the named segments, then what `*` stands for (empty, or with its leading slash).
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found<'p> {
    pub(super) named: Vec<&'p str>,
    pub(super) rest: &'p str,
}

impl PathPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(path) = text.strip_prefix('/') else {
            return Err(format!("must begin with `/`, got `{text}`"));
        };
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control() || "?#\\".contains(*c)) {
            return Err(format!("must be a path without `{}`, got `{text}`", bad.escape_default()));
        }
        let (path, open) = match path.strip_suffix('*') {
            Some("") => ("", true),
            Some(before) if before.ends_with('/') => (&before[..before.len() - 1], true),
            Some(_) => return Err(format!("`*` stands for whole segments; write `/*` at the end, got `{text}`")),
            None => (path, false),
        };
        let mut segments = Vec::new();
        if !(open && path.is_empty()) {
            for part in path.split('/') {
                let segment = Segment::parse(part, text)?;
                if let Segment::Named(name) = &segment
                    && segments.contains(&segment)
                {
                    return Err(format!("names `{{{name}}}` twice, got `{text}`"));
                }
                segments.push(segment);
            }
        }
        match normal(text) {
            Ok(normal) if normal == text || !text.contains('%') => {}
            Ok(normal) => return Err(format!("would never match; write `{normal}`")),
            Err(reason) => return Err(format!("would never match: it {reason}")),
        }
        Ok(Self { text: text.to_owned(), segments, open })
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is one path and no other.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        !self.open && self.segments.iter().all(|segment| matches!(segment, Segment::Literal(_)))
    }

    /// What it finds in a path, if that is meant.
    #[must_use]
    pub fn find<'p>(&self, path: &'p str) -> Option<Found<'p>> {
        let mut found = Found { named: Vec::new(), rest: path };
        for segment in &self.segments {
            let part = found.rest.strip_prefix('/')?;
            let end = part.find('/').unwrap_or(part.len());
            let (part, rest) = part.split_at(end);
            match segment {
                Segment::Literal(literal) if literal == part => {}
                Segment::Named(_) if !part.is_empty() => found.named.push(part),
                _ => return None,
            }
            found.rest = rest;
        }
        (self.open || found.rest.is_empty()).then_some(found)
    }

    /// Which of two patterns a path belongs to that both match: from the left, a literal goes before a name, and that
    /// before `*`.
    #[must_use]
    pub fn precedence(&self, other: &Self) -> Ordering {
        self.ranks().cmp(other.ranks())
    }

    fn ranks(&self) -> impl Iterator<Item = u8> + '_ {
        let rank = |segment: &Segment| u8::from(matches!(segment, Segment::Named(_)));
        self.segments.iter().map(rank).chain([if self.open { 2 } else { 0 }])
    }

    /// Whether both mean the same paths, however their segments are named.
    #[must_use]
    pub fn is_like(&self, other: &Self) -> bool {
        let alike = |(one, two): (&Segment, &Segment)| match (one, two) {
            (Segment::Literal(one), Segment::Literal(two)) => one == two,
            (Segment::Named(_), Segment::Named(_)) => true,
            _ => false,
        };
        self.open == other.open
            && self.segments.len() == other.segments.len()
            && self.segments.iter().zip(&other.segments).all(alike)
    }

    /// Whether it ends with `/*`.
    pub(super) fn is_open(&self) -> bool {
        self.open
    }

    /// The place of a named segment among the named ones.
    pub(super) fn place_of(&self, name: &str) -> Option<usize> {
        let mut names = self.segments.iter().filter_map(|segment| match segment {
            Segment::Named(name) => Some(name),
            Segment::Literal(_) => None,
        });
        names.position(|known| known == name)
    }
}

impl Segment {
    fn parse(part: &str, text: &str) -> Result<Self, String> {
        if let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) {
            let is_name = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
            return if is_name {
                Ok(Self::Named(name.to_owned()))
            } else {
                Err(format!("`{{{name}}}` is no name; use letters, digits and `_`, got `{text}`"))
            };
        }
        match part.chars().find(|c| "{}*".contains(*c)) {
            Some('*') => Err(format!("`*` may only stand at the end, as `/*`, got `{text}`")),
            Some(_) => Err(format!("a name in braces must be a whole segment, got `{text}`")),
            None => Ok(Self::Literal(part.to_owned())),
        }
    }
}

/// The path as it is compared and sent on: what needs no percent-encoding has none (RFC 3986 section 6.2.2), so that nobody
/// passes a rule by another spelling of the same path.
///
/// # Errors
/// What is wrong: a `.` or `..` segment, which a client must resolve itself; `%` without two hexadecimal digits.
pub(super) fn normal(path: &str) -> Result<Cow<'_, str>, &'static str> {
    let plain =
        if path.as_bytes().contains(&b'%') { Cow::Owned(decode_unreserved(path)?) } else { Cow::Borrowed(path) };
    // by bytes: a path is short, and a search for a text has much to set up
    let has_dots = plain.as_bytes().windows(2).any(|pair| pair == b"/.");
    if has_dots && plain.split('/').any(|segment| segment == "." || segment == "..") {
        return Err("has a `.` or `..` segment");
    }
    Ok(plain)
}

fn decode_unreserved(path: &str) -> Result<String, &'static str> {
    const BAD: &str = "has a `%` that is not followed by two hexadecimal digits";
    let mut plain = String::with_capacity(path.len());
    let mut left = path;
    while let Some(at) = left.find('%') {
        plain.push_str(&left[..at]);
        let digits = left.get(at + 1..at + 3).ok_or(BAD)?;
        let byte = u8::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+')).ok_or(BAD)?;
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => plain.push(char::from(byte)),
            0 => return Err("has a NUL (`%00`)"),
            _ => {
                plain.push('%');
                plain.extend(digits.chars().map(|digit| digit.to_ascii_uppercase()));
            }
        }
        left = &left[at + 3..];
    }
    plain.push_str(left);
    Ok(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(text: &str) -> PathPattern {
        PathPattern::parse(text).unwrap()
    }

    #[test]
    fn a_pattern_finds_what_it_means() {
        for (text, path, filled) in [
            ("/", "/", Some("")),
            ("/", "/a", None),
            ("/*", "/", Some("/")),
            ("/*", "/a/b", Some("/a/b")),
            ("/files/*", "/files", Some("")),
            ("/files/*", "/files/", Some("/")),
            ("/files/*", "/files/a/b.txt", Some("/a/b.txt")),
            ("/files/*", "/filesystem", None),
            ("/files/*", "/file", None),
            ("/users/{id}", "/users/7", Some("7")),
            ("/users/{id}", "/users/", None),
            ("/users/{id}", "/users/7/", None),
            ("/users/{id}/orders/{order}/*", "/users/7/orders/x%2Fy/z", Some("7x%2Fy/z")),
            ("/a//b", "/a//b", Some("")),
            ("/a/", "/a", None),
        ] {
            let pattern = pattern(text);
            let found = pattern.find(path).map(|found| found.named.concat() + found.rest);
            assert_eq!(found.as_deref(), filled, "{text} on {path}");
        }
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for (text, why) in [
            ("", "must begin with `/`"),
            ("files", "must begin with `/`"),
            ("/a*", "write `/*` at the end"),
            ("/*/a", "may only stand at the end"),
            ("/a{b}", "must be a whole segment"),
            ("/{}", "is no name"),
            ("/{a-b}", "is no name"),
            ("/{a}/{a}", "twice"),
            ("/a?b", "without `?`"),
            ("/a b", "without ` `"),
            ("/a/../b", "would never match: it has a `.` or `..`"),
            ("/%61", "write `/a`"),
            ("/%zz", "two hexadecimal digits"),
        ] {
            let error = PathPattern::parse(text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }

    #[test]
    fn from_the_left_a_literal_goes_before_a_name_and_that_before_a_star() {
        let mut sorted = ["/*", "/{a}/b", "/a/*", "/a/{b}", "/{a}/*", "/a/b", "/a/b/*"].map(pattern);
        sorted.sort_by(PathPattern::precedence);
        let texts: Vec<&str> = sorted.iter().map(PathPattern::as_str).collect();
        assert_eq!(texts, ["/a/b", "/a/b/*", "/a/{b}", "/a/*", "/{a}/b", "/{a}/*", "/*"]);
        assert!(pattern("/u/{id}").is_like(&pattern("/u/{name}")));
        assert!(!pattern("/u/{id}").is_like(&pattern("/u/{id}/*")));
        assert!(!pattern("/u/{id}").is_like(&pattern("/v/{id}")));
    }

    #[test]
    fn other_spellings_of_a_path_are_one_path() {
        assert!(matches!(normal("/a/b.c"), Ok(Cow::Borrowed("/a/b.c"))));
        for (path, plain) in [
            ("/%61dmin", Ok("/admin")),
            ("/a%2fb", Ok("/a%2Fb")),
            ("/%7Euser/%E4", Ok("/~user/%E4")),
            ("/a/..b/.c", Ok("/a/..b/.c")),
            ("/a/../b", Err("has a `.` or `..` segment")),
            ("/a/%2e%2E/b", Err("has a `.` or `..` segment")),
            ("/a/.", Err("has a `.` or `..` segment")),
            ("/a%", Err("has a `%` that is not followed by two hexadecimal digits")),
            ("/a%+1", Err("has a `%` that is not followed by two hexadecimal digits")),
            ("/a%ä", Err("has a `%` that is not followed by two hexadecimal digits")),
            ("/a%00", Err("has a NUL (`%00`)")),
        ] {
            assert_eq!(
                normal(path).as_deref().map_err(|why| *why),
                plain.as_ref().map(|plain| &**plain).map_err(|why| *why),
                "{path}"
            );
        }
    }
}
