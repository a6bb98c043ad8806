//! What the integration tests share.
#![allow(dead_code)] // each room's tests use a part of it

pub mod servers;
