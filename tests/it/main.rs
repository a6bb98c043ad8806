//! Every integration test, in one binary.
mod config;
mod gateway;
mod support;
