//! Runs a program: starts, watches, replaces and ends it.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, oneshot, watch};

use super::lines::{self, LastLines, Stream};
use super::place::{Door, Left};
use super::port;
use super::settings::{ProgramError, ProgramSettings, ProgramState};
use crate::backoff::Backoff;
use crate::shutdown::Shutdown;

/// A restart after so long a run begins with the shortest wait again.
const STEADY: Duration = Duration::from_secs(10);
/// What a program that ended had printed is read to its end; what it started may hold the pipe open for ever.
const READ_LIMIT: Duration = Duration::from_millis(300);

/// What is done with a program that runs.
#[derive(Clone, Copy, Debug)]
pub(super) enum Turn {
    /// It ends and is started again.
    Restart,
    /// The same, while requests wait; those that are with it get so long to end.
    Hold(Duration),
    /// Another is started beside it, and gets the requests.
    Renew,
    /// The one before ends, whose requests get so long to end.
    Retire(Duration),
}

/// A turn, and who waits for what comes of it.
pub(super) struct Asked {
    /// It.
    pub turn: Turn,
    /// Told at its end.
    pub done: oneshot::Sender<Result<(), Arc<ProgramError>>>,
}

/// Runs a program.
pub(super) struct Runner {
    /// How; the place is the one where it is now.
    pub settings: ProgramSettings,
    /// Where requests go.
    pub door: Door,
    child: Option<Child>,
    /// The one before, which answers what it took.
    leaving: Option<Child>,
    left: Left,
    /// Read what the child prints.
    readers: Shutdown,
    last: LastLines,
}

impl Runner {
    /// Of a program that was not started yet.
    pub fn new(settings: ProgramSettings) -> Self {
        let door = Door::from(&settings.url);
        let (readers, last) = (Shutdown::new(), LastLines::default());
        Self { settings, door, child: None, leaving: None, left: Left::default(), readers, last }
    }

    /// Starts the command, if there is one, and waits for the port.
    pub async fn bring_up(&mut self) -> Result<(), ProgramError> {
        if self.settings.command.is_some() {
            self.last = LastLines::default();
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
    pub async fn supervise(
        &mut self,
        state: &watch::Sender<ProgramState>,
        turns: &mut mpsc::Receiver<Asked>,
    ) -> ProgramError {
        let mut backoff = Backoff::seeded(Duration::from_millis(200), Duration::from_secs(30));
        loop {
            let up_since = Instant::now();
            let url = self.settings.url.clone();
            let is_running = self.settings.command.is_none() || self.child.is_some();
            let ended = tokio::select! {
                ended = self.exited() => ended,
                never = port::follow(&url, state), if is_running => match never {},
                Some(asked) = turns.recv() => {
                    self.carry_out(asked, state).await;
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
                Ok(status) => self.bring_back(status, &mut backoff, state, turns).await,
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
        turns: &mut mpsc::Receiver<Asked>,
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
                Some(asked) = turns.recv() => {
                    self.carry_out(asked, state).await;
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

    /// Does what is asked, and tells what came of it.
    async fn carry_out(&mut self, asked: Asked, state: &watch::Sender<ProgramState>) {
        let outcome = match asked.turn {
            // nobody is there to go on meanwhile
            Turn::Restart | Turn::Hold(_) | Turn::Renew if self.child.is_none() => self.replace(state).await,
            Turn::Restart => self.replace(state).await,
            Turn::Hold(drain) => {
                let left = self.door.shut();
                self.told(left.answered(drain).await, drain);
                let outcome = self.replace_quietly(state).await;
                self.left = self.door.open(&self.settings.url);
                outcome
            }
            Turn::Renew => self.renew().await,
            Turn::Retire(drain) => {
                let left = std::mem::take(&mut self.left);
                self.told(left.emptied(drain).await, drain);
                self.dismiss().await;
                Ok(())
            }
        };
        if asked.done.send(outcome.map_err(Arc::new)).is_err() {
            log::debug!("nobody waits for the restart any more");
        }
    }

    fn told(&self, is_drained: bool, limit: Duration) {
        if !is_drained {
            log::warn!("program ends with requests unfinished url={} waited={limit:?}", self.settings.url);
        }
    }

    /// Ends the command and starts it again.
    async fn replace(&mut self, state: &watch::Sender<ProgramState>) -> Result<(), ProgramError> {
        state.send_replace(ProgramState::Down);
        self.replace_quietly(state).await
    }

    /// The same, without a word that it is down.
    async fn replace_quietly(&mut self, state: &watch::Sender<ProgramState>) -> Result<(), ProgramError> {
        self.terminate().await;
        let outcome = self.bring_up().await;
        match &outcome {
            Ok(()) => {
                state.send_replace(ProgramState::Up);
            }
            Err(error) => {
                self.terminate().await;
                self.tell_failure(error).await;
                state.send_replace(ProgramState::Down);
            }
        }
        outcome
    }

    /// Starts another beside it, which gets the requests once its port accepts.
    async fn renew(&mut self) -> Result<(), ProgramError> {
        self.dismiss().await; // of an earlier turn
        let Some(template) = &self.settings.template else { return Err(ProgramError::NoCommand) };
        let before = self.settings.launch(template.anywhere()?);
        let (readers, last) = (self.readers.clone(), self.last.clone());
        self.leaving = self.child.take();
        let outcome = self.bring_up().await;
        match &outcome {
            Ok(()) => self.left = self.door.open(&self.settings.url),
            Err(error) => {
                self.terminate().await;
                self.tell_failure(error).await;
                self.child = self.leaving.take();
                (self.readers, self.last) = (readers, last);
                drop(self.settings.launch(before));
            }
        }
        outcome
    }

    /// Tells that the program does not start, with what it printed last.
    pub async fn tell_failure(&self, error: &ProgramError) {
        // what came last may still be in the pipe
        self.readers.finished(READ_LIMIT).await;
        let last = self.last.take();
        let words = if last.is_empty() { "it printed nothing" } else { "its last lines:" };
        let lines: String = last.iter().map(|line| format!("\n    {line}")).collect();
        let error = crate::causes::chain(error);
        log::error!("program does not start, trying again at the next change of a file: {error}; {words}{lines}");
    }

    /// Ends a started command and waits for it; what it ended with.
    pub async fn terminate(&mut self) -> Option<ExitStatus> {
        let command = self.command();
        end(&mut self.child, self.settings.stop_timeout, &command).await
    }

    /// The same of the one before.
    pub async fn dismiss(&mut self) {
        let command = self.command();
        end(&mut self.leaving, self.settings.stop_timeout, &command).await;
    }

    /// Of both, each while the other ends.
    pub async fn end_all(&mut self) {
        let (command, limit) = (self.command(), self.settings.stop_timeout);
        tokio::join!(end(&mut self.leaving, limit, &command), end(&mut self.child, limit, &command));
    }
}

/// It stays in its place, where `Drop` finds it, until it has ended: this may be given up.
async fn end(place: &mut Option<Child>, limit: Duration, command: &str) -> Option<ExitStatus> {
    let child = place.as_mut()?;
    signal(child, Signal::TERM);
    let ended = match tokio::time::timeout(limit, child.wait()).await {
        Ok(ended) => ended,
        Err(_) => {
            log::warn!("program ignored SIGTERM, killing it command=`{command}` waited={limit:?}");
            signal(child, Signal::KILL);
            child.wait().await
        }
    };
    *place = None;
    match ended {
        Ok(status) => Some(status),
        Err(error) => {
            log::error!("cannot wait for the program command=`{command}` error={error}");
            None
        }
    }
}

impl Drop for Runner {
    /// A start that is given up (Ctrl-C meanwhile) leaves nothing behind; `kill_on_drop` would end the command alone.
    fn drop(&mut self) {
        for child in [&self.child, &self.leaving].into_iter().flatten() {
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
