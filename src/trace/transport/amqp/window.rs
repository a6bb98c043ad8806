//! Messages between publishing and confirmation.

use std::collections::VecDeque;

use futures_util::future::LocalBoxFuture;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use lapin::Confirmation;

/// What is published and not confirmed, in deliveries of one or more messages.
#[derive(Default)]
pub(super) struct Window {
    messages: FuturesUnordered<LocalBoxFuture<'static, (u64, lapin::Result<Confirmation>)>>,
    /// Unconfirmed messages of each delivery, oldest first.
    deliveries: VecDeque<usize>,
    /// The number of the first of them; they are counted from the beginning.
    first: u64,
}

/// Why the window failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// No queue takes a message; what the broker says.
    Returned(String),
    /// The broker cannot keep a message.
    Refused,
    /// The channel or the connection ended.
    Lost(lapin::Error),
}

impl Window {
    pub fn is_empty(&self) -> bool {
        self.deliveries.is_empty()
    }

    /// Adds a delivery: futures that publish its messages and end with the broker's answer.
    pub fn push<Answer>(&mut self, messages: impl Iterator<Item = Answer>)
    where
        Answer: Future<Output = lapin::Result<Confirmation>> + 'static,
    {
        let number = self.first + self.deliveries.len() as u64;
        let before = self.messages.len();
        self.messages.extend(messages.map(|answer| answer.map(move |answer| (number, answer)).boxed_local()));
        self.deliveries.push_back(self.messages.len() - before);
    }

    /// Waits for answers; then says how many deliveries from the oldest on are confirmed.
    ///
    /// All answers that are there are looked at before one counts: lapin hands a message that was returned to whichever
    /// confirmation comes next, which may be another message's. It comes no later than that of the returned message
    /// itself, so who sees that one sees the other too.
    ///
    /// # Errors
    /// [`Failure`] of any message; then nothing that was not told before may count as delivered.
    ///
    /// # Cancel safety
    /// No answer is lost.
    pub async fn answers(&mut self) -> Result<usize, Failure> {
        // a delivery without messages has no answer to wait for
        let mut next = if self.deliveries.front() == Some(&0) { None } else { self.messages.next().await };
        let mut failure = None;
        while let Some((number, answer)) = next {
            match answer {
                Ok(Confirmation::Ack(None)) => {
                    let place = usize::try_from(number - self.first).ok();
                    if let Some(open) = place.and_then(|place| self.deliveries.get_mut(place)) {
                        *open -= 1;
                    }
                }
                Ok(Confirmation::Ack(Some(returned)) | Confirmation::Nack(Some(returned))) => {
                    failure = Some(Failure::Returned(returned.reply_text.to_string()));
                }
                Ok(Confirmation::Nack(None) | Confirmation::NotRequested) => {
                    failure = failure.or(Some(Failure::Refused))
                }
                Err(error) => failure = failure.or(Some(Failure::Lost(error))),
            }
            next = self.messages.next().now_or_never().flatten();
        }
        if let Some(failure) = failure {
            return Err(failure);
        }
        let confirmed = self.deliveries.iter().take_while(|open| **open == 0).count();
        self.deliveries.drain(..confirmed);
        self.first += confirmed as u64;
        Ok(confirmed)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::{pending, ready};
    use lapin::message::{BasicReturnMessage, Delivery};
    use tokio::sync::oneshot;

    use super::*;

    type Answer = lapin::Result<Confirmation>;

    /// A window of deliveries of so many messages each, and what answers them.
    fn window(deliveries: &[usize]) -> (Window, Vec<Option<oneshot::Sender<Answer>>>) {
        let (mut window, mut brokers) = (Window::default(), Vec::new());
        for &messages in deliveries {
            let (ours, answers): (Vec<_>, Vec<_>) = (0..messages).map(|_| oneshot::channel::<Answer>()).unzip();
            brokers.extend(ours.into_iter().map(Some));
            window.push(answers.into_iter().map(|answer| async { answer.await.unwrap() }));
        }
        (window, brokers)
    }

    fn answers(window: &mut Window) -> Option<Result<usize, Failure>> {
        window.answers().now_or_never()
    }

    fn says(brokers: &mut [Option<oneshot::Sender<Answer>>], which: &[usize], what: fn() -> Answer) {
        which.iter().for_each(|&which| brokers[which].take().unwrap().send(what()).unwrap());
    }

    fn ack() -> Answer {
        Ok(Confirmation::Ack(None))
    }

    fn returned() -> Answer {
        let delivery = Delivery::mock(0, "".into(), "trace".into(), false, Vec::new());
        let message = BasicReturnMessage { delivery, reply_code: 312, reply_text: "NO_ROUTE".into() };
        Ok(Confirmation::Ack(Some(message)))
    }

    #[test]
    fn deliveries_count_in_their_order_whatever_the_order_of_answers() {
        let (mut window, mut brokers) = window(&[1, 2, 1, 1]);
        assert!(answers(&mut window).is_none());
        says(&mut brokers, &[3, 1], ack);
        assert!(matches!(answers(&mut window), Some(Ok(0))), "the oldest is open");
        says(&mut brokers, &[0], ack);
        assert!(matches!(answers(&mut window), Some(Ok(1))), "the second is half open");
        says(&mut brokers, &[2], ack);
        assert!(matches!(answers(&mut window), Some(Ok(2))));
        window.push([ready(ack()), ready(ack())].into_iter());
        says(&mut brokers, &[4], ack);
        assert!(matches!(answers(&mut window), Some(Ok(2))));
        assert!(window.is_empty());
    }

    #[test]
    fn a_returned_message_on_another_ones_confirmation_is_seen_before_any_counts() {
        let (mut window, mut brokers) = window(&[1, 1, 1, 1]);
        // it is the first message that came back; lapin tells so with whichever answer comes next
        says(&mut brokers, &[3], returned);
        says(&mut brokers, &[0, 1, 2], ack);
        assert!(matches!(answers(&mut window), Some(Err(Failure::Returned(reason))) if reason == "NO_ROUTE"));
    }

    #[test]
    fn whatever_else_fails_is_told_and_a_returned_message_before_it() {
        for (what, is_it) in [
            (
                (|| Ok(Confirmation::Nack(None))) as fn() -> Answer,
                (|failure| matches!(failure, Failure::Refused)) as fn(&Failure) -> bool,
            ),
            (|| Err(lapin::ErrorKind::InvalidChannel(1).into()), |failure| matches!(failure, Failure::Lost(_))),
        ] {
            let (mut window, mut brokers) = window(&[1, 1, 1]);
            says(&mut brokers, &[1], what);
            says(&mut brokers, &[0], ack);
            assert!(matches!(answers(&mut window), Some(Err(failure)) if is_it(&failure)));
            let (mut window, mut brokers) = super::tests::window(&[1, 1]);
            says(&mut brokers, &[0], what);
            says(&mut brokers, &[1], returned);
            assert!(matches!(answers(&mut window), Some(Err(Failure::Returned(_)))));
        }
    }

    #[test]
    fn a_delivery_without_messages_waits_for_nobody() {
        let mut window = Window::default();
        window.push(std::iter::empty::<std::future::Ready<Answer>>());
        window.push([pending::<Answer>()].into_iter());
        assert!(matches!(answers(&mut window), Some(Ok(1))));
        assert!(answers(&mut window).is_none() && !window.is_empty());
    }
}
