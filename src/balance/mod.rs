//! WHICH ONE: endpoints with live load, and the picker that chooses among them.
//!
//! May import: `registry`, `shutdown`, `metrics`.
//!
//! One [`Balancer`] a process follows the catalog and makes a snapshot of each: every `service` with its ring of endpoints.
//! A worker picks from the newest through its [`LocalBalancer`], without a lock, and a request holds the [`Permit`] until
//! the answer's body ends, so the number in flight is true at any moment.
//!
//! `pick` holds the pickers and `turns` the turns; `outlier` ejects nodes that fail, `breaker` guards a service that fails as
//! a whole, `queue` holds requests while every node has as many as it may. What they look at, `endpoint`, `latency` and
//! `clock` keep in atomics.

mod balancer;
mod breaker;
mod budget;
mod clock;
mod endpoint;
mod latency;
mod names;
mod outlier;
mod permit;
mod pick;
mod queue;
mod service;
mod settings;
mod shed;
#[cfg(test)]
mod tests;
mod turns;

pub use balancer::{Balancer, LocalBalancer, NodeView, PickError, ServiceView};
pub use endpoint::MOST_WEIGHT;
pub use permit::Permit;
pub use pick::Kind;
pub use settings::{Breaker, Ejection, NodeLimit, Settings};
pub(crate) use turns::Turns;

/// How a node is chosen. Weights are those that nodes say of themselves, 1 if they say nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selector {
    /// Strictly in turn, per gateway process; smoothly by weight where weights differ.
    #[default]
    RoundRobin,
    /// Any, by weight.
    Random,
    /// The one with the fewest requests in flight for its weight.
    LeastConn,
    /// The better of two taken at random: by expected latency and requests in flight, for its weight.
    P2c,
    /// The same client goes to the same node; heavier ones have more clients.
    SourceHash,
}
