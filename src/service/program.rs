//! The program behind a node: started if there is a command, watched by its port, restarted, ended.
//!
//! ```text
//!          port accepts            exits, or refuses connections twice
//! starting ─────────────▶ up ─────────────────────────────────────────▶ down ──▶ (wait, start again) ──▶ up
//!                                                                        └─▶ ended: nothing will bring it back
//! ```

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};
use tokio::sync::watch;

use super::ProgramUrl;
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// How a program is run and watched.
#[derive(Clone, Debug)]
pub struct ProgramSettings {
    /// Where it listens.
    pub url: ProgramUrl,
    /// The command and its arguments; `None`: somebody else runs it.
    pub command: Option<Vec<String>>,
    /// What happens when the command ends by itself.
    pub restart: Restart,
    /// How long its port may take to accept connections.
    pub start_timeout: Duration,
    /// How long it may take to end after SIGTERM before it is killed.
    pub stop_timeout: Duration,
}

impl ProgramSettings {
    /// The defaults: 30 s to start, 10 s to stop, restarted when it fails.
    #[must_use]
    pub fn new(url: ProgramUrl, command: Option<Vec<String>>) -> Self {
        let (start_timeout, stop_timeout) = (Duration::from_secs(30), Duration::from_secs(10));
        Self { url, command, restart: Restart::default(), start_timeout, stop_timeout }
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
    fn again(self, status: ExitStatus) -> bool {
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

/// How often the port is looked at while the program starts, and while it runs.
const START_POLL: Duration = Duration::from_millis(20);
const PORT_POLL: Duration = Duration::from_millis(500);

/// Refusals in a row after which a running program counts as down.
const REFUSALS: u32 = 2;

/// A restart after so long a run begins with the shortest wait again.
const STEADY: Duration = Duration::from_secs(10);

/// A watched program. Dropping it ends it as [`Program::stop`] does, but does not wait.
#[derive(Debug)]
pub struct Program {
    state: watch::Receiver<ProgramState>,
    shutdown: Shutdown,
    stop_timeout: Duration,
}

impl Program {
    /// Starts the command, if there is one, and waits until the program's port accepts connections.
    ///
    /// # Errors
    /// [`ProgramError`] when it cannot be started, ends at once, or does not listen in time.
    pub async fn start(settings: ProgramSettings) -> Result<Self, ProgramError> {
        let mut runner = Runner { settings, child: None };
        if runner.settings.command.is_some() && port_accepts(&runner.settings.url).await == Port::Accepts {
            return Err(ProgramError::Taken(runner.settings.url.to_string()));
        }
        let began = Instant::now();
        if let Err(error) = runner.bring_up().await {
            runner.terminate().await;
            return Err(error);
        }
        log::info!("program is up url={} after={:.1?}", runner.settings.url, began.elapsed());
        let (sender, state) = watch::channel(ProgramState::Up);
        let shutdown = Shutdown::new(); // not the process's: the program ends after the node has drained
        let (ending, stop_timeout) = (shutdown.clone(), runner.settings.stop_timeout);
        shutdown.spawn(async move {
            tokio::select! {
                error = runner.supervise(&sender) => {
                    log::error!("program is gone for good url={} reason={error}", runner.settings.url);
                    sender.send_replace(ProgramState::Ended(Arc::new(error)));
                }
                () = ending.begun() => {}
            }
            runner.terminate().await;
        });
        Ok(Self { state, shutdown, stop_timeout })
    }

    /// Follows whether it is up.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ProgramState> {
        self.state.clone()
    }

    /// Ends a started command: SIGTERM to its process group, SIGKILL if it has not ended in time. What was started by
    /// somebody else goes on.
    pub async fn stop(self) {
        self.shutdown.begin();
        // the runner kills after `stop_timeout`, so this is only a bound for the unforeseen
        if !self.shutdown.finished(self.stop_timeout + Duration::from_secs(5)).await {
            log::error!("program did not end in time");
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

struct Runner {
    settings: ProgramSettings,
    child: Option<Child>,
}

impl Runner {
    /// Starts the command, if there is one, and waits for the port.
    async fn bring_up(&mut self) -> Result<(), ProgramError> {
        if self.settings.command.is_some() {
            self.child = Some(self.spawn()?);
        }
        let (url, limit) = (self.settings.url.clone(), self.settings.start_timeout);
        let not_ready = || ProgramError::NotReady { url: url.to_string(), waited: limit };
        tokio::select! {
            ready = tokio::time::timeout(limit, wait_for_port(&url)) => ready.map_err(|_| not_ready()),
            ended = self.exited() => Err(match ended {
                Ok(status) => ProgramError::Exited { command: self.command(), status },
                Err(error) => error,
            }),
        }
    }

    fn spawn(&self) -> Result<Child, ProgramError> {
        let Some((program, arguments)) = self.settings.command.as_deref().unwrap_or_default().split_first() else {
            return Err(ProgramError::NoCommand);
        };
        // a group of its own: Ctrl-C in the terminal reaches goms alone, which drains first, and a stop reaches
        // whatever the command started
        Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|source| ProgramError::Spawn { command: self.command(), source })
    }

    fn command(&self) -> String {
        self.settings.command.as_deref().unwrap_or_default().join(" ")
    }

    /// Resolves when the started command has ended; never without one.
    async fn exited(&mut self) -> Result<ExitStatus, ProgramError> {
        match &mut self.child {
            Some(child) => {
                let ended = child.wait().await;
                ended.map_err(|source| ProgramError::Watch { command: self.command(), source })
            }
            None => std::future::pending().await,
        }
    }

    /// Watches a program that is up, and brings it back as often as the settings allow; returns why no more.
    async fn supervise(&mut self, state: &watch::Sender<ProgramState>) -> ProgramError {
        let mut backoff = Backoff::seeded(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let up_since = Instant::now();
            let url = self.settings.url.clone();
            let ended = tokio::select! {
                ended = self.exited() => ended,
                never = watch_port(&url, state) => match never {},
            };
            self.child = None;
            state.send_replace(ProgramState::Down);
            if up_since.elapsed() >= STEADY {
                backoff.reset();
            }
            let mut status = match ended {
                Ok(status) => status,
                Err(error) => return error,
            };
            loop {
                if !self.settings.restart.again(status) {
                    return ProgramError::Exited { command: self.command(), status };
                }
                let wait = backoff.next_wait();
                log::warn!("program ended, starting it again status=`{status}` url={url} wait={wait:.1?}");
                tokio::time::sleep(wait).await;
                match self.bring_up().await {
                    Ok(()) => break,
                    Err(ProgramError::Exited { status: again, .. }) => status = again,
                    Err(ProgramError::NotReady { waited, .. }) => {
                        log::warn!("program does not listen, killing it url={url} waited={waited:?}");
                        match self.terminate().await {
                            Some(killed) => status = killed,
                            None => return ProgramError::NotReady { url: url.to_string(), waited },
                        }
                    }
                    Err(error) => return error,
                }
            }
            log::info!("program is up again url={url}");
            state.send_replace(ProgramState::Up);
        }
    }

    /// Ends a started command and waits for it; what it ended with.
    async fn terminate(&mut self) -> Option<ExitStatus> {
        let mut child = self.child.take()?;
        signal(&child, Signal::TERM);
        let limit = self.settings.stop_timeout;
        let ended = match tokio::time::timeout(limit, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                log::warn!("program ignored SIGTERM, killing it command=`{}` waited={limit:?}", self.command());
                signal(&child, Signal::KILL);
                child.wait().await
            }
        };
        match ended {
            Ok(status) => Some(status),
            Err(error) => {
                log::error!("cannot wait for the program command=`{}` error={error}", self.command());
                None
            }
        }
    }
}

impl Drop for Runner {
    /// A start that is given up (Ctrl-C meanwhile) leaves nothing behind; `kill_on_drop` would end the command alone.
    fn drop(&mut self) {
        if let Some(child) = &self.child {
            signal(child, Signal::KILL);
        }
    }
}

/// Signals the group of a child that was not waited for yet, so its id cannot be another's.
fn signal(child: &Child, signal: Signal) {
    let Some(group) = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?)) else { return };
    if let Err(error) = kill_process_group(group, signal) {
        log::warn!("cannot signal the program signal={signal:?} error={error}");
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Port {
    Accepts,
    Refuses,
    /// Neither: it is too busy to accept, or cannot be reached.
    Silent,
}

async fn port_accepts(url: &ProgramUrl) -> Port {
    match tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(url.socket())).await {
        Ok(Ok(_)) => Port::Accepts,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Port::Refuses,
        Ok(Err(_)) | Err(_) => Port::Silent,
    }
}

async fn wait_for_port(url: &ProgramUrl) {
    while port_accepts(url).await != Port::Accepts {
        tokio::time::sleep(START_POLL).await;
    }
}

/// Tells `state` when a program refuses connections and when it accepts them again.
async fn watch_port(url: &ProgramUrl, state: &watch::Sender<ProgramState>) -> std::convert::Infallible {
    let mut refusals = 0;
    loop {
        tokio::time::sleep(PORT_POLL).await;
        match port_accepts(url).await {
            Port::Refuses => refusals += 1,
            Port::Silent => {} // a busy program is not a dead one
            Port::Accepts => {
                if refusals >= REFUSALS {
                    log::info!("program is up again url={url}");
                    state.send_replace(ProgramState::Up);
                }
                refusals = 0;
            }
        }
        if refusals == REFUSALS {
            log::warn!("program refuses connections url={url}");
            state.send_replace(ProgramState::Down);
        }
        refusals = refusals.min(REFUSALS + 1);
    }
}
