//! A recorded request as it is sent again.

use super::curl::{LEFT_OUT, body_of};
use crate::reading::Shown;
use crate::trace::REDACTED;

/// What is sent; [`REDACTED`] still stands where it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Again {
    /// `POST`.
    pub method: String,
    /// The path and the query.
    pub target: String,
    /// Without those that belong to one connection or to the old request.
    pub headers: Vec<(String, String)>,
    /// The body as text, in the form in which it was sent where that is known.
    pub body: String,
    /// What is not as it was.
    pub notes: Vec<String>,
}

/// The request of an event.
#[must_use]
pub fn again(told: &Shown) -> Again {
    let request = &told.request;
    let mut notes = Vec::new();
    let body = body_of(told, &mut notes);
    let mut again = Again {
        method: request.method.clone(),
        target: format!("{}{}", request.url, request.url_param),
        ..Again::default()
    };
    let is_replaced = body.as_ref().is_some_and(|(mime, _)| mime.is_some());
    for (name, value) in &request.headers {
        let lower = name.to_ascii_lowercase();
        let is_left_out = LEFT_OUT.contains(&lower.as_str()) || (lower == "content-type" && is_replaced);
        if !is_left_out {
            again.headers.push((name.clone(), value.clone()));
        }
    }
    if let Some((mime, text)) = body {
        again.headers.extend(mime.map(|mime| ("Content-Type".to_owned(), mime.to_owned())));
        again.body = text;
    }
    again.notes = notes;
    again
}

/// Whether a part of a request still has to be filled in.
#[must_use]
pub fn is_redacted(text: &str) -> bool {
    text.contains(REDACTED) || text.to_ascii_lowercase().contains("%5bredacted%5d")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::ShownRequest;
    use serde_json::value::RawValue;

    #[test]
    fn what_belongs_to_the_old_request_is_left_out() {
        let headers = [
            ("Authorization", REDACTED),
            ("Content-Length", "9"),
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("X-Request-Id", "1"),
            ("X-Own", "a"),
        ];
        let told = Shown {
            request: ShownRequest {
                method: "POST".into(),
                url: "/login".into(),
                url_param: "?token=%5Bredacted%5D".into(),
                headers: headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
                body: RawValue::from_string("{\"a b\":\"1&2\"}".into()).ok(),
                ..ShownRequest::default()
            },
            ..Shown::default()
        };
        let sent = again(&told);
        let names: Vec<&str> = sent.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["Authorization", "Content-Type", "X-Own"]);
        assert_eq!((sent.target.as_str(), sent.body.as_str()), ("/login?token=%5Bredacted%5D", "a+b=1%262"));
        assert!(is_redacted(&sent.target) && is_redacted(&sent.headers[0].1) && !is_redacted(&sent.body));
    }
}
