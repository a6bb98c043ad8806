//! service::program tests
