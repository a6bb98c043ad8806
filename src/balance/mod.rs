//! WHICH ONE: endpoints with live load, and the picker that chooses among them.
//!
//! May import: `registry`, `shutdown`, `metrics`.
//!
//! One [`Balancer`] a process follows the catalog and makes a snapshot of each: every `service` with its ring of endpoints.
//! A worker picks from the newest through its [`LocalBalancer`], without a lock, and a request holds the [`Permit`] until
//! the answer's body ends, so the number in flight is true at any moment.

mod balancer;
mod breaker;
mod budget;
mod clock;
mod endpoint;
mod outlier;
mod permit;
mod pick;
mod service;
mod settings;
#[cfg(test)]
mod tests;

pub use balancer::{Balancer, LocalBalancer, NodeView, PickError, ServiceView};
pub use permit::Permit;
pub use settings::{Breaker, Ejection, Settings};

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
