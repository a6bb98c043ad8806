//! A line now and then of work that takes long.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

/// Shorter work says nothing.
const EVERY: Duration = Duration::from_secs(1);

/// Does the work; each second that it takes is logged: `what`, then for how long.
pub(super) fn told<T>(what: &str, work: impl FnOnce() -> T) -> T {
    telling(EVERY, |since| log::info!("{what} goes on seconds={}", since.as_secs()), work)
}

fn telling<T>(every: Duration, tell: impl Fn(Duration) + Send, work: impl FnOnce() -> T) -> T {
    thread::scope(|scope| {
        let (working, ended) = channel::<()>();
        let begun = Instant::now();
        let told = thread::Builder::new().name("goms-progress".to_owned()).spawn_scoped(scope, move || {
            while ended.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                tell(begun.elapsed());
            }
        });
        if let Err(error) = told {
            log::debug!("no thread to tell of progress error={error}");
        }
        let result = work();
        drop(working);
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_work_is_told_of_until_it_ends() {
        let (tell, told) = channel();
        let tell = move |since: Duration| tell.send(since).expect("the test listens");
        let found =
            telling(Duration::from_millis(1), tell, || (told.recv().expect("told"), told.recv().expect("again")));
        assert!(found.0 < found.1);
    }

    #[test]
    fn short_work_is_not() {
        let tell = |_| panic!("there is nothing to tell");
        assert_eq!(telling(Duration::from_secs(3600), tell, || 7), 7);
    }
}
