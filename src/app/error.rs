//! Why a command failed, what its user reads, and the exit code (sysexits: 64 usage, 69 unavailable, 78 config).

use std::error::Error;
use std::net::SocketAddr;
use std::process::ExitCode;

use crate::causes::chain;
use crate::cli::{EXIT_CONFIG, EXIT_UNAVAILABLE, EXIT_USAGE};
use crate::config::ConfigErrors;
use crate::registry::RegistryError;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum AppError {
    /// The config has faults.
    #[error("{0}")]
    Config(#[from] ConfigErrors),
    /// The command line asks for something that makes no sense.
    #[error("{0}")]
    Usage(String),
    /// A port cannot be bound.
    #[error("cannot listen on {address}: choose another port with `{flag}` (0 takes a free one)")]
    Port {
        /// The address that was tried.
        address: SocketAddr,
        /// The flag that sets the port.
        flag: &'static str,
        /// What the operating system said.
        #[source]
        source: std::io::Error,
    },
    /// The registry cannot do what was asked.
    #[error("{0}")]
    Registry(#[source] RegistryError),
    /// The registry did not answer in time.
    #[error("registry `{kind}` at `{address}` could not be read within {waited:?} (`--registry-wait`){why}")]
    RegistryAway {
        /// Its word.
        kind: &'static str,
        /// Where it was looked for.
        address: String,
        /// How long was waited.
        waited: std::time::Duration,
        /// `: ` and what went wrong last, if that is known.
        why: String,
    },
    /// Something that the command needs is not there.
    #[error("{0}")]
    Unavailable(String),
    /// A part could not start.
    #[error("cannot start the runtime")]
    Start(#[source] std::io::Error),
    /// A room could not start.
    #[error("{0}")]
    Part(#[source] Box<dyn Error + Send + Sync>),
}

impl AppError {
    /// The exit code of the process.
    #[must_use]
    pub fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Config(errors) if errors.only_flags() => EXIT_USAGE,
            Self::Config(_) => EXIT_CONFIG,
            Self::Usage(_) => EXIT_USAGE,
            _ => EXIT_UNAVAILABLE,
        })
    }

    /// Prints the error with its causes on stderr.
    pub fn print(&self) {
        eprintln!("goms: {}", chain(self));
    }
}
