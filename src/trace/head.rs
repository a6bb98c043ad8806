//! What an event shows of a request's head, in one piece of memory: it is made by the thread of the request and freed by
//! that of the spool, which costs the allocator more than the copying, and most with many small pieces.

use std::fmt::{Display, Write};
use std::ops::Range;
use std::sync::OnceLock;

/// Room for a header's name and value; a longer one lets the text grow.
const USUAL_HEADER_BYTES: usize = 48;

/// Method, URL, client and headers of a request.
#[derive(Clone, Debug, Default)]
pub struct Head {
    /// All of it, one behind the other.
    text: String,
    /// Where the method, the URL, its query and the client end.
    ends: [usize; 4],
    /// Where the name and the value of each header end.
    headers: Vec<[usize; 2]>,
    /// Where its JSON stands, once an event was written.
    pub(super) written: Written,
}

/// The part of a batch that shows a request.
#[derive(Clone, Debug)]
pub(super) struct Place {
    /// The batch's number.
    pub batch: u64,
    /// Its bytes.
    pub bytes: Range<usize>,
}

/// Told once: when the batch of a request's first event is long gone, its last event is written anew.
#[derive(Debug, Default)]
pub(super) struct Written(OnceLock<Place>);

/// What is cloned may be changed, and is written anew.
impl Clone for Written {
    fn clone(&self) -> Self {
        Self::default()
    }
}

impl Written {
    pub fn place(&self) -> Option<&Place> {
        self.0.get()
    }

    /// Keeps the first place that is told.
    pub fn tell(&self, place: Place) {
        self.0.get_or_init(|| place);
    }
}

impl Head {
    /// A head without headers yet, with room for so many. `url` is the path without the query, `url_param` the query
    /// with its `?`, or empty.
    #[must_use]
    pub fn new(method: &str, url: &str, url_param: &str, client_ip: impl Display, headers: usize) -> Self {
        const IP_BYTES: usize = 39; // an IPv6 address
        let bytes = method.len() + url.len() + url_param.len() + IP_BYTES + headers * USUAL_HEADER_BYTES;
        let mut text = String::with_capacity(bytes);
        let mut ends = [0; 4];
        for (end, part) in ends.iter_mut().zip([method, url, url_param]) {
            text.push_str(part);
            *end = text.len();
        }
        if write!(text, "{client_ip}").is_err() {
            text.truncate(ends[2]); // a client that cannot be shown is not
        }
        ends[3] = text.len();
        Self { text, ends, headers: Vec::with_capacity(headers), written: Written::default() }
    }

    /// Adds a header, its name in the form `X-Request-Id`.
    pub fn push_header(&mut self, name: &str, value: &str) {
        push_header_form(&mut self.text, name);
        let name_end = self.text.len();
        self.text.push_str(value);
        self.headers.push([name_end, self.text.len()]);
    }

    /// `POST`.
    #[must_use]
    pub fn method(&self) -> &str {
        self.part(0..self.ends[0])
    }

    /// The path, without the query.
    #[must_use]
    pub fn url(&self) -> &str {
        self.part(self.ends[0]..self.ends[1])
    }

    /// The query with its `?`, or empty.
    #[must_use]
    pub fn url_param(&self) -> &str {
        self.part(self.ends[1]..self.ends[2])
    }

    /// Who called.
    #[must_use]
    pub fn client_ip(&self) -> &str {
        self.part(self.ends[2]..self.ends[3])
    }

    /// Names and values of the headers, in their order.
    pub fn headers(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        let mut from = self.ends[3];
        self.headers.iter().map(move |&[name, value]| {
            let header = (self.part(from..name), self.part(name..value));
            from = value;
            header
        })
    }

    /// Bytes of all texts.
    pub(super) fn len(&self) -> usize {
        self.text.len()
    }

    fn part(&self, range: Range<usize>) -> &str {
        self.text.get(range).unwrap_or_default()
    }
}

/// Appends `x-request-id` as `X-Request-Id`, as Go's HTTP library spells header names. What is not ASCII stays as it is.
fn push_header_form(out: &mut String, name: &str) {
    let mut upper = true;
    out.extend(name.chars().map(|letter| {
        let formed = if upper { letter.to_ascii_uppercase() } else { letter.to_ascii_lowercase() };
        upper = letter == '-';
        formed
    }));
}

/// `x-request-id` → `X-Request-Id`, as Go's HTTP library spells header names.
#[must_use]
pub fn header_form(name: &str) -> String {
    let mut formed = String::with_capacity(name.len());
    push_header_form(&mut formed, name);
    formed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_comes_back_and_names_are_in_gos_form() {
        let mut head = Head::new("GET", "/ä", "?a=1", "::1", 1);
        head.push_header("x-request-ID", "1");
        head.push_header("", "");
        head.push_header("é-x", "ö");
        assert_eq!((head.method(), head.url(), head.url_param(), head.client_ip()), ("GET", "/ä", "?a=1", "::1"));
        assert_eq!(head.headers().collect::<Vec<_>>(), [("X-Request-Id", "1"), ("", ""), ("é-X", "ö")]);
        assert_eq!(header_form("é-x"), "é-X");
        let none = Head::default();
        assert_eq!((none.method(), none.client_ip(), none.headers().len(), none.len()), ("", "", 0, 0));
    }

    #[test]
    fn it_takes_one_piece_of_memory_and_one_for_its_headers() {
        let made = allocation_counter::measure(|| {
            let mut head = Head::new("POST", "/api/user/login", "?a=1", std::net::Ipv4Addr::LOCALHOST, 3);
            for name in ["accept", "content-type", "user-agent"] {
                head.push_header(name, "of a usual length");
            }
        });
        assert_eq!(made.count_total, 2, "{made:?}");
    }

    #[test]
    fn the_first_place_counts_and_a_clone_has_none() {
        let head = Head::default();
        for batch in 1..3 {
            head.written.tell(Place { batch, bytes: 0..3 });
        }
        assert_eq!(head.written.place().map(|place| place.batch), Some(1));
        assert!(head.clone().written.place().is_none());
    }
}
