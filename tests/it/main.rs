//! Every integration test, in one binary.
mod architecture;
mod broker;
mod cluster;
mod config;
mod consumer;
mod dashboard;
mod gateway;
mod interop;
mod registry;
mod rpc;
mod service;
mod store;
mod support;
mod trace;
