//! WHICH ONE: endpoints with live load, and the picker that chooses among them.
//!
//! May import: `registry`, `shutdown`, `metrics`.

/// How a node is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// Strictly in turn, per gateway process.
    #[default]
    RoundRobin,
    /// Any.
    Random,
    /// The one with the fewest requests in flight.
    LeastConn,
    /// The better of two taken at random.
    P2c,
    /// The same client goes to the same node.
    SourceHash,
}
