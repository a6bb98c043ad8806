//! How long somebody is let in: what they read without end ends with it.

use std::future::pending;
use std::time::Instant;

use tokio::sync::watch;

/// Until when somebody is let in. The default has no end.
#[derive(Clone, Debug, Default)]
pub struct Stay {
    /// Its sender is dropped at the end.
    closes: Option<watch::Receiver<()>>,
    until: Option<Instant>,
}

impl Stay {
    /// One that ends when the sender is dropped, or at that time.
    pub(super) fn until_closed(closes: watch::Receiver<()>, until: Option<Instant>) -> Self {
        Self { closes: Some(closes), until }
    }

    /// Waits for the end.
    ///
    /// # Cancel safety
    /// Whoever stops to wait may wait again.
    pub async fn ended(&mut self) {
        let until = self.until;
        let expired = async {
            match until {
                Some(until) => tokio::time::sleep_until(until.into()).await,
                None => pending().await,
            }
        };
        let closed = async {
            match &mut self.closes {
                Some(closes) => while closes.changed().await.is_ok() {},
                None => pending().await,
            }
        };
        tokio::select! {
            () = expired => {}
            () = closed => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn it_ends_at_its_time() {
        use futures_util::FutureExt;

        let (sender, receiver) = watch::channel(());
        let mut stay = Stay::until_closed(receiver, Some(Instant::now()));
        stay.ended().await;
        stay.until = None;
        assert!(stay.ended().now_or_never().is_none() && Stay::default().ended().now_or_never().is_none());
        drop(sender);
        stay.ended().await;
    }
}
