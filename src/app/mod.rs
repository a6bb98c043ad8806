//! THE COMPOSITION ROOT: the only place that picks backends and starts roles.
//!
//! May import: everything.

mod cluster;
mod error;
mod gateway;
mod logging;
mod output;
mod ports;
mod process;
mod rpc;
mod service;
mod table;
mod trace;
mod trace_consumer;
mod up;

pub use error::AppError;

use std::process::ExitCode;

use crate::cli::{Cli, Command};
use crate::config::Config;

/// Runs one command of the command line to its end and gives the process's exit code; prints what went wrong.
#[must_use]
pub fn run(cli: Cli) -> ExitCode {
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error.print();
            error.exit_code()
        }
    }
}
