//! Texts with places for what the pattern of a path found.

use std::borrow::Cow;

use super::pattern::{Found, PathPattern};

/// Text with places for what a [`PathPattern`] found: `/v2/users/{id}/*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(String),
    /// The named segment at this place.
    Named(usize),
    Rest,
}

impl Template {
    /// Reads a template for what `pattern` finds. `/*` at its end stands for the rest of the path.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, pattern: &PathPattern) -> Result<Self, String> {
        if let Some(bad) = text.chars().find(|c| c.is_whitespace() || c.is_control()) {
            return Err(format!("must not contain `{}`, got `{text}`", bad.escape_default()));
        }
        let mut parts = Vec::new();
        let (mut left, open) = match text.strip_suffix("/*") {
            Some(left) => (left, true),
            None => (text, false),
        };
        if open && !pattern.is_open() {
            return Err(format!("ends with `/*`, but the path `{}` does not", pattern.as_str()));
        }
        while let Some(begin) = left.find('{') {
            let Some(end) = left[begin..].find('}') else {
                return Err(format!("has a `{{` without its `}}`, got `{text}`"));
            };
            let name = &left[begin + 1..begin + end];
            let Some(place) = pattern.place_of(name) else {
                return Err(format!("the path `{}` has no `{{{name}}}`", pattern.as_str()));
            };
            parts.extend([Part::Literal(left[..begin].to_owned()), Part::Named(place)]);
            left = &left[begin + end + 1..];
        }
        parts.push(Part::Literal(left.to_owned()));
        if open {
            parts.push(Part::Rest);
        }
        parts.retain(|part| *part != Part::Literal(String::new()));
        Ok(Self { text: text.to_owned(), parts })
    }

    /// The same text always, whatever it holds.
    #[must_use]
    pub fn fixed(text: &str) -> Self {
        Self { text: text.to_owned(), parts: vec![Part::Literal(text.to_owned())] }
    }

    /// As it was written.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The text with what was found.
    #[must_use]
    pub fn fill(&self, found: &Found<'_>) -> Cow<'_, str> {
        let part = |part: &'_ Part| -> String {
            match part {
                Part::Literal(text) => text.clone(),
                Part::Named(place) => found.named.get(*place).copied().unwrap_or_default().to_owned(),
                Part::Rest => found.rest.to_owned(),
            }
        };
        match self.parts.as_slice() {
            [Part::Literal(text)] => Cow::Borrowed(text),
            parts => Cow::Owned(parts.iter().map(part).collect()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_is_filled_with_what_was_found() {
        let pattern = PathPattern::parse("/users/{id}/{part}/*").unwrap();
        let fill = |template: &str, path: &str| {
            Template::parse(template, &pattern).unwrap().fill(&pattern.find(path).unwrap()).into_owned()
        };
        assert_eq!(fill("/v2/{part}/of/{id}/*", "/users/7/orders/9/x"), "/v2/orders/of/7/9/x");
        assert_eq!(fill("/fixed", "/users/7/orders"), "/fixed");
        assert_eq!(fill("/*", "/users/7/orders"), "");
        for (bad, why) in [("/{x}", "has no `{x}`"), ("/{id", "without its `}`"), ("/a b", "must not contain")] {
            let error = Template::parse(bad, &pattern).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
        let closed = PathPattern::parse("/a").unwrap();
        assert!(Template::parse("/b/*", &closed).unwrap_err().contains("but the path `/a` does not"));
    }
}
