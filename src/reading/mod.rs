//! WHAT WAS TOLD: stored events as people and other tools read them.
//!
//! May import: `store`, `trace` (`REDACTED`), `figures`, `json`.
//!
//! [`find`] gives the events of a request and its trace, [`Follow`] those that are new; [`Shown`] is one of them, [`pair`]
//! and [`nest`] make spans of them, [`export`] writes these for other tools. The command line and the dashboard read through this room.

pub mod event;
pub mod export;
mod filter;
mod find;
mod follow;
#[cfg(test)]
mod memory;
mod spans;
mod text;

pub use event::Shown;
#[cfg(test)]
pub use event::ShownRequest;
pub use filter::{EVENTS, StatusRange, parse_status, parse_trace_id};
pub use find::{Most, find, oldest};
pub use follow::{Follow, INTERVAL};
#[cfg(test)]
pub use memory::Memory;
pub use spans::{Span, nest, pair};
pub use text::printable;
