//! Every integration test, in one binary.
mod registry;
mod support;
