//! Binding the ports of a node before anything else starts, so that a taken one is told at once and a port that others
//! are told is one that answers.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};

use tokio::net::TcpSocket;
use url::{Host, Url};

use super::AppError;
use crate::config::{Config, Listen, SpanSettings};
use crate::listener::{HTTPS_PORT, SocketFile};
use crate::registry;
use crate::trace::OtlpSettings;

/// Connections that may wait to be accepted. The kernel cuts it to `net.core.somaxconn` (4,096 by default); the standard
/// library's 128 overflows when a load generator opens some hundred connections at once.
const BACKLOG: u32 = 4_096;

/// The bound ports of a node.
pub struct Ports {
    /// Where it takes HTTP.
    pub http: TcpListener,
    /// Where it takes HTTPS, if it does.
    pub https: Option<TcpListener>,
    /// A Unix socket where it takes HTTP, too.
    pub file: Option<SocketFile>,
    /// Where it takes RPC.
    pub rpc: TcpListener,
    /// Where it takes spans of other programs in OTLP, if it does.
    pub otlp: Option<TcpListener>,
    /// The same in Zipkin's JSON.
    pub zipkin: Option<TcpListener>,
}

/// Where OpenTelemetry's programs send to by default, over HTTP.
const OTLP_PORT: u16 = 4318;
/// The same of Zipkin's.
const ZIPKIN_PORT: u16 = 9411;

impl Ports {
    /// Binds a gateway's other doors.
    ///
    /// # Errors
    /// [`AppError::Port`] names the port and its flag; [`AppError::Part`] when there can be no socket.
    pub fn and_doors(mut self, config: &Config) -> Result<Self, AppError> {
        let node = &config.node;
        if config.gateway.tls.is_some() {
            let ip = node.https_bind.unwrap_or(node.bind);
            self.https = Some(listen(ip, node.https_port.unwrap_or(HTTPS_PORT), "--https-port")?);
        }
        let file = node.http_socket.as_deref().map(SocketFile::bind).transpose();
        self.file = file.map_err(|error| AppError::Part(Box::new(error)))?;
        Ok(self)
    }

    /// Binds those for spans of other programs, too; `ip` is where they listen that name none.
    ///
    /// # Errors
    /// [`AppError::Port`] names the port and its flag.
    pub fn and_spans(mut self, ip: IpAddr, settings: SpanSettings) -> Result<Self, AppError> {
        let open = |place, usual, flag| match place {
            Listen::Off => Ok(None),
            Listen::At { ip: own, port } => listen(own.unwrap_or(ip), port.unwrap_or(usual), flag).map(Some),
        };
        self.otlp = open(settings.otlp, OTLP_PORT, "--otlp")?;
        self.zipkin = open(settings.zipkin, ZIPKIN_PORT, "--zipkin")?;
        Ok(self)
    }

    /// Whether an exporter with these settings would send here.
    ///
    /// # Errors
    /// When the operating system does not tell the address.
    pub fn takes_spans_of(&self, exporter: Option<&OtlpSettings>) -> Result<bool, AppError> {
        let (Some(listener), Some(exporter)) = (&self.otlp, exporter) else { return Ok(false) };
        Ok(leads_to(&exporter.url, listener.local_addr().map_err(AppError::Start)?, registry::own_ip()))
    }

    /// Where to send spans: what, and the URL with `host` for an address that is none.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn spans(&self, host: IpAddr) -> Result<Vec<(&'static str, String)>, AppError> {
        let mut told = Vec::new();
        for (what, path, listener) in [("otlp", "/v1/traces", &self.otlp), ("zipkin", "/api/v2/spans", &self.zipkin)] {
            let Some(listener) = listener else { continue };
            let mut address = listener.local_addr().map_err(AppError::Start)?;
            if address.ip().is_unspecified() {
                address.set_ip(host);
            }
            told.push((what, format!("http://{address}{path}")));
        }
        Ok(told)
    }
}

/// Whether a URL leads to this address of this machine, as far as its text tells.
fn leads_to(url: &str, address: SocketAddr, own_ip: IpAddr) -> bool {
    let Ok(url) = Url::parse(url) else { return false };
    let ip = match url.host() {
        Some(Host::Ipv4(ip)) => IpAddr::V4(ip),
        Some(Host::Ipv6(ip)) => IpAddr::V6(ip),
        Some(Host::Domain("localhost")) => IpAddr::V4(Ipv4Addr::LOCALHOST),
        Some(Host::Domain(_)) | None => return false,
    };
    let is_here = ip.is_loopback() || ip.is_unspecified() || ip == own_ip;
    url.port_or_known_default() == Some(address.port())
        && (ip == address.ip() || address.ip().is_unspecified() && is_here)
}

/// Binds a node's HTTP and RPC ports; 0 takes a free one.
///
/// # Errors
/// [`AppError::Port`] names the port and its flag. Must be called within the runtime.
pub fn bind(ip: IpAddr, http_port: u16, rpc_port: u16) -> Result<Ports, AppError> {
    let (http, rpc) = (listen(ip, http_port, "--http-port")?, listen(ip, rpc_port, "--rpc-port")?);
    Ok(Ports { http, https: None, file: None, rpc, otlp: None, zipkin: None })
}

/// Binds the admin port: the one that was asked for or none; else the RPC port + 100, or a free one where that is
/// taken or over 65535.
///
/// # Errors
/// [`AppError::Port`] when an explicit port is taken.
pub fn bind_admin(ip: IpAddr, asked: Option<u16>, rpc_port: u16) -> Result<TcpListener, AppError> {
    if let Some(port) = asked {
        return listen(ip, port, "--admin-port");
    }
    if let Some(port) = rpc_port.checked_add(100) {
        match listen(ip, port, "--admin-port") {
            Ok(listener) => return Ok(listener),
            Err(error) => log::debug!("admin port {port} is taken, taking a free one: {error}"),
        }
    }
    listen(ip, 0, "--admin-port")
}

/// The port that a listener got.
///
/// # Errors
/// When the operating system does not tell.
pub fn port_of(listener: &TcpListener) -> Result<u16, AppError> {
    Ok(listener.local_addr().map_err(AppError::Start)?.port())
}

fn listen(ip: IpAddr, port: u16, flag: &'static str) -> Result<TcpListener, AppError> {
    let address = SocketAddr::new(ip, port);
    let open = || {
        let socket = if ip.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        // a port whose connections linger in TIME_WAIT may be bound; one that listens may not
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(BACKLOG)?.into_std()
    };
    open().map_err(|source| AppError::Port { address, flag, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_that_leads_here_is_known() {
        let own: IpAddr = [10, 0, 0, 7].into();
        for (url, address, leads) in [
            ("http://127.0.0.1:4318/v1/traces", "127.0.0.1:4318", true),
            ("http://localhost:4318/v1/traces", "127.0.0.1:4318", true),
            ("http://localhost:4318/v1/traces", "0.0.0.0:4318", true),
            ("http://10.0.0.7:4318/v1/traces", "0.0.0.0:4318", true),
            ("http://[::1]:4318/v1/traces", "[::]:4318", true),
            ("http://10.0.0.7:4318/v1/traces", "127.0.0.1:4318", false),
            ("http://10.0.0.8:4318/v1/traces", "0.0.0.0:4318", false),
            ("http://127.0.0.1:4319/v1/traces", "127.0.0.1:4318", false),
            ("http://collector:4318/v1/traces", "0.0.0.0:4318", false),
        ] {
            assert_eq!(leads_to(url, address.parse().expect("an address"), own), leads, "{url} {address}");
        }
    }
}
