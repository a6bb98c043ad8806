//! goms: a team's microservices in one binary, and the library for services in Rust.
//!
//! A service author needs [`Service`], [`Context`] and [`ServiceError`]:
//!
//! ```no_run
//! use goms::{Context, Service, ServiceError};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Deserialize)]
//! struct Login {
//!     username: String,
//! }
//!
//! #[derive(Serialize)]
//! struct Welcome {
//!     hello: String,
//! }
//!
//! async fn login(_ctx: Context, body: Login) -> Result<Welcome, ServiceError> {
//!     Ok(Welcome { hello: body.username })
//! }
//!
//! fn main() -> std::process::ExitCode {
//!     Service::new("user").route("/login", login).run()
//! }
//! ```
//!
//! [`guide`] has a guide for each role. [`testing`] runs services within a test; `goms new NAME` makes a project with both.
//!
//! # The map
//!
//! Each folder is a room; its `mod.rs` says what it does and what it may import, and a test holds it to that.
//!
//! | room | what it is |
//! |---|---|
//! | [`cli`], [`config`] | what the user said: arguments, file and environment → one checked `Config` |
//! | [`registry`] | who is where: nodes find each other (`local`, `memory`, `etcd`, `consul`, `kubernetes`, `mdns`, `static`) |
//! | [`balance`] | which one: endpoints with live load, and the pickers |
//! | [`upstream`] | call it: deadline, retry on the next node, headers |
//! | [`rpc`] | what an RPC is: codes, frames, codecs, messages known at run time, timeouts, the RPC port |
//! | [`trace`] | what happened: context, event, recorder, spool, transports |
//! | [`broker`] | who hears it: messages between services |
//! | [`store`] | where it is kept: embedded (tantivy), Elasticsearch, another process's |
//! | `reading` | what was told: stored events as requests, spans and files of other tools |
//! | [`listener`] | the doorstep: sockets, PROXY header, TLS, HTTP/1.1 and 2 |
//! | [`gateway`] | the front door |
//! | [`service`] | the framework, and goms in front of a program in another language |
//! | [`consumer`] | the pipeline's end: batches, acknowledgement, dead letters, spans of other programs |
//! | [`admin`] | the back door: health, metrics, the process's nodes |
//! | [`dashboard`] | the window: the pages of the admin port |
//! | [`app`] | the composition root: roles, and the commands that read |
//! | [`drain`] | how an HTTP server ends without failing a request |
//! | `upgrade` | clients that ask a server for WebSocket |
//! | [`call_key`] | the key between services, and when it was last used |
//! | [`shutdown`], [`backoff`], [`metrics`], [`causes`], [`trust`], [`units`], [`figures`], `timer`, `framing`, `raw_fields`, `json` | what every room may use |
//!
//! # The path of a request
//!
//! ```text
//! socket → listener (http1, http2) → gateway::pipeline: route → limits → keeper → body → upstream::call ⇄ balance::pick → answer → recorder
//!                                                                          │ (retry on the next node)
//!                            service::server: guard → body → handler → answer → recorder
//! ```
//!
//! A call by RPC goes `rpc::port` → `gateway::rpc` (which service? its terms) → `upstream::rpc` → `service::rpc`; an action that is a
//! method leaves the pipeline behind `keeper` for `gateway::rpc`, a path of Go Micro's gateway for `gateway::micro`.
//! gRPC-Web leaves it before `route` for `gateway::rpc::web`.
//!
//! ```text
//! publish → broker (RabbitMQ, NATS, MQTT, HTTP or memory) → service::subscribe: handler → acknowledged, tried again, or a dead letter
//! ```
//!
//! # The path of an event
//!
//! ```text
//! Recorder (never waits) → trace::spool (batches; on disk while the transport is away) → trace::transport (confirmed)
//!   → RabbitMQ or HTTP → consumer::pipeline → store::TraceStore → acknowledged only once stored
//! ```

//!
//! # For who comes from Go Micro
//!
//! | there | here |
//! |---|---|
//! | Service, its options | [`Service`]: a builder; what was an option is a flag, a `GOMS_…` variable or a key of the config (`goms service --help`) |
//! | Server | [`service`]: [`Service::route`] over HTTP, [`Service::rpc`], [`Service::rpc_message`] and their streams by gRPC, and by mucp with `--go-micro-protocol mucp` |
//! | Client | [`Context::call`], [`Context::rpc`] and [`Context::rpc_stream`] in a handler; [`upstream`] below them: deadline, retry on the next node, breaker |
//! | Registry | [`registry::Registry`]; `--registry-format go-micro` writes nodes as Go Micro's, which are read anyway |
//! | Selector | [`balance::Selector`] of each service; the catalog is always cached |
//! | Broker | [`broker`]: [`Context::publish`], [`Service::subscribe`]; `--broker http` is theirs |
//! | Codec | [`rpc::Codec`], by content type: JSON and protobuf |
//! | Transport | HTTP/1.1 and gRPC over HTTP/2, each on its port; a node's metadata says what it speaks ([`registry::RpcProtocol`]) |
//! | `micro api` | [`gateway::micro`]: `goms gateway --handler api` |

pub mod admin;
pub mod app;
pub mod backoff;
pub mod balance;
pub mod broker;
pub mod call_key;
pub mod causes;
pub mod cli;
pub mod config;
pub mod consumer;
pub mod dashboard;
pub mod drain;
pub mod figures;
mod framing;
pub mod gateway;
pub mod guide;
mod json;
pub mod listener;
pub mod metrics;
mod raw_fields;
mod reading;
pub mod registry;
pub mod rpc;
pub mod service;
pub mod shutdown;
pub mod store;
mod timer;
pub mod trace;
pub mod trust;
pub mod units;
mod upgrade;
pub mod upstream;

pub use app::testing;
pub use service::{CallError, CallStream, Context, Requests, Service, ServiceError};
