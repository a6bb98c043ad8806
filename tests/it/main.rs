//! Every integration test, in one binary.
mod cluster;
mod config;
mod architecture;
mod service;
mod store;
mod registry;
mod gateway;
mod consumer;
mod support;
mod trace;
