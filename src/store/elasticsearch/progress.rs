//! One line where something begins to take long, and one at its end.

use std::time::{Duration, Instant};

/// Longer than this, somebody who watches the log begins to wonder.
const LONG: Duration = Duration::from_secs(1);

/// Does `work`; `what` says what it is, as `deleting 40 old trace indices`.
pub(super) async fn told<T>(what: &str, work: impl Future<Output = T>) -> T {
    told_after(LONG, |line| log::info!("{line}"), what, work).await
}

async fn told_after<T>(long: Duration, mut say: impl FnMut(String), what: &str, work: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let mut work = std::pin::pin!(work);
    if let Ok(done) = tokio::time::timeout(long, &mut work).await {
        return done;
    }
    say(format!("{what}: this takes a while"));
    let done = work.await;
    say(format!("{what}: ended after {:.1} s", began.elapsed().as_secs_f64()));
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_takes_long_is_told() {
        let lines = std::cell::RefCell::new(Vec::new());
        let say = |line: String| lines.borrow_mut().push(line);
        assert_eq!(told_after(Duration::from_secs(3600), say, "counting", async { 7 }).await, 7);
        assert!(lines.borrow().is_empty());
        let until_told = std::future::poll_fn(|context| {
            if lines.borrow().is_empty() {
                context.waker().wake_by_ref();
                return std::task::Poll::Pending;
            }
            std::task::Poll::Ready(8)
        });
        assert_eq!(told_after(Duration::from_millis(1), say, "counting", until_told).await, 8);
        let lines = lines.borrow();
        assert_eq!(lines[0], "counting: this takes a while");
        assert!(lines.len() == 2 && lines[1].starts_with("counting: ended after "), "{lines:?}");
    }
}
