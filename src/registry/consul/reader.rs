//! Follows the agent by two blocking queries, one on checks and one on marks. Each answer is the whole state, so whatever
//! was missed while the agent was away is made good by the next.

use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::Shared;
use super::api::{ApiError, News};
use super::view::View;
use crate::backoff::Backoff;
use crate::causes::chain;
use crate::registry::remembered::Remembered;
use crate::shutdown::Shutdown;

/// Short enough that everything is back within 5 s of the agent's return, long enough to cost nothing while it is away.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
const BACKOFF_CAP: Duration = Duration::from_secs(1);

/// Runs until the end. The view outlives the connections. Where the first one fails, what is remembered has its place.
pub(super) async fn follow(shared: Arc<Shared>, mut remembered: Option<Arc<Remembered>>, shutdown: Shutdown) {
    let mut view = View::new(&shared.namespace, shared.grace);
    let mut backoff = Backoff::seeded(BACKOFF_FIRST, BACKOFF_CAP);
    let mut up = None;
    loop {
        let session = session(&shared, &mut view, &mut up, &mut backoff);
        let error = tokio::select! {
            () = shared.ended(&shutdown) => return,
            ended = session => match ended { Err(error) => error, Ok(never) => match never {} },
        };
        let told = chain(&error);
        if up.replace(false) != Some(false) {
            shared.connected.set(0);
            log::warn!("consul at `{}` is unavailable, retrying: {told}", shared.api.address());
        }
        *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = Some(told);
        if error.is_away()
            && let Some(remembered) = remembered.take()
        {
            remembered.recall(&shared.publisher, "consul").await;
        }
        view.gap(Instant::now());
        let wait = sleep(backoff.next_wait());
        tokio::pin!(wait);
        loop {
            let expiry = view.next_expiry(|id| shared.is_own(id));
            tokio::select! {
                () = shared.ended(&shutdown) => return,
                () = &mut wait => break,
                () = until(expiry) => expire(&shared, &mut view),
            }
        }
    }
}

/// One connection's life: returns why it ended.
async fn session(
    shared: &Shared,
    view: &mut View,
    up: &mut Option<bool>,
    backoff: &mut Backoff,
) -> Result<Infallible, ApiError> {
    let prefix = shared.marks();
    let checks = shared.api.checks(&shared.namespace, 0).await?;
    let marks = shared.api.marks(&prefix, 0).await?;
    if up.replace(true) == Some(false) {
        log::info!("consul at `{}` is back", shared.api.address());
        view.gap(Instant::now());
    }
    *shared.trouble.lock().unwrap_or_else(PoisonError::into_inner) = None;
    shared.connected.set(1);
    backoff.reset();
    // In this order: a node that is missing keeps its mark.
    view.read(&checks.body, Instant::now(), |id| shared.is_own(id), &shared.malformed);
    view.mark(marks.body);
    shared.publisher.publish(view.nodes());

    let (mut at_checks, mut at_marks) = (checks.index, marks.index);
    let mut more_checks = Box::pin(shared.api.checks(&shared.namespace, at_checks));
    let mut more_marks = Box::pin(shared.api.marks(&prefix, at_marks));
    loop {
        let expiry = view.next_expiry(|id| shared.is_own(id));
        tokio::select! {
            news = &mut more_checks => {
                let News { index, body } = news?;
                anew(&mut at_checks, index, view);
                view.read(&body, Instant::now(), |id| shared.is_own(id), &shared.malformed);
                shared.publisher.publish(view.nodes());
                more_checks.set(shared.api.checks(&shared.namespace, at_checks));
            }
            news = &mut more_marks => {
                let News { index, body } = news?;
                at_marks = index;
                view.mark(body);
                shared.publisher.publish(view.nodes());
                more_marks.set(shared.api.marks(&prefix, at_marks));
            }
            () = shared.gap.notified() => view.gap(Instant::now()),
            () = until(expiry) => expire(shared, view),
        }
    }
}

/// Index 0: the servers began anew, so that nodes may have to put themselves back.
fn anew(at: &mut u64, index: u64, view: &mut View) {
    *at = index;
    if index == 0 {
        view.gap(Instant::now());
    }
}

fn expire(shared: &Shared, view: &mut View) {
    if view.expire(Instant::now(), |id| shared.is_own(id)) {
        shared.publisher.publish(view.nodes());
    }
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
