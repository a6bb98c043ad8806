//! This machine: ports, open files, the data folder.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;

use rustix::process::{Resource, getrlimit};

use super::Finding;
use crate::app::{descriptors, gateway};
use crate::config::Config;
use crate::registry::{self, Catalog};

/// A gateway has a socket for each client and one for each request behind it.
const FEW_FILES: u64 = 16_384;
/// The least that the data folder should have free, in bytes: a full spool (256 MiB) twice.
const LITTLE_ROOM: u64 = 512 << 20;

/// Everything that can be seen without a network.
pub(super) fn look(config: &Config, catalog: &Catalog) -> Vec<Finding> {
    let ports = (config.node.http_port, config.node.rpc_port);
    let (http, rpc) = (ports.0.unwrap_or(gateway::DEFAULT_PORTS.0), ports.1.unwrap_or(gateway::DEFAULT_PORTS.1));
    let mut found: Vec<_> =
        [("HTTP", http), ("RPC", rpc)].into_iter().map(|(name, port)| port_of(config, catalog, name, port)).collect();
    found.push(open_files());
    found.push(data(&config.data_dir));
    found
}

fn port_of(config: &Config, catalog: &Catalog, name: &str, port: u16) -> Finding {
    let address = SocketAddr::new(config.node.bind, port);
    let Err(error) = TcpListener::bind(address) else {
        return Finding::good("ports", format!("{port} ({name} of a gateway) is free"));
    };
    let own = registry::own_ip();
    let is_here = |address: Option<SocketAddr>| {
        address.is_some_and(|address| address.port() == port && (address.ip() == own || address.ip().is_loopback()))
    };
    let taken = catalog.all().find(|node| is_here(node.id.http.socket()) || is_here(node.id.rpc.socket()));
    match taken {
        Some(node) => {
            Finding::good("ports", format!("{port} ({name} of a gateway) is that of {} {}", node.id.service, node.id))
        }
        None => Finding::doubtful(
            "ports",
            format!("{port} ({name} of a gateway) cannot be had: {error}"),
            format!("`ss -ltnp 'sport = :{port}'` tells who has it; `--http-port` and `--rpc-port` choose others"),
        ),
    }
}

fn open_files() -> Finding {
    descriptors::raise_limit();
    let limit = getrlimit(Resource::Nofile).current;
    match limit {
        Some(limit) if limit < FEW_FILES => Finding::doubtful(
            "open files",
            format!("{limit} at most"),
            "a gateway with many clients needs more: `LimitNOFILE=` of its unit, or `ulimit -Hn`",
        ),
        Some(limit) => Finding::good("open files", format!("{limit} at most")),
        None => Finding::good("open files", "as many as wanted"),
    }
}

fn data(folder: &Path) -> Finding {
    let shown = folder.display();
    let usable = std::fs::create_dir_all(folder).and_then(|()| {
        let probe = folder.join(format!(".doctor-{}", std::process::id()));
        std::fs::write(&probe, b"goms")?;
        std::fs::remove_file(&probe)
    });
    if let Err(error) = usable {
        return Finding::broken("data folder", format!("{shown}: {error}"), "choose another with `--data-dir`");
    }
    match rustix::fs::statvfs(folder) {
        Ok(disk) => {
            let free = disk.f_bavail.saturating_mul(disk.f_frsize);
            let text = format!("{shown} has {} MB free", free / 1_000_000);
            if free < LITTLE_ROOM {
                Finding::doubtful(
                    "data folder",
                    text,
                    "spools and the embedded store need room: choose another `--data-dir`",
                )
            } else {
                Finding::good("data folder", text)
            }
        }
        Err(error) => Finding::doubtful("data folder", format!("{shown}: {error}"), "nobody knows how full it is"),
    }
}
