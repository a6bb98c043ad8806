//! How a program is run, and what may come of it.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;

use super::lines::Lines;
use super::place::{Launch, Template};
use crate::service::{ProgramUrl, ProgramUrlError};

/// How a program is run and watched.
#[derive(Clone, Debug)]
pub struct ProgramSettings {
    /// Where it listens.
    pub url: ProgramUrl,
    /// The command and its arguments; `None`: somebody else runs it.
    pub command: Option<Vec<String>>,
    /// Where the command runs; `None`: here.
    pub dir: Option<PathBuf>,
    /// What its environment has besides this process's.
    pub env: Vec<(String, String)>,
    /// How it is started at another port than that of `url`, `command` and `env`; `None`: it has this one only.
    pub template: Option<Template>,
    /// Takes what it prints; `None`: it prints where this process does.
    pub lines: Option<Lines>,
    /// What happens when the command ends by itself.
    pub restart: Restart,
    /// Whether a start that failed waits for [`Program::restart`](super::Program::restart) instead of being the end.
    pub is_watched: bool,
    /// How long its port may take to accept connections.
    pub start_timeout: Duration,
    /// How long it may take to end after SIGTERM before it is killed.
    pub stop_timeout: Duration,
}

impl ProgramSettings {
    /// The defaults: 30 s to start, 10 s to stop, restarted when it fails.
    #[must_use]
    pub fn new(url: ProgramUrl, command: Option<Vec<String>>) -> Self {
        Self {
            url,
            command,
            dir: None,
            env: Vec::new(),
            template: None,
            lines: None,
            restart: Restart::default(),
            is_watched: false,
            start_timeout: Duration::from_secs(30),
            stop_timeout: Duration::from_secs(10),
        }
    }

    /// Of a program that may run at any port, and runs at this one first.
    ///
    /// # Errors
    /// When the template has no address of a program.
    pub fn of_template(template: Template, port: u16) -> Result<Self, ProgramUrlError> {
        let Launch { url, command, env } = template.at(port)?;
        let command = (!command.is_empty()).then_some(command);
        Ok(Self { env, template: Some(template), ..Self::new(url, command) })
    }

    /// Is of this launch from now on; the one before.
    pub(super) fn launch(&mut self, launch: Launch) -> Launch {
        Launch {
            url: std::mem::replace(&mut self.url, launch.url),
            command: self.command.replace(launch.command).unwrap_or_default(),
            env: std::mem::replace(&mut self.env, launch.env),
        }
    }
}

/// When a command that ended by itself is started again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Restart {
    /// Not at all: its end is the node's end.
    Never,
    /// After any end but exit code 0.
    #[default]
    OnFailure,
    /// After any end.
    Always,
}

impl Restart {
    pub(super) fn again(self, status: ExitStatus) -> bool {
        match self {
            Self::Never => false,
            Self::OnFailure => !status.success(),
            Self::Always => true,
        }
    }
}

/// Whether requests can be forwarded now.
#[derive(Clone, Debug)]
pub enum ProgramState {
    /// Its port accepts connections.
    Up,
    /// It is up, but about to be restarted.
    Held,
    /// Not now; it may come back.
    Down,
    /// It will not come back; why.
    Ended(Arc<ProgramError>),
}

/// Why there is no program to forward to.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// The command names no program.
    #[error("the command of the program is empty; give one after `--`")]
    NoCommand,
    /// It cannot be started.
    #[error("cannot start `{command}`")]
    Spawn {
        /// The command.
        command: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
    /// Another process has its port.
    #[error("something listens at {0} already; end it, or leave out the command to use it as it is")]
    Taken(String),
    /// Its port never accepted.
    #[error("nothing accepted connections at {url} within {waited:?}; does the program listen there?")]
    NotReady {
        /// Where.
        url: String,
        /// How long.
        waited: Duration,
    },
    /// It ended, and is not to be restarted.
    #[error("the program `{command}` ended ({status})")]
    Exited {
        /// The command.
        command: String,
        /// `exit status: 1`, `signal: 9 (SIGKILL)`.
        status: ExitStatus,
    },
    /// There is no port for another one.
    #[error("no port is free for the program")]
    Port(#[source] std::io::Error),
    /// Its address at another port is none.
    #[error(transparent)]
    Url(#[from] ProgramUrlError),
    /// It was ended for good before.
    #[error("the program is not run any more")]
    Gone,
    /// The system does not tell what became of it.
    #[error("cannot watch the program `{command}`")]
    Watch {
        /// The command.
        command: String,
        /// What went wrong.
        #[source]
        source: std::io::Error,
    },
}
