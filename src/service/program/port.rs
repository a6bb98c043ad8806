//! Whether a program listens.

use std::time::Duration;

use tokio::net::TcpStream;
use tokio::sync::watch;

use super::ProgramState;
use crate::service::ProgramUrl;

/// How often the port is looked at while the program starts, and while it runs.
const START_POLL: Duration = Duration::from_millis(20);
const PORT_POLL: Duration = Duration::from_millis(500);

/// Refusals in a row after which a running program counts as down.
const REFUSALS: u32 = 2;

/// What a program's port does.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Port {
    /// It takes connections.
    Accepts,
    /// Nobody listens.
    Refuses,
    /// Neither: it is too busy to accept, or cannot be reached.
    Silent,
}

/// Looks once.
pub async fn look(url: &ProgramUrl) -> Port {
    match tokio::time::timeout(Duration::from_secs(1), TcpStream::connect(url.socket())).await {
        Ok(Ok(_)) => Port::Accepts,
        Ok(Err(error)) if error.kind() == std::io::ErrorKind::ConnectionRefused => Port::Refuses,
        Ok(Err(_)) | Err(_) => Port::Silent,
    }
}

/// Resolves once it accepts.
pub async fn wait(url: &ProgramUrl) {
    while look(url).await != Port::Accepts {
        tokio::time::sleep(START_POLL).await;
    }
}

/// Tells `state` when a program refuses connections and when it accepts them again.
pub async fn follow(url: &ProgramUrl, state: &watch::Sender<ProgramState>) -> std::convert::Infallible {
    let mut refusals = 0;
    loop {
        tokio::time::sleep(PORT_POLL).await;
        match look(url).await {
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
