//! The program behind a node: started if there is a command, watched by its port, restarted, ended.
//!
//! ```text
//!          port accepts            exits, or refuses connections twice
//! starting ─────────────▶ up ─────────────────────────────────────────▶ down ──▶ (wait, start again) ──▶ up
//!                                                                        └─▶ ended: nothing will bring it back
//! ```

mod lines;
mod port;
mod settings;

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use self::lines::LastLines;
pub use self::lines::{Lines, Stream};
use self::port::Port;
pub use self::settings::{ProgramError, ProgramSettings, ProgramState, Restart};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// A restart after so long a run begins with the shortest wait again.
const STEADY: Duration = Duration::from_secs(10);
/// What a program that ended had printed is read to its end; what it started may hold the pipe open for ever.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// What came of a restart.
type Restarted = oneshot::Sender<Result<(), Arc<ProgramError>>>;

/// A watched program. Dropping it ends it as [`Program::stop`] does, but does not wait.
#[derive(Debug)]
pub struct Program {
    state: Arc<watch::Sender<ProgramState>>,
    restarts: mpsc::Sender<Restarted>,
    shutdown: Shutdown,
    stop_timeout: Duration,
}

impl Program {
    /// Starts the command, if there is one, and waits until the program's port accepts connections.
    ///
    /// One that [is watched](ProgramSettings::is_watched) may be [`ProgramState::Down`] then: that it does not start was told in
    /// the log, and it waits for [`Program::restart`].
    ///
    /// # Errors
    /// [`ProgramError`] when it cannot be started, ends at once, or does not listen in time.
    pub async fn start(settings: ProgramSettings) -> Result<Self, ProgramError> {
        let mut runner = Runner { settings, child: None, readers: Shutdown::new(), last: LastLines::default() };
        if runner.settings.command.is_some() && port::look(&runner.settings.url).await == Port::Accepts {
            return Err(ProgramError::Taken(runner.settings.url.to_string()));
        }
        let began = Instant::now();
        let state = match runner.bring_up().await {
            Ok(()) => {
                log::info!("program is up url={} after={:.1?}", runner.settings.url, began.elapsed());
                ProgramState::Up
            }
            Err(error) => {
                runner.terminate().await;
                if !runner.settings.is_watched {
                    return Err(error);
                }
                runner.tell_failure(&error).await;
                ProgramState::Down
            }
        };
        let state = Arc::new(watch::Sender::new(state));
        let (restarts, mut asked) = mpsc::channel(1);
        let shutdown = Shutdown::new(); // not the process's: the program ends after the node has drained
        let (ending, stop_timeout) = (shutdown.clone(), runner.settings.stop_timeout);
        let sender = state.clone();
        shutdown.spawn(async move {
            tokio::select! {
                error = runner.supervise(&sender, &mut asked) => {
                    log::error!("program is gone for good url={} reason={error}", runner.settings.url);
                    sender.send_replace(ProgramState::Ended(Arc::new(error)));
                }
                () = ending.begun() => {}
            }
            runner.terminate().await;
        });
        Ok(Self { state, restarts, shutdown, stop_timeout })
    }

    /// Follows whether it is up.
    #[must_use]
    pub fn state(&self) -> watch::Receiver<ProgramState> {
        self.state.subscribe()
    }

    /// Says that it is about to be restarted, so that it gets no more requests.
    pub fn hold(&self) {
        self.state.send_if_modified(|state| {
            let is_up = matches!(state, ProgramState::Up);
            if is_up {
                *state = ProgramState::Held;
            }
            is_up
        });
    }

    /// Ends the command and starts it again; resolves once its port accepts.
    ///
    /// # Errors
    /// Why it does not start; it was told in the log, and the program stays down until the next restart.
    pub async fn restart(&self) -> Result<(), Arc<ProgramError>> {
        let (done, outcome) = oneshot::channel();
        let gone = || Arc::new(ProgramError::Gone);
        self.restarts.send(done).await.map_err(|_| gone())?;
        outcome.await.map_err(|_| gone())?
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
    /// Read what the child prints.
    readers: Shutdown,
    last: LastLines,
}

impl Runner {
    /// Starts the command, if there is one, and waits for the port.
    async fn bring_up(&mut self) -> Result<(), ProgramError> {
        if self.settings.command.is_some() {
            self.last.take();
            self.child = Some(self.spawn()?);
        }
        let (url, limit) = (self.settings.url.clone(), self.settings.start_timeout);
        let not_ready = || ProgramError::NotReady { url: url.to_string(), waited: limit };
        tokio::select! {
            ready = tokio::time::timeout(limit, port::wait(&url)) => ready.map_err(|_| not_ready()),
            ended = self.exited() => Err(match ended {
                Ok(status) => ProgramError::Exited { command: self.command(), status },
                Err(error) => error,
            }),
        }
    }

    fn spawn(&mut self) -> Result<Child, ProgramError> {
        let Some((program, arguments)) = self.settings.command.as_deref().unwrap_or_default().split_first() else {
            return Err(ProgramError::NoCommand);
        };
        let mut command = Command::new(program);
        // a group of its own: Ctrl-C in the terminal reaches goms alone, which drains first, and a stop reaches
        // whatever the command started
        command.args(arguments).stdin(Stdio::null()).process_group(0).kill_on_drop(true);
        command.envs(self.settings.env.iter().map(|(name, value)| (name, value)));
        if let Some(dir) = self.settings.dir.as_deref().filter(|dir| !dir.as_os_str().is_empty()) {
            command.current_dir(dir);
        }
        if self.settings.lines.is_some() {
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
        }
        let mut child = command.spawn().map_err(|source| ProgramError::Spawn { command: self.command(), source })?;
        if let Some(lines) = &self.settings.lines {
            self.readers = Shutdown::new();
            if let Some(out) = child.stdout.take() {
                self.readers.spawn(lines::read(out, Stream::Out, lines.clone(), self.last.clone()));
            }
            if let Some(err) = child.stderr.take() {
                self.readers.spawn(lines::read(err, Stream::Err, lines.clone(), self.last.clone()));
            }
        }
        Ok(child)
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
    async fn supervise(
        &mut self,
        state: &watch::Sender<ProgramState>,
        restarts: &mut mpsc::Receiver<Restarted>,
    ) -> ProgramError {
        let mut backoff = Backoff::seeded(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let up_since = Instant::now();
            let url = self.settings.url.clone();
            let is_running = self.settings.command.is_none() || self.child.is_some();
            let ended = tokio::select! {
                ended = self.exited() => ended,
                never = port::follow(&url, state), if is_running => match never {},
                Some(done) = restarts.recv() => {
                    self.replace(done, state).await;
                    backoff.reset();
                    continue;
                }
            };
            self.child = None;
            state.send_replace(ProgramState::Down);
            if up_since.elapsed() >= STEADY {
                backoff.reset();
            }
            let back = match ended {
                Ok(status) => self.bring_back(status, &mut backoff, state, restarts).await,
                Err(error) => Err(error),
            };
            match back {
                Ok(()) => {}
                Err(error) if self.settings.is_watched => {
                    self.terminate().await;
                    self.tell_failure(&error).await;
                }
                Err(error) => return error,
            }
        }
    }

    /// Starts a command again that ended by itself, until it is up.
    async fn bring_back(
        &mut self,
        mut status: ExitStatus,
        backoff: &mut Backoff,
        state: &watch::Sender<ProgramState>,
        restarts: &mut mpsc::Receiver<Restarted>,
    ) -> Result<(), ProgramError> {
        let url = self.settings.url.clone();
        loop {
            if !self.settings.restart.again(status) {
                return Err(ProgramError::Exited { command: self.command(), status });
            }
            let wait = backoff.next_wait();
            log::warn!("program ended, starting it again status=`{status}` url={url} wait={wait:.1?}");
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                Some(done) = restarts.recv() => {
                    self.replace(done, state).await;
                    return Ok(());
                }
            }
            match self.bring_up().await {
                Ok(()) => break,
                Err(error) if self.settings.is_watched => return Err(error),
                Err(ProgramError::Exited { status: again, .. }) => status = again,
                Err(ProgramError::NotReady { waited, .. }) => {
                    log::warn!("program does not listen, killing it url={url} waited={waited:?}");
                    match self.terminate().await {
                        Some(killed) => status = killed,
                        None => return Err(ProgramError::NotReady { url: url.to_string(), waited }),
                    }
                }
                Err(error) => return Err(error),
            }
        }
        log::info!("program is up again url={url}");
        state.send_replace(ProgramState::Up);
        Ok(())
    }

    /// Ends the command and starts it again.
    async fn replace(&mut self, done: Restarted, state: &watch::Sender<ProgramState>) {
        state.send_replace(ProgramState::Down);
        self.terminate().await;
        let outcome = self.bring_up().await;
        match &outcome {
            Ok(()) => {
                state.send_replace(ProgramState::Up);
            }
            Err(error) => {
                self.terminate().await;
                self.tell_failure(error).await;
            }
        }
        if done.send(outcome.map_err(Arc::new)).is_err() {
            log::debug!("nobody waits for the restart any more");
        }
    }

    /// Tells that the program does not start, with what it printed last.
    async fn tell_failure(&self, error: &ProgramError) {
        // what came last may still be in the pipe
        self.readers.finished(READ_LIMIT).await;
        let last = self.last.take();
        let words = if last.is_empty() { "it printed nothing" } else { "its last lines:" };
        let lines: String = last.iter().map(|line| format!("\n    {line}")).collect();
        let error = crate::causes::chain(error);
        log::error!("program does not start, trying again at the next change of a file: {error}; {words}{lines}");
    }

    /// Ends a started command and waits for it; what it ended with.
    async fn terminate(&mut self) -> Option<ExitStatus> {
        let command = self.command();
        // it stays where `Drop` finds it, should this be given up
        let child = self.child.as_mut()?;
        signal(child, Signal::TERM);
        let limit = self.settings.stop_timeout;
        let ended = match tokio::time::timeout(limit, child.wait()).await {
            Ok(ended) => ended,
            Err(_) => {
                log::warn!("program ignored SIGTERM, killing it command=`{command}` waited={limit:?}");
                signal(child, Signal::KILL);
                child.wait().await
            }
        };
        self.child = None;
        match ended {
            Ok(status) => Some(status),
            Err(error) => {
                log::error!("cannot wait for the program command=`{command}` error={error}");
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
