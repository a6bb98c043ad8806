//! THE FRAMEWORK: what a service author uses, and goms in front of a program in another language.
//!
//! May import: `registry`, `balance`, `upstream`, `trace`, `metrics`, `shutdown`, `backoff`.
