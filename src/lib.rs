//! goms: a team's microservices in one binary.
//!
//! (The map of the rooms and the two data paths goes here.)

pub mod admin;
pub mod app;
pub mod backoff;
pub mod balance;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod gateway;
pub mod metrics;
pub mod registry;
pub mod service;
pub mod shutdown;
pub mod store;
pub mod trace;
pub mod upstream;

pub use service::{CallError, Context, Service, ServiceError};
