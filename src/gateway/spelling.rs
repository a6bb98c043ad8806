//! Paths that some services read otherwise than the gateway: they take `//`, `%2F`, `\` and `%5C` for one `/`, and `;x` at
//! the end of a segment for no part of it. A path that is such another's must not go round what that other one asks for.

use std::ptr;

use super::asked::Asked;
use super::respond::Failure;
use super::route::{Route, Routes};

impl Routes {
    /// Whether the route that was found may be the one, where others ask who calls.
    ///
    /// # Errors
    /// 400 for a path that can be read as one of a route to which not everybody may, or one with `..`.
    pub fn check_spelling(&self, asked: &Asked<'_>, route: &Route) -> Result<(), Failure> {
        if !self.is_guarded {
            return Ok(());
        }
        let Some(path) = loose(asked.path) else { return Ok(()) };
        let has_dots = path.split('/').any(|segment| segment == "." || segment == "..");
        let Asked { method, host, headers, query, .. } = *asked;
        let is_guarded = |other: &Route| other.keeper.as_ref().is_some_and(|keeper| keeper.is_guard());
        let other = self.find(&Asked { method, host, path: &path, headers, query });
        if has_dots || other.is_ok_and(|(other, _)| !ptr::eq(other, route) && is_guarded(other)) {
            let why = "the path can be read in two ways; write it without `//`, `;`, backslashes and encoded slashes";
            return Err(Failure::Ambiguous(why.to_owned()));
        }
        Ok(())
    }
}

/// A [`super::pattern::normal`] path as it can be read besides; `None`: the same.
fn loose(path: &str) -> Option<String> {
    if !path.contains("//") && !path.bytes().any(|byte| b"%\\;".contains(&byte)) {
        return None;
    }
    let plain = path.replace("%2F", "/").replace("%5C", "/").replace('\\', "/").replace("%3B", ";");
    let mut read = String::with_capacity(plain.len());
    for segment in plain.split('/').filter_map(|segment| segment.split(';').next()).filter(|name| !name.is_empty()) {
        read.push('/');
        read.push_str(segment);
    }
    if read.is_empty() || plain.ends_with('/') {
        read.push('/');
    }
    (read != path).then_some(read)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_read_as_loosely_as_services_do() {
        for (path, read) in [
            ("/a/b", None),
            ("/a/", None),
            ("/", None),
            ("/%C3%A4", None),
            ("//a", Some("/a")),
            ("/a//b//", Some("/a/b/")),
            ("/a%2Fb", Some("/a/b")),
            ("/a\\b%5Cc", Some("/a/b/c")),
            ("/a;x=1/b;", Some("/a/b")),
            ("/a/..;/b", Some("/a/../b")),
            ("/a/..%2Fb", Some("/a/../b")),
            ("/a%3Bx/", Some("/a/")),
            ("//", Some("/")),
        ] {
            assert_eq!(loose(path).as_deref(), read, "{path}");
        }
    }
}
