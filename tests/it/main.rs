//! Every integration test, in one binary.
mod service;
mod support;
