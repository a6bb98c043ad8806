//! THE FRAMEWORK: what a service author uses, and goms in front of a program in another language.
//!
//! May import: `registry`, `balance`, `upstream`, `rpc`, `broker`, `trace`, `metrics`, `shutdown`, `drain`, `backoff`, `upgrade`, `call_key`, `causes`, `json`, `listener` (TLS).

mod app;
mod body;
mod builder;
mod calls;
mod context;
mod demo;
mod error;
mod forward;
mod front;
mod guard;
mod observe;
mod program;
mod publish;
mod rpc;
mod secure;
mod server;
mod subscribe;

pub use app::{PROGRAM_TIMEOUT, ProgramUrl, ProgramUrlError, serve_program};
pub use builder::Service;
pub use calls::{CallError, CallStream, CallTable, CalledAction};
pub use context::Context;
pub use demo::echo_service;
pub use error::{ServeError, ServiceError};
pub use front::serve_mucp;
pub use program::{
    Door, Launch, Lines, PORT_PLACEHOLDER, Program, ProgramError, ProgramSettings, ProgramState, Restart, Stream,
    Template,
};
pub use publish::PublishError;
pub use rpc::{ReflectionError, Requests, serve_rpc};
pub use server::{Limits, Parts, serve};
pub use subscribe::{Subscribers, Unheard};

pub use crate::drain::Running;
