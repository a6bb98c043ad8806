//! Every integration test, in one binary.
mod consumer;
mod support;
mod trace;
