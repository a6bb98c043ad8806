//! The `goms` command: parse, run, exit code.

use std::process::ExitCode;

fn main() -> ExitCode {
    match goms::cli::parse(std::env::args_os()) {
        Ok(cli) => goms::app::run(cli),
        Err(error) => goms::app::said(&error),
    }
}
