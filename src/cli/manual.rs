//! What the command line says of itself: completions and the manual.

use clap::CommandFactory;

use super::{Cli, command};

/// The completion script of a shell.
#[must_use]
pub fn completions(shell: clap_complete::Shell) -> Vec<u8> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command(), "goms", &mut script);
    script
}

/// The manual (roff) of `goms` itself.
///
/// # Errors
/// Never: it is written into memory.
pub fn manual() -> std::io::Result<Vec<u8>> {
    let mut page = Vec::new();
    clap_mangen::Man::new(of_manual(Cli::command())).render(&mut page)?;
    Ok(page)
}

/// Writes a page for `goms` and each command.
///
/// # Errors
/// When the folder cannot be written to.
pub fn write_manual(dir: &std::path::Path) -> std::io::Result<()> {
    std::fs::create_dir_all(dir)?;
    clap_mangen::generate_to(of_manual(Cli::command().propagate_version(true)), dir)
}

/// A manual tells of each flag, of those too that the short help leaves out.
fn of_manual(command: clap::Command) -> clap::Command {
    command.mut_args(|arg| arg.hide_short_help(false)).mut_subcommands(of_manual)
}
