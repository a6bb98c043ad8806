//! Every integration test, in one binary.
mod config;
mod architecture;
mod service;
mod support;
