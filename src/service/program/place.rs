//! Where a program is, and where requests for it go meanwhile.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use super::ProgramError;
use crate::service::app::{ProgramUrl, ProgramUrlError};
use crate::upstream::http1::Target;

/// Stands for the port that a program is given.
pub const PORT_PLACEHOLDER: &str = "{port}";

/// How often requests in flight are counted while they end.
const COUNT_EVERY: Duration = Duration::from_millis(20);

/// How a program is started at any port: `{port}` stands for it in each of the texts.
#[derive(Clone, Debug)]
pub struct Template {
    /// Where it listens.
    pub url: String,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// What its environment has.
    pub env: Vec<(String, String)>,
}

/// A template at one port.
#[derive(Debug)]
pub struct Launch {
    /// Where it listens.
    pub url: ProgramUrl,
    /// The command and its arguments.
    pub command: Vec<String>,
    /// What its environment has.
    pub env: Vec<(String, String)>,
}

impl Template {
    /// At this port.
    ///
    /// # Errors
    /// When `url` is none of a program.
    pub fn at(&self, port: u16) -> Result<Launch, ProgramUrlError> {
        let port = port.to_string();
        let with_port = |text: &str| text.replace(PORT_PLACEHOLDER, &port);
        Ok(Launch {
            url: with_port(&self.url).parse()?,
            command: self.command.iter().map(|word| with_port(word)).collect(),
            env: self.env.iter().map(|(name, value)| (name.clone(), with_port(value))).collect(),
        })
    }

    /// At a port that nobody has now.
    ///
    /// # Errors
    /// [`ProgramError::Port`], [`ProgramError::Url`].
    pub(super) fn anywhere(&self) -> Result<Launch, ProgramError> {
        let held = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(ProgramError::Port)?;
        let port = held.local_addr().map_err(ProgramError::Port)?.port();
        Ok(self.at(port)?)
    }
}

/// A program's address, as requests are sent to it. Who holds it has a request there.
#[derive(Debug)]
pub(in crate::service) struct Place {
    /// For people, and what stands before paths.
    pub url: ProgramUrl,
    /// For connections.
    pub target: Target,
    /// How many of the requests there are a [`Visit`] without an end of their own.
    endless: AtomicUsize,
}

/// A request at a place, until its answer is over.
#[derive(Debug)]
pub(in crate::service) struct Visit {
    place: Arc<Place>,
    is_endless: bool,
}

impl Visit {
    /// One whose answer may go on for ever (a WebSocket, a stream of events) is endless: nobody else waits for its end.
    pub fn new(place: Arc<Place>, is_endless: bool) -> Self {
        if is_endless {
            place.endless.fetch_add(1, Ordering::Relaxed);
        }
        Self { place, is_endless }
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if self.is_endless {
            self.place.endless.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

/// Where requests for a program go now; nowhere while it is shut: they wait. All workers share one with what runs the program.
#[derive(Clone, Debug)]
pub struct Door(Arc<watch::Sender<Option<Arc<Place>>>>);

impl From<&ProgramUrl> for Door {
    /// Open, and of a program that stays where it is.
    fn from(url: &ProgramUrl) -> Self {
        Self(Arc::new(watch::Sender::new(Some(place(url)))))
    }
}

fn place(url: &ProgramUrl) -> Arc<Place> {
    Arc::new(Place { url: url.clone(), target: Target::Named(url.authority().into()), endless: AtomicUsize::new(0) })
}

impl Door {
    /// The place to send a request to, to be held until its answer is over; `None`: it was shut for so long.
    pub(in crate::service) async fn enter(&self, limit: Duration) -> Option<Arc<Place>> {
        let now = self.0.borrow().clone();
        if now.is_some() {
            return now;
        }
        let mut seen = self.0.subscribe();
        let opened = tokio::time::timeout(limit, seen.wait_for(Option::is_some)).await;
        opened.ok()?.ok()?.clone()
    }

    /// Where requests go; `None`: it is shut.
    pub(super) fn url(&self) -> Option<ProgramUrl> {
        self.0.borrow().as_ref().map(|place| place.url.clone())
    }

    /// Sends requests there from now on; where they went before.
    pub(super) fn open(&self, url: &ProgramUrl) -> Left {
        Left(self.0.send_replace(Some(place(url))))
    }

    /// Lets requests wait; where they went before.
    pub(super) fn shut(&self) -> Left {
        Left(self.0.send_replace(None))
    }
}

/// A place where no more requests go.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Left(Option<Arc<Place>>);

impl Left {
    /// Resolves when no request is there any more. Returns whether that was within `limit`.
    pub async fn emptied(self, limit: Duration) -> bool {
        self.has_at_most(|_| 0, limit).await
    }

    /// The same, where others wait: endless ones may be there still.
    pub async fn answered(self, limit: Duration) -> bool {
        self.has_at_most(|place| place.endless.load(Ordering::Relaxed), limit).await
    }

    async fn has_at_most(self, most: impl Fn(&Place) -> usize, limit: Duration) -> bool {
        let Some(place) = self.0 else { return true };
        let counted = async {
            while Arc::strong_count(&place) > 1 + most(&place) {
                tokio::time::sleep(COUNT_EVERY).await;
            }
        };
        tokio::time::timeout(limit, counted).await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn url(port: u16) -> ProgramUrl {
        format!("http://127.0.0.1:{port}").parse().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_place_is_empty_when_its_requests_are_over() {
        let door = Door::from(&url(1));
        let request = door.enter(Duration::ZERO).await.unwrap();
        let left = door.open(&url(2));
        assert_eq!(door.enter(Duration::ZERO).await.unwrap().url, url(2));
        assert!(!left.emptied(Duration::from_secs(1)).await, "a request is there still");
        drop(request);
        assert!(door.shut().emptied(Duration::ZERO).await || door.url().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn whoever_waits_does_not_wait_for_a_web_socket() {
        let door = Door::from(&url(1));
        let at = async |is_endless| Visit::new(door.enter(Duration::ZERO).await.unwrap(), is_endless);
        let (socket, request) = (at(true).await, at(false).await);
        assert!(!door.shut().answered(Duration::from_secs(1)).await, "a request is there still");
        drop(request);
        assert!(door.open(&url(2)).answered(Duration::ZERO).await, "it was shut");
        drop(socket);
        let (socket, left) = (at(true).await, door.shut());
        assert!(left.answered(Duration::from_secs(1)).await);
        drop(door.open(&url(3)));
        drop(socket);
        let _socket = at(true).await;
        assert!(!door.open(&url(4)).emptied(Duration::from_secs(1)).await, "where nobody waits it has its time");
    }

    #[tokio::test(start_paused = true)]
    async fn requests_wait_before_a_shut_door() {
        let door = Door::from(&url(1));
        assert!(door.shut().emptied(Duration::from_secs(1)).await);
        assert!(door.enter(Duration::from_secs(1)).await.is_none(), "not for ever");
        let waiting = door.enter(Duration::from_secs(60));
        let opening = async {
            tokio::time::sleep(Duration::from_secs(5)).await;
            door.open(&url(2)).emptied(Duration::ZERO).await
        };
        let (entered, _) = tokio::join!(waiting, opening);
        assert_eq!(entered.unwrap().url, url(2));
    }

    #[test]
    fn a_template_is_one_at_each_port() {
        let template = Template {
            url: "http://127.0.0.1:{port}/base".to_owned(),
            command: vec!["shop".to_owned(), "--port={port}".to_owned()],
            env: vec![("PORT".to_owned(), "{port}".to_owned())],
        };
        let launch = template.at(7).unwrap();
        assert_eq!(launch.url.to_string(), "http://127.0.0.1:7/base");
        assert_eq!(launch.command, ["shop", "--port=7"]);
        assert_eq!(launch.env, [("PORT".to_owned(), "7".to_owned())]);
        assert!(Template { url: "x".to_owned(), ..template }.at(7).is_err());
    }
}
