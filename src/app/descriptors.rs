//! How many sockets and files a process may have.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit to the hard one, which is what an administrator decides by: shells and service managers set the
/// soft one to 1,024 for the sake of programs that use `select`, and a gateway has a socket or two for each client.
pub fn raise_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current == maximum {
        return;
    }
    match setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }) {
        Ok(()) => log::debug!("limit of open files raised from={current:?} to={maximum:?}"),
        Err(error) => log::warn!("cannot raise the limit of open files limit={current:?} error=\"{error}\""),
    }
}
