//! An error with its causes, for a line of a log or an answer.

use std::error::Error;

/// The error and what is behind it in one line; causes that their effect already told are not repeated.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let told = inner.to_string();
        if !text.ends_with(&told) {
            text.push_str(": ");
            text.push_str(&told);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{said}")]
    struct Told {
        said: &'static str,
        #[source]
        cause: Option<Box<Told>>,
    }

    fn told(said: &'static str, cause: Option<Told>) -> Told {
        Told { said, cause: cause.map(Box::new) }
    }

    #[test]
    fn each_cause_is_told_once() {
        assert_eq!(chain(&told("no", None)), "no");
        let deep = told("cannot start", Some(told("cannot open: denied", Some(told("denied", None)))));
        assert_eq!(chain(&deep), "cannot start: cannot open: denied");
    }
}
