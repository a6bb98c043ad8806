//! Paths of `micro api`: which service is meant, and which of its methods.
//!
//! ```text
//! /foo               foo      Foo.Call          /v1/foo/bar        v1.foo   Foo.Bar
//! /foo/bar           foo      Foo.Bar           /v1/foo/bar/baz    v1.foo   Bar.Baz
//! /foo/bar/baz       foo      Bar.Baz           /foo/bar/baz/cat   foo.bar  Baz.Cat
//! ```

/// The longest path that is looked at; no service has such a name.
const MOST_SEGMENTS: usize = 16;

/// What a path means, without the namespace: `None` for none at all.
pub(super) fn method(path: &str) -> Option<(String, String)> {
    let segments = segments(path)?;
    let capital = |text: &str| {
        let mut letters = text.chars();
        letters.next().map(|first| first.to_uppercase().chain(letters).collect::<String>()).unwrap_or_default()
    };
    let endpoint = |of: &str, called: &str| format!("{}.{}", capital(of), words(called, capital));
    Some(match segments.as_slice() {
        [service] => ((*service).to_owned(), endpoint(service, "call")),
        [version, service, method] if is_version(version) => {
            (format!("{version}.{service}"), endpoint(service, method))
        }
        [service, method] => ((*service).to_owned(), endpoint(service, method)),
        [service, of, method] => ((*service).to_owned(), endpoint(of, method)),
        [service @ .., of, method] => (service.join("."), endpoint(of, method)),
        [] => return None,
    })
}

/// `read-all` is `ReadAll`.
fn words(text: &str, capital: impl Fn(&str) -> String) -> String {
    text.split('-').map(capital).collect()
}

/// What a path publishes below a namespace: the topic, and the event's name.
///
/// ```text
/// /foo/bar.baz   foo      bar.baz        /v1/foo/bar   v1.foo   foo.bar        /foo   foo   (empty)
/// ```
pub(super) fn topic(path: &str) -> Option<(String, String)> {
    let segments = segments(path)?;
    match segments.as_slice() {
        [] => None,
        [version, topic, ..] if is_version(version) => Some((format!("{version}.{topic}"), segments[1..].join("."))),
        [topic, rest @ ..] => Some(((*topic).to_owned(), rest.join("."))),
    }
}

/// The service whose own paths these are: the first segment, with the version before it.
pub(super) fn service(path: &str) -> Option<String> {
    let segments = segments(path)?;
    match segments.as_slice() {
        [version, service, ..] if is_version(version) => Some(format!("{version}.{service}")),
        [service, ..] => Some((*service).to_owned()),
        [] => None,
    }
}

/// `v1`, `v25`.
fn is_version(segment: &str) -> bool {
    segment.strip_prefix('v').is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

fn segments(path: &str) -> Option<Vec<&str>> {
    let found: Vec<&str> = path.split('/').filter(|segment| !segment.is_empty()).take(MOST_SEGMENTS + 1).collect();
    (found.len() <= MOST_SEGMENTS).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_a_service_and_a_method() {
        for (path, service, endpoint) in [
            ("/foo", "foo", "Foo.Call"),
            ("/foo/", "foo", "Foo.Call"),
            ("/foo/bar", "foo", "Foo.Bar"),
            ("/foo/bar/baz", "foo", "Bar.Baz"),
            ("/foo/bar/baz/cat", "foo.bar", "Baz.Cat"),
            ("/v1/foo/bar", "v1.foo", "Foo.Bar"),
            ("/v1/foo/bar/baz", "v1.foo", "Bar.Baz"),
            ("/greeter/say/hello", "greeter", "Say.Hello"),
            ("/greeter/say/hello-all", "greeter", "Say.HelloAll"),
            ("/vx/foo", "vx", "Vx.Foo"),
        ] {
            assert_eq!(method(path), Some((service.to_owned(), endpoint.to_owned())), "{path}");
        }
        assert_eq!(method("/"), None);
        assert_eq!(method(&"/a".repeat(17)), None);
    }

    #[test]
    fn a_path_is_a_topic_and_an_event() {
        for (path, of, name) in
            [("/a/b.c", "a", "b.c"), ("/a/b/c", "a", "b.c"), ("/a", "a", ""), ("/v1/foo/bar", "v1.foo", "foo.bar")]
        {
            assert_eq!(topic(path), Some((of.to_owned(), name.to_owned())), "{path}");
        }
        assert_eq!(topic("/"), None);
    }

    #[test]
    fn a_service_is_the_first_segment_of_its_own_paths() {
        for (path, expected) in [("/foo", "foo"), ("/foo/bar/baz", "foo"), ("/v2/foo/x", "v2.foo"), ("/v2", "v2")] {
            assert_eq!(service(path).as_deref(), Some(expected), "{path}");
        }
        assert_eq!(service("/"), None);
    }
}
