//! THE FRONT DOOR: from a client's socket to a service and back.
//!
//! May import: `registry`, `balance`, `upstream`, `trace`, `metrics`, `shutdown`, `drain`, `backoff`.
//!
//! [`serve`] opens the door; `pipeline` is a request's way in reading order: `route` → `limit` → `body` → the call →
//! `answer`, with `journal` noting what happened and `respond` turning errors into answers. `route` finds the [`Rule`] that
//! takes a request (by `host` and `pattern`; a `template` makes the path that is called); `live` puts others in force. `cluster` is the page that shows the
//! nodes.

pub mod access;
mod answer;
mod body;
mod cluster;
mod explain;
mod form;
mod host;
mod journal;
mod keeper;
mod limit;
mod live;
mod pattern;
mod pipeline;
pub mod rate;
mod respond;
mod route;
mod rule;
mod server;
mod template;
mod terms;

pub use explain::{Explanation, Question, Taken, Tried, explain};
pub use host::HostPattern;
pub use live::Live;
pub use pattern::PathPattern;
pub use rule::{Call, Condition, FieldCondition, Outcome, Redirect, Respond, Rule, Share};
pub use server::{GatewayError, Parts, serve};
pub use template::Template;
pub use terms::Terms;

pub use crate::drain::Running;

use std::collections::BTreeMap;
use std::time::Duration;

use crate::balance;
use crate::upstream::Policy;

/// What a gateway serves and how.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// `/api/<service>/<action>` → where it goes, with all policies already looked up (action, upstream, default).
    pub services: BTreeMap<String, Service>,
    /// Anything else. No two may conflict ([`Condition::conflicts`]).
    pub routes: Vec<Rule>,
    /// The first signs calls, all are accepted from callers (rotation); empty: no guard.
    pub call_keys: Vec<String>,
    /// The ways in which callers prove who they are.
    pub ways: access::Ways,
    /// What one request may use.
    pub limits: Limits,
    /// Print one line a request.
    pub access_log: bool,
}

/// A service behind the gateway.
#[derive(Clone, Debug, Default)]
pub struct Service {
    /// How its nodes are chosen and watched.
    pub balance: balance::Settings,
    /// Its actions by name; empty where only a route names it.
    pub actions: BTreeMap<String, Action>,
}

/// One action of a service.
#[derive(Clone, Debug)]
pub struct Action {
    /// The path that is called; begins with `/`.
    pub path: String,
    /// The methods it takes; empty: every method (others get 405).
    pub methods: Vec<String>,
    /// Deadline and retries.
    pub policy: Policy,
    /// What the service gets as a body.
    pub encode: Encode,
    /// What is made of the service's answer.
    pub answer: AnswerForm,
    /// What is asked of clients.
    pub terms: Terms,
}

/// What a service gets as a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Encode {
    /// JSON, forms and multipart become JSON.
    #[default]
    Json,
    /// They become `application/x-www-form-urlencoded`, for old Go nodes.
    Form,
    /// Streamed untouched.
    None,
}

/// What a client gets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AnswerForm {
    /// The service's JSON object with `"status":true` added.
    #[default]
    Goms,
    /// `{"code":200,"data":{…},"message":"success"}`, as go-ms answered.
    GoMs,
    /// As it is.
    Untouched,
}

/// What a request may use. Over a limit: the status beside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a body: 413.
    pub body_bytes: usize,
    /// Bytes of all header names and values: 431.
    pub header_bytes: usize,
    /// How long a client may take for the request's head: 408.
    pub header_timeout: Duration,
    /// How long a client may take for the body: 408.
    pub body_timeout: Duration,
    /// How long a connection may idle between requests.
    pub idle_timeout: Duration,
    /// Connections a worker.
    pub connections: usize,
    /// Requests in flight in this process: 429 with `Retry-After`.
    pub in_flight: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 10 << 20,
            header_bytes: 64 << 10,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75), // nginx's keepalive_timeout
            connections: 25_000,
            in_flight: 20_000,
        }
    }
}
