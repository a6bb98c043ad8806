//! The program behind a node: started if there is a command, watched by its port, restarted, ended.
//!
//! ```text
//!          port accepts            exits, or refuses connections twice
//! starting ─────────────▶ up ─────────────────────────────────────────▶ down ──▶ (wait, start again) ──▶ up
//!                                                                        └─▶ ended: nothing will bring it back
//! ```

mod lines;
mod place;
mod port;
mod runner;
mod settings;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};

pub use self::lines::{Lines, Stream};
pub use self::place::{Door, Launch, PORT_PLACEHOLDER, Template};
pub(in crate::service) use self::place::{Place, Visit};
use self::port::Port;
use self::runner::{Asked, Runner, Turn};
pub use self::settings::{ProgramError, ProgramSettings, ProgramState, Restart};
use crate::service::ProgramUrl;
use crate::shutdown::Shutdown;

/// A watched program. Dropping it ends it as [`Program::stop`] does, but does not wait.
#[derive(Debug)]
pub struct Program {
    state: Arc<watch::Sender<ProgramState>>,
    turns: mpsc::Sender<Asked>,
    door: Door,
    can_renew: bool,
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
        let mut runner = Runner::new(settings);
        let (door, can_renew) = (runner.door.clone(), runner.settings.template.is_some());
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
        let (turns, mut asked) = mpsc::channel(1);
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
            runner.end_all().await;
        });
        Ok(Self { state, turns, door, can_renew, shutdown, stop_timeout })
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

    /// Where requests for it go, for [`serve_program`](crate::service::serve_program).
    #[must_use]
    pub fn door(&self) -> Door {
        self.door.clone()
    }

    /// Ends the command and starts it again; resolves once its port accepts.
    ///
    /// # Errors
    /// Why it does not start; it was told in the log, and the program stays down until the next restart.
    pub async fn restart(&self) -> Result<(), Arc<ProgramError>> {
        self.take(Turn::Restart).await
    }

    /// The same while requests wait at the [door](Program::door); those that are with it get so long to end.
    ///
    /// # Errors
    /// Those of [`Program::restart`].
    pub async fn restart_held(&self, drain: Duration) -> Result<(), Arc<ProgramError>> {
        self.take(Turn::Hold(drain)).await
    }

    /// Whether it may run at any port, so that [`Program::renew`] is for it.
    #[must_use]
    pub fn can_renew(&self) -> bool {
        self.can_renew
    }

    /// Starts the command at another port beside the one that runs, and sends requests there once that accepts. The one before
    /// stays until [`Program::retire`].
    ///
    /// # Errors
    /// Why it does not start; it was told in the log, and the one before goes on as if nothing had been.
    pub async fn renew(&self) -> Result<Option<ProgramUrl>, Arc<ProgramError>> {
        self.take(Turn::Renew).await?;
        Ok(self.door.url())
    }

    /// Ends the one before, whose requests get so long to end.
    ///
    /// # Errors
    /// [`ProgramError::Gone`].
    pub async fn retire(&self, drain: Duration) -> Result<(), Arc<ProgramError>> {
        self.take(Turn::Retire(drain)).await
    }

    async fn take(&self, turn: Turn) -> Result<(), Arc<ProgramError>> {
        let (done, outcome) = oneshot::channel();
        let gone = || Arc::new(ProgramError::Gone);
        self.turns.send(Asked { turn, done }).await.map_err(|_| gone())?;
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
