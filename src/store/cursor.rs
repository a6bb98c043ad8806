//! Where a page ended: the sort key of its last event and a tie-break, so that events with equal keys come once each.
//!
//! ```text
//! n:1700000000000:d9428888-122b-11e1-b85c-61cd3cbb3210      order, key, tie-break
//! ```

use super::{Order, StoreError};

/// A parsed [`super::Query::after`]; callers see it as an opaque string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    /// `time_ms` or `duration_ns`.
    pub key: i128,
    /// Orders events of one key: the event's id in Elasticsearch, its hash in the embedded store.
    pub tie: String,
}

impl Cursor {
    /// The string for [`super::Page::next`].
    pub fn encode(&self, order: Order) -> String {
        format!("{}:{}:{}", letter(order), self.key, self.tie)
    }

    /// Reads what [`Cursor::encode`] wrote.
    ///
    /// # Errors
    /// [`StoreError::Query`] when it is none, or one of another order.
    pub fn decode(text: &str, order: Order) -> Result<Self, StoreError> {
        let bad =
            || StoreError::Query(format!("`{text}` is not where a page ended; give `after` the `next` of a page"));
        let mut parts = text.splitn(3, ':');
        let (head, key, tie) =
            (parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?, parts.next().ok_or_else(bad)?);
        if head != letter(order) {
            return Err(bad());
        }
        Ok(Self { key: key.parse().map_err(|_| bad())?, tie: tie.to_owned() })
    }
}

fn letter(order: Order) -> &'static str {
    match order {
        Order::Newest => "n",
        Order::Oldest => "o",
        Order::Slowest => "s",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comes_back_as_it_was() {
        let cursor = Cursor { key: -5, tie: "a:b".to_owned() };
        assert_eq!(Cursor::decode(&cursor.encode(Order::Oldest), Order::Oldest).expect("own cursor"), cursor);
        assert!(Cursor::decode(&cursor.encode(Order::Oldest), Order::Newest).is_err());
        for bad in ["", "n", "n:1", "n:x:y", "q:1:y"] {
            assert!(matches!(Cursor::decode(bad, Order::Newest), Err(StoreError::Query(_))), "{bad}");
        }
    }
}
