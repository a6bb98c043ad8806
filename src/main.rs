//! goms
fn main() {}
