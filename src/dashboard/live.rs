//! Pages that change while they are read: server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! ```text
//! topic (one task while somebody watches)            each watcher
//! render → fragments → those that changed, numbered → id: <topic's birth>-<number>   data: {"<id>": "<html>", …}
//! ```
//! - A topic is rendered once a tick for all its watchers, and not at all while nobody watches.
//! - A fragment goes over the wire only when it changed. Who comes back after a break says the last number that it saw
//!   (`Last-Event-ID`) and gets what changed since; of another birth (the process started anew) it gets everything.
//! - A stream ends at once when the process ends, so it holds up no drain; the browser comes back by itself. It ends with the
//!   login of who reads it, too.

use std::collections::HashMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actix_web::http::header::{CACHE_CONTROL, HeaderName};
use actix_web::{HttpMessage, HttpRequest, HttpResponse};
use bytes::Bytes;
use futures_util::Stream;
use serde_json::{Map, Value};
use tokio::sync::watch;

use super::Visitor;
use super::login::Stay;
use crate::shutdown::Shutdown;

/// A part of a page: the id of the element and its new inside.
pub type Fragment = (&'static str, String);

/// Makes the fragments of a topic.
pub type Render = Box<dyn Fn() -> Pin<Box<dyn Future<Output = Vec<Fragment>> + Send>> + Send + Sync>;

/// How often a topic is rendered.
const EVERY: Duration = Duration::from_secs(2);
/// A topic that is slow to render (its store has much to count) rests twice as long as it took, but no longer than this.
const MOST_REST: Duration = Duration::from_secs(10);
/// A silent stream says that it is there, so that one whose reader left is noticed, and no proxy between gives up.
const STILL_THERE: Duration = Duration::from_secs(15);
/// Topics at once; a page asks for one.
const MOST_TOPICS: usize = 64;
/// Readers of one topic at once.
const MOST_WATCHERS: usize = 256;

/// The topics that are watched.
#[derive(Default)]
pub(super) struct Live {
    topics: Mutex<HashMap<String, watch::Sender<Arc<Frame>>>>,
}

/// What a topic showed last.
#[derive(Debug, Default)]
struct Frame {
    birth: String,
    number: u64,
    fragments: Vec<Shown>,
}

#[derive(Clone, Debug)]
struct Shown {
    id: &'static str,
    html: String,
    /// The number of the frame in which it became so.
    since: u64,
}

impl Frame {
    /// The frame after this one; `None` where nothing changed.
    fn next(&self, fragments: Vec<Fragment>) -> Option<Self> {
        let number = self.number + 1;
        let mut has_changed = fragments.len() != self.fragments.len();
        let shown = fragments.into_iter().map(|(id, html)| {
            let same = self.fragments.iter().find(|before| before.id == id && before.html == html);
            has_changed |= same.is_none();
            Shown { id, html, since: same.map_or(number, |before| before.since) }
        });
        let fragments = shown.collect();
        has_changed.then(|| Self { birth: self.birth.clone(), number, fragments })
    }

    /// What changed after a frame, as an event.
    fn event(&self, after: u64) -> Bytes {
        let changed = self.fragments.iter().filter(|shown| shown.since > after);
        let parts: Map<String, Value> =
            changed.map(|shown| (shown.id.to_owned(), Value::from(shown.html.as_str()))).collect();
        Bytes::from(format!("id: {}-{}\ndata: {}\n\n", self.birth, self.number, Value::Object(parts)))
    }
}

impl Live {
    /// Answers a request for a stream. `topic` names what is shown, as exactly as needed for two readers to share it.
    pub fn answer(
        self: &Arc<Self>,
        request: &HttpRequest,
        topic: String,
        shutdown: &Shutdown,
        render: impl FnOnce() -> Render,
    ) -> HttpResponse {
        let Some(frames) = self.watch(topic, shutdown, render) else {
            return HttpResponse::ServiceUnavailable().body("too many pages are watched; close some\n");
        };
        let stay = request.extensions().get::<Visitor>().map(|visitor| visitor.stay.clone()).unwrap_or_default();
        let last = request.headers().get("last-event-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
        let seen = last.rsplit_once('-').and_then(|(birth, number)| Some((birth.to_owned(), number.parse().ok()?)));
        HttpResponse::Ok()
            .content_type("text/event-stream")
            .insert_header((CACHE_CONTROL, "no-store"))
            .insert_header((HeaderName::from_static("x-accel-buffering"), "no")) // nginx keeps back what it passes
            .streaming(events(frames, seen, (shutdown.clone(), stay)))
    }

    fn watch(
        self: &Arc<Self>,
        topic: String,
        shutdown: &Shutdown,
        render: impl FnOnce() -> Render,
    ) -> Option<watch::Receiver<Arc<Frame>>> {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = topics.get(&topic) {
            return (known.receiver_count() < MOST_WATCHERS).then(|| known.subscribe());
        }
        if topics.len() == MOST_TOPICS || shutdown.has_begun() {
            return None;
        }
        let birth = uuid::Uuid::new_v4().simple().to_string();
        let (sender, receiver) = watch::channel(Arc::new(Frame { birth, ..Frame::default() }));
        topics.insert(topic.clone(), sender.clone());
        let (live, render, ending) = (self.clone(), render(), shutdown.clone());
        shutdown.spawn(async move {
            tokio::select! {
                () = ending.begun() => {}
                () = live.keep(&topic, &sender, &render) => {}
            }
            live.forget(&topic, &sender);
        });
        Some(receiver)
    }

    /// Renders as long as somebody watches.
    async fn keep(&self, topic: &str, sender: &watch::Sender<Arc<Frame>>, render: &Render) {
        loop {
            let began = Instant::now();
            let fragments = render().await;
            sender.send_if_modified(|frame| match frame.next(fragments) {
                Some(next) => {
                    *frame = Arc::new(next);
                    true
                }
                None => false,
            });
            tokio::select! {
                () = tokio::time::sleep((began.elapsed() * 2).clamp(EVERY, MOST_REST)) => {}
                () = sender.closed() => {}
            }
            let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
            if sender.receiver_count() == 0 {
                topics.remove(topic); // under the lock, so nobody can have come since
                return;
            }
        }
    }

    fn forget(&self, topic: &str, sender: &watch::Sender<Arc<Frame>>) {
        let mut topics = self.topics.lock().unwrap_or_else(PoisonError::into_inner);
        if topics.get(topic).is_some_and(|known| known.same_channel(sender)) {
            topics.remove(topic);
        }
    }
}

/// The stream of one reader, who saw that frame last, until the process ends or they are let in no more.
fn events(
    frames: watch::Receiver<Arc<Frame>>,
    seen: Option<(String, u64)>,
    (shutdown, stay): (Shutdown, Stay),
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    struct Reader {
        frames: watch::Receiver<Arc<Frame>>,
        seen: Option<(String, u64)>,
        is_new: bool,
        shutdown: Shutdown,
        stay: Stay,
    }
    let reader = Reader { frames, seen, is_new: true, shutdown, stay };
    futures_util::stream::unfold(reader, |mut reader| async move {
        if reader.is_new {
            reader.is_new = false;
            reader.frames.mark_changed(); // what is known already is news to this one
            return Some((Ok(Bytes::from_static(b"retry: 2000\n\n")), reader));
        }
        loop {
            tokio::select! {
                () = reader.shutdown.begun() => return None,
                () = reader.stay.ended() => return None,
                changed = reader.frames.changed() => {
                    changed.ok()?;
                    let frame = reader.frames.borrow_and_update().clone();
                    let after = reader.seen.as_ref().filter(|(birth, _)| *birth == frame.birth).map_or(0, |seen| seen.1);
                    if frame.number <= after {
                        continue; // nothing yet, or nothing new
                    }
                    let event = frame.event(after);
                    reader.seen = Some((frame.birth.clone(), frame.number));
                    return Some((Ok(event), reader));
                }
                () = tokio::time::sleep(STILL_THERE) => return Some((Ok(Bytes::from_static(b":\n\n")), reader)),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use futures_util::StreamExt;

    use super::*;

    fn text(event: &Bytes) -> (String, Value) {
        let text = std::str::from_utf8(event).expect("UTF-8");
        let (id, data) = text.trim_end().split_once("\ndata: ").expect("an event");
        (id.trim_start_matches("id: ").to_owned(), serde_json::from_str(data).expect("JSON"))
    }

    #[test]
    fn only_what_changed_is_sent() {
        let first = Frame { birth: "b".into(), ..Frame::default() };
        let first = first.next(vec![("a", "1".into()), ("b", "x".into())]).expect("new");
        assert_eq!(text(&first.event(0)), ("b-1".into(), serde_json::json!({"a": "1", "b": "x"})));
        assert!(first.next(vec![("a", "1".into()), ("b", "x".into())]).is_none());
        let second = first.next(vec![("a", "2".into()), ("b", "x".into())]).expect("changed");
        assert_eq!(text(&second.event(1)), ("b-2".into(), serde_json::json!({"a": "2"})));
        let third = second.next(vec![("a", "2".into()), ("b", "<y>\n".into())]).expect("changed");
        assert_eq!(text(&third.event(1)).1, serde_json::json!({"a": "2", "b": "<y>\n"}), "after a break");
        assert!(
            !String::from_utf8_lossy(&third.event(2)).trim_end().contains('\n')
                || third.event(2).iter().filter(|b| **b == b'\n').count() == 3
        );
    }

    #[tokio::test]
    async fn a_topic_is_made_once_for_all_and_ends_with_its_last_reader() {
        let (live, shutdown, made) = (Arc::new(Live::default()), Shutdown::new(), Arc::new(AtomicUsize::new(0)));
        let watch = || {
            let made = made.clone();
            let render = move || -> Render {
                Box::new(move || {
                    let number = made.fetch_add(1, Ordering::Relaxed);
                    Box::pin(async move { vec![("a", number.to_string())] })
                })
            };
            live.watch("t".into(), &shutdown, render).expect("room")
        };
        let (one, two) = (watch(), watch());
        let mut one = Box::pin(events(one, None, (shutdown.clone(), Stay::default())));
        let mut two = Box::pin(events(two, None, (shutdown.clone(), Stay::default())));
        assert!(one.next().await.expect("open").expect("ok").starts_with(b"retry"));
        let first = one.next().await.expect("open").expect("ok");
        two.next().await.expect("open").expect("ok");
        assert_eq!(two.next().await.expect("open").expect("ok"), first, "both see the same frame");
        assert_eq!(made.load(Ordering::Relaxed), 1);
        drop((one, two));
        assert!(shutdown.finished(Duration::from_secs(10)).await, "the task ends by itself");
        assert!(live.topics.lock().expect("no panic").is_empty());
    }

    #[tokio::test]
    async fn a_reader_resumes_and_the_end_of_the_process_ends_it() {
        let shutdown = Shutdown::new();
        let frame = Frame { birth: "b".into(), ..Frame::default() };
        let frame = frame.next(vec![("a", "1".into()), ("b", "x".into())]).expect("new");
        let frame = frame.next(vec![("a", "2".into()), ("b", "x".into())]).expect("changed");
        let (sender, receiver) = watch::channel(Arc::new(frame));
        for (seen, gets) in [
            (Some(("b".to_owned(), 1)), serde_json::json!({"a": "2"})),
            (Some(("other".to_owned(), 2)), serde_json::json!({"a": "2", "b": "x"})),
            (None, serde_json::json!({"a": "2", "b": "x"})),
        ] {
            let mut reader = Box::pin(events(receiver.clone(), seen, (shutdown.clone(), Stay::default())));
            reader.next().await.expect("open").expect("ok");
            assert_eq!(text(&reader.next().await.expect("open").expect("ok")).1, gets);
        }
        let mut reader = Box::pin(events(receiver, Some(("b".to_owned(), 2)), (shutdown.clone(), Stay::default())));
        reader.next().await.expect("open").expect("ok");
        shutdown.begin();
        assert!(reader.next().await.is_none());
        drop(sender);
    }
}
